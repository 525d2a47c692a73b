// The harmonic vacuum: a small field of plane waves that laws read where there is no matter. It is never
// stored, and what a law makes of it counts only within the law's reach of matter. atheria/vacuum.py computes
// the same.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <vector>

#include "philox.hpp"
#include "physics.hpp"

namespace atheria {

// The waves at one step, the same in every universe.
class HarmonicVacuum {
 public:
  HarmonicVacuum(double level, std::int64_t d_state, std::uint64_t seed, std::int64_t step);

  // Writes Re and Im of a component in the cells from (x, y) on, row by row.
  void fill(std::int64_t component, std::int64_t x, std::int64_t y, std::int64_t width, std::int64_t height,
            float* re, float* im) const;

 private:
  static constexpr std::size_t waves = 4;  // of a component

  struct Wave {
    std::uint32_t along_x, along_y, phase;  // turns per cell, and at the origin, in units of 2^-32
  };

  double scale_;
  std::vector<std::array<Wave, waves>> components_;
};

// What a law reads of psi (B, 2d, H, W): the vacuum where there is no matter.
at::Tensor with_vacuum(const at::Tensor& psi, double level, std::uint64_t seed, std::int64_t step);

// Whether a cell is at most `reach` cells along x and y from matter: (B, 1, H, W).
at::Tensor near_matter(const at::Tensor& psi, std::int64_t reach, bool torus);

}  // namespace atheria
