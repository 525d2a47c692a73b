// Which cells of unbounded universes a step evaluates: all within the law's radius of matter. What was found
// for one step serves the next ones, too, while matter stays where it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tiles.hpp"

namespace atheria {

// A tile of one of many universes.
struct TileIndex {
  std::size_t universe, tile;
};

// Tiles, one after the other, with at most so many cells to evaluate: what a kernel is called for at once.
struct Batch {
  static constexpr std::size_t most_cells = 240;  // whole vectors of every width, five blocks of a product
  std::size_t first_tile, end_tile;
};

// The cells of a batch and the matter in and beside them, for a kernel of cells. Tiles, with the cells around
// them, are laid out side by side, a few at a time.
struct Listing {
  struct Cell {
    std::uint16_t place;  // where it is laid out
    std::uint8_t cell;    // of its tile
    std::uint8_t tile;    // of the batch
  };
  struct Matter {
    std::uint32_t index;  // of the tile that it is in
    std::uint16_t place;
    std::uint8_t cell;
    std::uint8_t tile;  // of the batch, that it is in or beside
  };
  // Tiles that are laid out at the same time.
  struct Group {
    std::size_t end_cell, end_matter;
  };

  bool is_whole = false;
  std::array<Cell, Batch::most_cells> cells;
  std::vector<Matter> matter{};  // with room for more
  std::vector<Group> groups{};   // the last one ends where the lists do
};

class Evaluation {
 public:
  // Makes the cells of `next` those to evaluate.
  void plan(const std::vector<Tiles>& now, std::vector<Tiles>& next, std::int64_t radius);

  std::int64_t cells() const { return cells_; }  // how many
  const std::vector<TileIndex>& tiles() const { return tiles_; }
  std::size_t tiles_of(std::size_t universe) const { return tiles_of_[universe]; }  // how many
  const std::vector<Batch>& batches() const { return batches_; }                    // of all tiles

  // Of a batch, as who lists it has left it; not whole where matter has come or gone since.
  Listing& listing(std::size_t batch) { return listings_[batch]; }

 private:
  bool is_for(const std::vector<Tiles>& now, std::int64_t radius) const;

  std::vector<CellSet::State> from_;  // what it is for, and
  std::int64_t radius_ = -1;
  std::int64_t cells_ = 0;
  std::vector<TileIndex> tiles_;
  std::vector<std::size_t> tiles_of_;
  std::vector<Batch> batches_;
  std::vector<Listing> listings_;
};

}  // namespace atheria
