// The random numbers of philox.hpp, drawn by libtorch: on any device, and by what a recorded step repeats.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <utility>

#include "philox.hpp"

namespace atheria {

// Words of counters that broadcast to one shape, int64 each, taken modulo 2^32: int64 too, in [0, 2^32).
std::array<at::Tensor, 4> philox(std::array<at::Tensor, 4> counter, std::uint64_t key);

// The words of every cell at one step, read in order across consecutive streams.
class DeviceDraws {
 public:
  // step: int64 scalar, on the device that draws.
  DeviceDraws(std::uint64_t seed, const Lattice& lattice, at::Tensor step, std::uint32_t first_stream);

  at::Tensor words(std::int64_t count);    // int64 (count, B, H, W)
  at::Tensor uniform(std::int64_t count);  // float32 (count, B, H, W) in [0, 1)

  // Re and Im of standard complex normals: float64 (count, B, H, W) each.
  std::pair<at::Tensor, at::Tensor> complex_normal(std::int64_t count);

 private:
  at::Tensor stream(std::int64_t index) const;

  std::uint64_t seed_;
  Lattice lattice_;
  at::Tensor step_;
  std::int64_t next_word_;
};

}  // namespace atheria
