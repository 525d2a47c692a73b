// The channels of noise.hpp by libtorch, on any device, at the same random numbers.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "noise.hpp"

namespace atheria {

// The field after the channel; psi: (B, 2d, H, W) float32; step: int64 scalar on psi's device.
// Throws std::invalid_argument where the channel needs more components.
at::Tensor apply_on_device(const Noise& noise, const at::Tensor& psi, std::uint64_t seed,
                           const at::Tensor& step);

}  // namespace atheria
