// Scattered cells in tiles of 8 x 8, found by their place: memory follows matter, not area.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "field.hpp"
#include "numbers.hpp"

namespace atheria {

// Cells of a tile: bit 8 y + x for the one at (x, y).
using Mask = std::uint64_t;

namespace tile {
inline constexpr std::int64_t side = 8;
inline constexpr std::size_t cells = 64;

inline constexpr Mask west = 0x0101010101010101;  // the column x = 0
inline constexpr Mask east = west << 7;
inline constexpr Mask north = 0xFF;  // the row y = 0
inline constexpr Mask south = north << 56;

// The tile that a coordinate falls into: floor division, of negatives too.
inline std::int64_t of(std::int64_t coordinate) { return coordinate >> 3; }
inline std::size_t index(std::int64_t x, std::int64_t y) {
  return static_cast<std::size_t>((y & 7) * 8 + (x & 7));
}
constexpr std::int64_t x_of(std::size_t cell) { return static_cast<std::int64_t>(cell % 8); }
constexpr std::int64_t y_of(std::size_t cell) { return static_cast<std::int64_t>(cell / 8); }
inline Mask bit(std::size_t cell) { return Mask{1} << cell; }

// How many. Where CPUs may lack the instruction, std::popcount is a call.
inline std::size_t count(Mask mask) {
  mask -= mask >> 1 & 0x5555555555555555;
  mask = (mask & 0x3333333333333333) + (mask >> 2 & 0x3333333333333333);
  mask = (mask + (mask >> 4)) & 0x0F0F0F0F0F0F0F0F;
  return mask * 0x0101010101010101 >> 56;
}

// Calls visit(cell) for each cell of a mask.
template <typename Visit>
void for_each(Mask mask, Visit visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<std::size_t>(std::countr_zero(mask)));
}
}  // namespace tile

// Where a tile is, in tiles.
struct Place {
  std::int64_t x, y;
  bool operator==(const Place&) const = default;
};

// Indices of the tiles around one, row by row from the north-west, itself in the middle; `nobody` for none.
using Around = std::array<std::uint32_t, 9>;
inline constexpr std::uint32_t nobody = static_cast<std::uint32_t>(-1);

// A set of cells: tiles in the order they came in, and a hash table of their places.
class CellSet {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  std::size_t tiles() const { return places_.size(); }
  Place place(std::size_t tile) const { return places_[tile]; }
  Mask mask(std::size_t tile) const { return masks_[tile]; }
  Mask& mask(std::size_t tile) { return masks_[tile]; }
  std::int64_t count() const;

  std::size_t find(Place place) const;  // or none
  std::size_t insert(Place place);      // where it is; a new one comes last and has no cells

  // Becomes all cells within `radius` of another set's, whose tiles keep their indices.
  void dilate(const CellSet& other, std::int64_t radius);

  // What tells whether a set is as it was.
  struct State {
    std::uint64_t structure = 0;
    std::vector<Mask> masks{};
  };
  bool is(const State& state) const { return structure_ == state.structure && masks_ == state.masks; }

  // Writes that of this set with the cells of another, whose tiles it has in the same order, and perhaps
  // more.
  void write_state_with(const CellSet& other, State& state) const;

  // The tiles around one, itself among them: of a set that was dilated all that have ever reached into it.
  const Around& around(std::size_t tile) const { return around_[tile]; }

  // Drops tiles without cells; calls move(from, to) where the last tile fills a gap.
  template <typename Move>
  void drop_empty(Move move) {
    auto kept = tiles();
    for (std::size_t tile = 0; tile < kept; ++tile) {
      if (masks_[tile] != 0) continue;
      do --kept;
      while (kept > tile && masks_[kept] == 0);
      if (kept == tile) break;
      places_[tile] = places_[kept];
      masks_[tile] = masks_[kept];
      move(kept, tile);
    }
    if (kept < tiles()) truncate(kept);
  }

 private:
  struct Slot {
    std::uint32_t tag;   // of the hash: most of the other tiles are told apart without a look at their place
    std::uint32_t tile;  // index + 1; 0 where vacant
  };

  // What a set was made of and became: matter that stays where it is asks for the same in every step.
  struct Dilated {
    State from;
    std::int64_t radius = 0;
    std::vector<Mask> to;
  };

  void copy_tiles(const CellSet& other);
  void dilate_by_one();
  void reach(std::size_t tile, std::int64_t dx, std::int64_t dy, Mask cells);
  void truncate(std::size_t tiles);
  void changed();
  void rehash(std::size_t slots);
  void enter(std::size_t tile);

  std::vector<Place> places_;
  std::vector<Mask> masks_;
  std::vector<Around> around_;
  std::vector<Slot> table_;      // a power of two, at most half full, probed linearly
  std::uint64_t structure_ = 0;  // of all but the masks: the same in sets that have the same tiles
  Dilated dilated_;
};

// A set of cells with their 2d numbers, Re before Im, cell by cell. What is outside the set is vacuum, and
// has any numbers.
class Tiles {
 public:
  explicit Tiles(std::int64_t d_state) : width_(2 * static_cast<std::size_t>(d_state)) {}

  CellSet cells;

  std::size_t width() const { return width_; }  // numbers of a cell
  const float* tile(std::size_t index) const { return numbers_.data() + index * tile::cells * width_; }
  float* tile(std::size_t index) { return numbers_.data() + index * tile::cells * width_; }
  Cell row(std::size_t index, std::int64_t y);

  // The numbers of a cell, null where it is vacuum.
  const float* find(std::int64_t x, std::int64_t y) const;
  void set(std::int64_t x, std::int64_t y, const float* numbers);
  void drop_empty();

  // Of none, makes these tiles, in their order. places: (count, 2), (x, y) each; numbers: of all cells of
  // the masks, tile after tile. False where a place is there twice.
  bool fill(std::size_t count, const std::int64_t* places, const Mask* masks, const float* numbers);

  // Prepares to be written anew: the cells within `radius` of another's. What the numbers were is lost.
  void plan(const Tiles& other, std::int64_t radius);

  // Takes cells without a number other than 0 out of a tile's mask; false where a number is not finite.
  bool settle(std::size_t index);

  // Calls visit(x, y, numbers) for each cell.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < cells.tiles(); ++i) {
      const auto [x, y] = cells.place(i);
      tile::for_each(cells.mask(i), [&](std::size_t cell) {
        visit(x * tile::side + tile::x_of(cell), y * tile::side + tile::y_of(cell), tile(i) + cell * width_);
      });
    }
  }

  bool operator==(const Tiles& other) const;

 private:
  std::size_t room() const;  // of so many tiles
  void make_room(std::size_t tiles);

  std::size_t width_;
  Numbers numbers_;  // of more tiles than there are, lest every step allocate
};

// Whether numbers hold matter, and whether all are finite.
struct Content {
  bool occupied, finite;

  static Content of(const float* numbers, std::size_t count) {
    constexpr std::uint32_t magnitude = 0x7FFFFFFF;
    constexpr std::uint32_t infinity = 0x7F800000;
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(numbers[i]) & magnitude;
      largest = bits > largest ? bits : largest;
    }
    return {largest > 0, largest < infinity};
  }
};

}  // namespace atheria
