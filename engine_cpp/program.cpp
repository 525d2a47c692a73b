#include "program.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace atheria {
namespace {

std::int64_t floor_half(std::int64_t x) { return x >= 0 ? x / 2 : -((1 - x) / 2); }

// Cells that are needed along one axis, at a value's own resolution.
struct Range {
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  std::int64_t last = std::numeric_limits<std::int64_t>::min();

  void include(std::int64_t from, std::int64_t to) {
    first = std::min(first, from);
    last = std::max(last, to);
  }
  bool empty() const { return first > last; }
};

// What an instruction needs of its operands for a range of its result.
Range needed(const Instruction& instruction, const Range& result) {
  switch (instruction.op) {
    case Op::pool:
      return {2 * result.first, 2 * result.last + 1};
    case Op::upsample:
      return {floor_half(result.first), floor_half(result.last)};
    default:
      return {result.first - reach(instruction), result.last + reach(instruction)};
  }
}

void visit(std::vector<Plane>& planes, const auto& change) {
  for (auto& plane : planes) change(plane);
}

void visit_operands(Instruction& instruction, const auto& change) {
  visit(instruction.a, change);
  visit(instruction.b, change);
  for (auto& stencil : instruction.stencils) {
    for (auto& tap : stencil.taps) change(tap.plane);
  }
}

std::optional<Activation> as_activation(Function function) {
  switch (function) {
    case Function::elu:
      return Activation::elu;
    case Function::relu:
      return Activation::relu;
    case Function::leaky_relu:
      return Activation::leaky_relu;
    case Function::tanh:
      return Activation::tanh;
    case Function::sigmoid:
      return Activation::sigmoid;
    case Function::silu:
      return Activation::silu;
    default:
      return {};
  }
}

// weight x + bias of each channel that a convolution returns.
void scale(Instruction& convolution, const Instruction& affine) {
  const auto channels = static_cast<std::size_t>(convolution.channels);
  const auto each = convolution.weight.size() / channels;
  convolution.bias.resize(channels, 0.0F);
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t i = 0; i < each; ++i) convolution.weight[c * each + i] *= affine.weight[c];
    convolution.bias[c] = convolution.bias[c] * affine.weight[c] + affine.bias[c];
  }
  const bool is_nothing =
      std::all_of(convolution.bias.begin(), convolution.bias.end(), [](float b) { return b == 0; });
  if (is_nothing) convolution.bias.clear();
}

// What alone reads a convolution and scales it, and an activation that alone reads a convolution or an affine
// map, are computed with those.
void fuse_with_producers(Program& program) {
  auto count = readers(program);
  std::vector<std::int64_t> stands_for(program.instructions.size());
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    auto& instruction = program.instructions[i];
    stands_for[i] = static_cast<std::int64_t>(i);
    visit_operands(instruction, [&](Plane& plane) {
      if (plane.value >= 0) plane.value = stands_for[static_cast<std::size_t>(plane.value)];
    });
    const bool is_function = instruction.op == Op::function;
    if ((!is_function && instruction.op != Op::affine) || instruction.a.empty()) continue;
    const auto source = instruction.a[0].value;
    if (source < 0 || count[static_cast<std::size_t>(source)] != 1) continue;
    auto& before = program.instructions[static_cast<std::size_t>(source)];
    if (before.activation != Activation::none || !is_identity(instruction.a, source, before.channels))
      continue;
    const auto activation =
        is_function ? as_activation(instruction.function) : std::optional(Activation::none);
    const bool fusible = before.op == Op::convolve ||
                         (is_function && (before.op == Op::affine || before.op == Op::group_norm));
    if (!fusible || !activation) continue;
    if (is_function) {
      before.activation = *activation;
      before.activation_alpha = instruction.alpha;
    } else {
      scale(before, instruction);
    }
    stands_for[i] = source;
    count[static_cast<std::size_t>(source)] = count[i];
  }
  const auto follow = [&](Plane& plane) {
    if (plane.value >= 0) plane.value = stands_for[static_cast<std::size_t>(plane.value)];
  };
  visit(program.delta, follow);
  visit(program.memory, follow);
}

