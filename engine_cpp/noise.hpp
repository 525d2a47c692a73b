// Noise channels: stochastic unravellings, per cell; atheria/noise.py gives the formulas and draws the same
// numbers.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "field.hpp"
#include "philox.hpp"

namespace atheria {

// How a channel is used in one step of one universe.
struct NoiseUse {
  double level;
  std::uint32_t coin;  // a word that all cells of the universe share at this step
  bool inverse;        // undo what the same draws do; of unitary channels alone
};

// A channel changes the row of cells that begins with `first`, by the words of that row.
using NoiseChannel = void (*)(Cell first, const Row& words, const NoiseUse& use);

struct Noise {
  std::string name = "none";  // none, or a channel
  double level = 0.0;         // rate per step, [0, 1]; thermal: standard deviation

  bool operator==(const Noise&) const = default;

  // Throws std::invalid_argument for an unknown name or a level outside its range.
  void check() const;

  bool is_off() const { return name == "none" || level == 0; }

  // Throws std::invalid_argument where the channel needs more components.
  NoiseChannel channel(std::int64_t d_state) const;
  NoiseUse use(std::uint64_t seed, std::int64_t step, std::int64_t universe, bool inverse = false) const;

  // The field after the channel; psi: (B, 2d, H, W) float32 on the CPU, contiguous. Its inverse, at the same
  // draws, where it is one of those that act by unitaries: phases, signs, Z and X.
  at::Tensor apply(const at::Tensor& psi, std::uint64_t seed, std::int64_t step,
                   std::int64_t first_universe = 0, bool inverse = false) const;
};

}  // namespace atheria
