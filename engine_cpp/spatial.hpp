// Instructions that see neighbours, in float32, on whole planes: convolutions, pooling, upsampling, group
// norms.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "planes.hpp"
#include "program.hpp"

namespace atheria {

// An instruction with its weights as the kernels want them.
struct Spatial {
  std::int64_t value;      // its place in the program
  bool in_place = false;   // a group norm that alone reads its operand
  std::int64_t depth = 0;  // inputs of the product
  std::vector<float> weights{}, bias{};
  std::vector<float> winograd{};  // transformed weights, empty where the sum is computed directly
};

// readers: how many instructions and outputs read each value.
Spatial prepare(const Program& program, std::int64_t value, bool winograd,
                const std::vector<std::int64_t>& readers);

void run_spatial(const Program& program, const Spatial& spatial,
                 const std::function<const Planes&(std::int64_t)>& planes_of, Scratch& scratch, bool torus,
                 bool needs_halo);

}  // namespace atheria