// Inputs stay, in their places: they are told apart by their order.
void drop_unread(Program& program) {
  std::vector<bool> is_read(program.instructions.size());
  const auto mark = [&](const std::vector<Plane>& planes) {
    for (const auto& plane : planes) {
      if (plane.value >= 0) is_read[static_cast<std::size_t>(plane.value)] = true;
    }
  };
  mark(program.delta);
  mark(program.memory);
  std::vector<std::int64_t> place(program.instructions.size(), -1);
  for (std::size_t i = program.instructions.size(); i-- > 0;) {
    if (program.instructions[i].op == Op::input) is_read[i] = true;
    if (is_read[i]) mark(operands(program.instructions[i]));
  }
  std::vector<Instruction> kept;
  const auto moved = [&](Plane& plane) {
    if (plane.value >= 0) plane.value = place[static_cast<std::size_t>(plane.value)];
  };
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    if (!is_read[i]) continue;
    place[i] = static_cast<std::int64_t>(kept.size());
    kept.push_back(std::move(program.instructions[i]));
    visit_operands(kept.back(), moved);
  }
  visit(program.delta, moved);
  visit(program.memory, moved);
  program.instructions = std::move(kept);
}

}  // namespace

bool is_pointwise(const Instruction& instruction) {
  switch (instruction.op) {
    case Op::convolve:
      return instruction.kernel == 1;
    case Op::affine:
    case Op::function:
    case Op::combine:
    case Op::sum:
      return true;
    default:
      return false;
  }
}

std::int64_t reach(const Instruction& instruction) {
  if (instruction.op == Op::convolve) return instruction.kernel / 2 * instruction.dilation;
  std::int64_t furthest = 0;
  for (const auto& stencil : instruction.stencils) {
    for (const auto& tap : stencil.taps) {
      furthest = std::max({furthest, std::abs(tap.dy), std::abs(tap.dx)});
    }
  }
  return furthest;
}

bool is_identity(const std::vector<Plane>& planes, std::int64_t value, std::int64_t channels) {
  if (static_cast<std::int64_t>(planes.size()) != channels) return false;
  for (std::int64_t c = 0; c < channels; ++c) {
    if (planes[static_cast<std::size_t>(c)] != Plane{value, c}) return false;
  }
  return true;
}

std::vector<Plane> operands(const Instruction& instruction) {
  auto planes = instruction.a;
  planes.insert(planes.end(), instruction.b.begin(), instruction.b.end());
  for (const auto& stencil : instruction.stencils) {
    for (const auto& tap : stencil.taps) planes.push_back(tap.plane);
  }
  return planes;
}

std::vector<std::int64_t> readers(const Program& program) {
  std::vector<std::int64_t> count(program.instructions.size());
  const auto read = [&](const std::vector<Plane>& planes) {
    std::vector<std::int64_t> values;
    for (const auto& plane : planes) {
      if (plane.value >= 0) values.push_back(plane.value);
    }
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    for (const auto value : values) ++count[static_cast<std::size_t>(value)];
  };
  for (const auto& instruction : program.instructions) read(operands(instruction));
  read(program.delta);
  read(program.memory);
  return count;
}

std::int64_t Program::levels() const {
  std::int64_t coarsest = 0;
  for (const auto& instruction : instructions) coarsest = std::max(coarsest, instruction.level);
  return coarsest;
}

std::int64_t Program::halo() const {
  std::int64_t widest = 0;
  for (const auto& instruction : instructions) widest = std::max(widest, reach(instruction));
  return widest;
}

std::optional<std::int64_t> Program::receptive_radius() const {
  if (!memory.empty()) return {};
  std::int64_t radius = 0;
  for (std::int64_t phase = 0; phase < (std::int64_t{1} << levels()); ++phase) {
    std::vector<Range> ranges(instructions.size());
    for (const auto& plane : delta) {
      if (plane.value >= 0) ranges[static_cast<std::size_t>(plane.value)].include(phase, phase);
    }
    for (std::size_t i = instructions.size(); i-- > 0;) {
      if (ranges[i].empty()) continue;
      if (instructions[i].op == Op::group_norm) return {};
      if (instructions[i].op == Op::input) {
        radius = std::max({radius, phase - ranges[i].first, ranges[i].last - phase});
        continue;
      }
      const auto range = needed(instructions[i], ranges[i]);
      for (const auto& plane : operands(instructions[i])) {
        if (plane.value >= 0) ranges[static_cast<std::size_t>(plane.value)].include(range.first, range.last);
      }
    }
  }
  return radius;
}

Program simplified(Program program) {
  fuse_with_producers(program);
  drop_unread(program);
  return program;
}

}  // namespace atheria
