// A law as a list of instructions on planes: one channel of one value on the whole grid. Lowering makes it
// from a TorchScript graph, a plan runs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"
#include "physics.hpp"

namespace atheria {

// A channel of an instruction's result; of nothing, which is 0 everywhere, where `value` is -1.
struct Plane {
  std::int64_t value = -1;
  std::int64_t channel = 0;

  bool operator==(const Plane&) const = default;
};

// `factor` times the plane's cell at (x + dx, y + dy).
struct Tap {
  Plane plane;
  std::int64_t dy, dx;
  float factor;

  bool operator==(const Tap&) const = default;
};

// One channel of a linear sum over neighbours.
struct Stencil {
  std::vector<Tap> taps;
  float constant = 0;

  bool operator==(const Stencil&) const = default;
};

enum class Op : std::uint8_t {
  input,       // field or memory
  convolve,    // square kernel, odd, "same" padding
  upsample,    // transposed convolution 2x2, stride 2
  stencil,     // fixed sums over neighbours, channel by channel
  pool,        // largest of 2x2
  group_norm,  // statistics over the whole grid, per group of channels
  affine,      // weight x + bias, per channel
  function,    // of one operand
  combine,     // of two operands
  sum          // over channels, times alpha
};

struct Instruction {
  Op op;
  std::int64_t level = 0;       // resolution: H / 2^level
  std::int64_t channels = 0;    // of the result
  std::vector<Plane> a{}, b{};  // operands, channel by channel

  std::int64_t kernel = 1, dilation = 1;  // of convolve
  std::int64_t groups = 1;                // of group_norm
  std::vector<float> weight{};            // convolve (out, in, k, k); upsample (in, out, 2, 2); per channel
  std::vector<float> bias{};              // per channel, or empty
  std::vector<Stencil> stencils{};
  Function function{};
  Operation operation{};
  float alpha = 0;                           // of function and sum
  float epsilon = 0;                         // of group_norm
  Activation activation = Activation::none;  // of what convolve and affine return
  float activation_alpha = 0;

  bool operator==(const Instruction&) const = default;
};

struct Program {
  std::vector<Instruction> instructions;  // each reads results of earlier ones
  std::vector<Plane> delta;
  std::vector<Plane> memory;  // empty where the law has none
  Boundary boundary = Boundary::torus;

  bool operator==(const Program&) const = default;

  std::int64_t levels() const;  // of the coarsest value
  std::int64_t halo() const;    // cells around a value that some instruction reads, at most

  // How far the output at a cell looks, over the cell's phases in its pooling block; none where everywhere.
  std::optional<std::int64_t> receptive_radius() const;
};

// Whether an instruction's cell reads nothing but the same cell.
bool is_pointwise(const Instruction& instruction);

// How many cells away an instruction reads, at its own resolution.
std::int64_t reach(const Instruction& instruction);

// Whether they are a value's channels, all of them in their order.
bool is_identity(const std::vector<Plane>& planes, std::int64_t value, std::int64_t channels);

// All planes that an instruction reads.
std::vector<Plane> operands(const Instruction& instruction);

// How many instructions and outputs read each value.
std::vector<std::int64_t> readers(const Program& program);

// Replaces what need not be computed: scales and activations join what they follow, unread instructions go.
Program simplified(Program program);

}  // namespace atheria
