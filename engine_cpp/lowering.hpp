// From a TorchScript graph to a program: the graph is interpreted at an example size, numbers as they are and
// fields as lists of planes, so that slicing, joining and reshaping channels costs nothing.
#pragma once

#include <ATen/ATen.h>
#include <torch/script.h>

#include <cstdint>
#include <stdexcept>

#include "program.hpp"

namespace atheria {

// A graph that has no program; what() says which part, for `why`.
struct NotLowered : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The program of a frozen law: forward(psi), or forward(psi, memory) where `memory` is defined.
// psi: an example (B, 2d, H, W); the sizes other than 2d must not matter, which the caller finds out by
// lowering another one. Throws NotLowered.
Program lower(const torch::jit::Module& frozen, const at::Tensor& psi, const at::Tensor& memory);

}  // namespace atheria
