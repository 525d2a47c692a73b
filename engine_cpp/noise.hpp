// Noise channels: stochastic unravellings, per cell, that keep the cell's norm.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace atheria {

struct Noise {
  std::string name = "none";  // none | phase_flip | seed | sign_flip
  double level = 0.0;         // rate per step, a probability

  // Throws std::invalid_argument for an unknown name or a level outside its range.
  void check() const;

  // Changes psi in place: (B, 2d, H, W) float32 on the CPU, contiguous.
  void apply(at::Tensor& psi, std::uint64_t seed, std::int64_t step) const;
};

}  // namespace atheria
