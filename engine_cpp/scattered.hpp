// One step of scattered cells before noise and `global` normalisation, in two ways: cell by cell where a law
// has a kernel for that, else in dense windows.
#pragma once

#include <cstdint>
#include <vector>

#include "evaluation.hpp"
#include "law.hpp"
#include "physics.hpp"

namespace atheria {

struct ScatteredStep {
  const std::vector<Tiles>& now;  // of each universe
  std::vector<Tiles>& next;       // planned; its masks say where to evaluate, then where matter is
  Evaluation& evaluation;
  const Physics& physics;
  std::uint64_t seed;
  std::int64_t step;
};

// Whether the new field is finite.
bool step_cells(const CellKernel& kernel, const ScatteredStep& work);

// For any local law of that radius without memory.
bool step_windows(Law& law, std::int64_t radius, const ScatteredStep& work);

}  // namespace atheria
