// Runs a region over a grid, all cores busy.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "neighbours.hpp"
#include "physics.hpp"
#include "planes.hpp"
#include "profile.hpp"
#include "region.hpp"

namespace atheria {

// Where a local row is kept.
struct Target {
  float* plane;
  std::int64_t row;
  bool needs_halo;
};

inline Tally& operator+=(Tally& sum, const Tally& other) {
  sum.energy += other.energy;
  sum.occupied += other.occupied;
  return sum;
}

// A field (2d, H, W), so many floats from one plane to the next.
struct FieldPlanes {
  float* first = nullptr;
  std::int64_t plane = 0;
};

// What becomes of the law's answer; nothing where `out` is null.
struct Finish {
  const Physics* physics = nullptr;  // null: delta itself is written
  const float* fires = nullptr;      // 1 where a cell updates, else 0: (H, W), or null
  const std::vector<Operand>* psi = nullptr;
  const std::vector<Operand>* delta = nullptr;
  float* out = nullptr;                  // (2d, H, W)
  Profile* profile = nullptr;            // of the plan, where there is `out`
  std::int64_t steps = 1;                // several only of a region that takes them in a row
  std::array<FieldPlanes, 2> between{};  // for states on the way where cells see each other
};

// Whether run_region takes several steps of such a grid at once, where the region reads nothing but the
// field.
bool takes_steps_in_a_row(const Region& region, std::int64_t height, std::int64_t width);

Tally run_region(const Region& region, const std::vector<SourcePlane>& sources,
                 const std::vector<Target>& targets, const Layout& grid, bool torus, const Finish& finish,
                 const std::function<RegionRun&(std::size_t thread)>& runner);

}  // namespace atheria
