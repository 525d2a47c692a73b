// Noise channels: stochastic unravellings, per cell; atheria/noise.py gives the formulas and draws the same
// numbers.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace atheria {

struct Noise {
  std::string name = "none";  // none, or a channel
  double level = 0.0;         // rate per step, [0, 1]; thermal: standard deviation

  // Throws std::invalid_argument for an unknown name or a level outside its range.
  void check() const;

  // The field after the channel; psi: (B, 2d, H, W) float32 on the CPU, contiguous. Its inverse, at the same
  // draws, where it is one of those that act by unitaries: phases, signs, Z and X.
  at::Tensor apply(const at::Tensor& psi, std::uint64_t seed, std::int64_t step,
                   std::int64_t first_universe = 0, bool inverse = false) const;
};

}  // namespace atheria
