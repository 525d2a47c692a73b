// Instructions that see neighbours, on whole planes: convolutions, pooling, upsampling, group norms.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "planes.hpp"
#include "program.hpp"

namespace atheria {

enum class Precision : std::uint8_t { fp32, bf16 };

// Numbers that begin on a cache line, as a vector of them then does: tiles across two take twice the time.
struct alignas(64) PairLine {
  std::uint32_t words[16];
};

// An instruction with its weights as the kernels want them.
struct Spatial {
  std::int64_t value;      // its place in the program
  bool in_place = false;   // a group norm that alone reads its operand
  bool is_left = false;    // a group norm that is applied where its only reader rounds it to bfloat16
  std::int64_t depth = 0;  // inputs of the product, or pairs of them
  std::vector<float> weights{}, bias{};
  std::vector<float> winograd{};  // transformed weights, empty where the sum is computed directly
  std::vector<PairLine> pairs{};  // weights in bfloat16, empty where they are not used
};

// Memory that is used within one instruction, and what group norms have left to their readers.
struct SpatialScratch {
  Floats floats;
  std::int64_t size = 0;
  std::map<std::int64_t, std::vector<Affine>> left{};  // by value: of each channel

  float* take(std::int64_t count) {
    if (count > size) floats = Floats(size = count);
    return floats.get();
  }
};

// readers: how many instructions and outputs read each value.
Spatial prepare(const Program& program, std::int64_t value, Precision precision, bool winograd,
                const std::vector<std::int64_t>& readers);

void run_spatial(const Program& program, const Spatial& spatial,
                 const std::function<const Planes&(std::int64_t)>& planes_of, SpatialScratch& scratch,
                 bool torus, bool needs_halo);

}  // namespace atheria
