// One step of scattered cells before noise and `global` normalisation, in two ways: cell by cell where a law
// has a kernel for that, else in dense windows.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "law.hpp"
#include "physics.hpp"
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

// The cells of a batch and the matter in and beside them, for a kernel of cells: listed again only after
// matter has come or gone. Tiles, with the cells around them, are laid out side by side, a few at a time.
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

struct ScatteredStep {
  const std::vector<Tiles>& now;        // of each universe
  std::vector<Tiles>& next;             // planned; its masks say where to evaluate, then where matter is
  const std::vector<TileIndex>& tiles;  // of next, those with cells to evaluate
  const std::vector<Batch>& batches;    // of all these
  std::vector<Listing>& listings;       // of each batch
  const Physics& physics;
  std::uint64_t seed;
  std::int64_t step;
};

// Whether the new field is finite.
bool step_cells(const CellKernel& kernel, const ScatteredStep& work);

// For any local law of that radius without memory.
bool step_windows(Law& law, std::int64_t radius, const ScatteredStep& work);

}  // namespace atheria
