#include "profile.hpp"

#include <array>
#include <cmath>
#include <cstdint>

namespace atheria {
namespace {

constexpr std::array activations{"", ", elu", ", relu", ", leaky_relu", ", tanh", ", sigmoid", ", silu"};
constexpr std::array functions{"elu", "relu", "leaky_relu", "tanh",   "sigmoid", "silu",   "exp",       "sin",
                               "cos", "sqrt", "rsqrt",      "square", "abs",     "negate", "reciprocal"};
constexpr std::array operations{"add", "subtract", "multiply", "divide"};

std::string name(const Instruction& instruction) {
  switch (instruction.op) {
    case Op::input:
      return "";
    case Op::convolve: {
      const auto side = std::to_string(instruction.kernel);
      return "convolution " + side + "x" + side +
             (instruction.dilation > 1 ? " dilated by " + std::to_string(instruction.dilation) : "");
    }
    case Op::upsample:
      return "upsampling 2x2";
    case Op::stencil:
      return "sums over neighbours";
    case Op::pool:
      return "max pooling 2x2";
    case Op::group_norm:
      return "group norm";
    case Op::affine:
      return "scale and shift";
    case Op::function:
      return functions.at(static_cast<std::size_t>(instruction.function));
    case Op::combine:
      return operations.at(static_cast<std::size_t>(instruction.operation));
    case Op::sum:
      return "sum over channels";
  }
  __builtin_unreachable();
}

// As "convolution 3x3, 16 -> 32 channels, elu, grid/2".
std::string describe(const Instruction& instruction) {
  auto text = name(instruction);
  if (text.empty()) return text;
  const auto read =
      instruction.op == Op::stencil ? instruction.channels : static_cast<std::int64_t>(instruction.a.size());
  text += ", ";
  if (read != instruction.channels) text += std::to_string(read) + " -> ";
  text += std::to_string(instruction.channels) + (instruction.channels == 1 ? " channel" : " channels");
  text += activations.at(static_cast<std::size_t>(instruction.activation));
  if (instruction.level > 0) text += ", grid/" + std::to_string(std::int64_t{1} << instruction.level);
  return text;
}

// Of one step, per cell of the grid; convolutions by their definition.
double operations_per_cell(const Instruction& instruction) {
  const auto cells = std::pow(0.25, static_cast<double>(instruction.level));
  const auto weights = static_cast<double>(instruction.weight.size());
  switch (instruction.op) {
    case Op::input:
      return 0;
    case Op::convolve:
      return cells * 2 * weights;
    case Op::upsample:
      return cells * 2 * weights / 4;  // each weight serves one of four cells
    case Op::stencil: {
      double taps = 0;
      for (const auto& stencil : instruction.stencils) taps += static_cast<double>(stencil.taps.size());
      return cells * 2 * taps;
    }
    default:
      return cells * static_cast<double>(instruction.channels);
  }
}

}  // namespace

Profile::Profile(const Program& program) {
  for (const auto& instruction : program.instructions) {
    parts_.push_back({describe(instruction), operations_per_cell(instruction)});
  }
  parts_.push_back({"the step around the law", 0});
}

Profile::Taking::Taking(Profile& profile) : profile_(profile) {
  for (auto& part : profile_.parts_) part.time = {};
  profile_.is_taken_ = true;
}

}  // namespace atheria
