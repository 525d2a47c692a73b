// One step of scattered cells before noise and `global` normalisation, in two ways: cell by cell where a law
// has a kernel for that, else in dense windows.
#pragma once

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

struct ScatteredStep {
  const std::vector<Tiles>& now;        // of each universe
  std::vector<Tiles>& next;             // planned; its masks say where to evaluate, then where matter is
  const std::vector<TileIndex>& tiles;  // of next, those with cells to evaluate
  const std::vector<Batch>& batches;    // of all these
  const Physics& physics;
  std::uint64_t seed;
  std::int64_t step;
};

// Whether the new field is finite.
bool step_cells(const CellKernel& kernel, const ScatteredStep& work);

// For any local law of that radius without memory.
bool step_windows(Law& law, std::int64_t radius, const ScatteredStep& work);

}  // namespace atheria
