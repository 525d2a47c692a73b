// Instructions that see neighbours, on whole planes: convolutions, pooling, upsampling, group norms.
#pragma once

#include <cstdint>
#include <functional>
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
  std::int64_t depth = 0;  // inputs of the product, or pairs of them
  std::vector<float> weights{}, bias{};
  std::vector<float> winograd{};  // transformed weights, empty where the sum is computed directly
  std::vector<PairLine> pairs{};  // weights in bfloat16, empty where they are not used
};

// Memory that is used within one instruction.
struct SpatialScratch {
  Floats floats;
  std::int64_t size = 0;

  float* take(std::int64_t count) {
    if (count > size) floats = Floats(size = count);
    return floats.get();
  }
};

Spatial prepare(const Program& program, std::int64_t value, Precision precision, bool winograd,
                bool alone_reads_its_operand);

void run_spatial(const Program& program, const Spatial& spatial,
                 const std::function<const Planes&(std::int64_t)>& planes_of, SpatialScratch& scratch,
                 bool torus, bool needs_halo);

}  // namespace atheria
