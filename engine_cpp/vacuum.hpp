// The harmonic vacuum: a small field of plane waves that laws read where there is no matter. It is never
// stored, and what a law makes of it counts only within the law's reach of matter. atheria/vacuum.py computes
// the same.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "field.hpp"
#include "philox.hpp"
#include "physics.hpp"

namespace atheria {

// The waves at one step, the same in every universe.
class HarmonicVacuum {
 public:
  static constexpr std::size_t waves = 4;  // of a component

  // What the sum of a component's waves, each of amplitude 1, is multiplied by.
  static double scale(double level, std::int64_t d_state) {
    return level / std::sqrt(static_cast<double>(waves) * static_cast<double>(d_state));
  }

  HarmonicVacuum(double level, std::int64_t d_state, std::uint64_t seed, std::int64_t step);

  // Writes Re and Im of a component in the cells from (x, y) on, row by row.
  void fill(std::int64_t component, std::int64_t x, std::int64_t y, std::int64_t width, std::int64_t height,
            float* re, float* im) const;

 private:
  struct Wave {
    std::uint32_t along_x, along_y, phase;  // turns per cell, and at the origin, in units of 2^-32
  };

  double scale_;
  std::vector<std::array<Wave, waves>> components_;
};

// The vacuum of a grid, (1, 2d, H, W) on the CPU.
at::Tensor vacuum_field(double level, const Shape& shape, std::uint64_t seed, std::int64_t step);

// The same by libtorch, on the device of `step`, an int64 scalar.
at::Tensor vacuum_on_device(double level, const Shape& shape, std::uint64_t seed, const at::Tensor& step);

// What a law reads of psi (B, 2d, H, W): the vacuum where there is no matter.
at::Tensor with_vacuum(const at::Tensor& psi, const at::Tensor& vacuum);

// What counts of delta, which a law made of psi and vacuum: 0 beyond the law's reach of matter.
at::Tensor where_near_matter(const at::Tensor& delta, const at::Tensor& psi, const Physics& physics);

}  // namespace atheria
