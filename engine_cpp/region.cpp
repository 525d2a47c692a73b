#include "region.hpp"

#include <algorithm>

namespace atheria {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

std::int64_t Region::chunk() const {
  constexpr std::int64_t cache = 40 * 1024 / static_cast<std::int64_t>(sizeof(float));
  constexpr std::int64_t unit = 48;  // a whole number of vectors of every width
  const auto wanted = rows + static_cast<std::int64_t>(sources.size()) + 1;
  return std::clamp<std::int64_t>(cache / wanted / unit * unit, unit, 8 * unit);
}

std::vector<float> pack_weights(const std::vector<float>& weight, std::int64_t outputs, std::int64_t depth,
                                std::int64_t block) {
  const auto blocks = (outputs + block - 1) / block;
  std::vector<float> packed(at(blocks * block * depth), 0.0F);
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t k = 0; k < depth; ++k) {
      packed[at((o / block * depth + k) * block + o % block)] = weight[at(o * depth + k)];
    }
  }
  return packed;
}

std::vector<float> pad_bias(const std::vector<float>& bias, std::int64_t outputs, std::int64_t block) {
  std::vector<float> padded(at((outputs + block - 1) / block * block), 0.0F);
  std::copy(bias.begin(), bias.end(), padded.begin());
  return padded;
}

RegionRun::RegionRun(const Region& region)
    : region_(region), capacity_(region.chunk()), scratch_(region.rows * capacity_) {
  for (const auto& op : region.operators) {
    const auto& instruction = op.instruction;
    a_.emplace_back(op.a.size());
    b_.emplace_back(op.b.size());
    terms_.emplace_back(instruction.op == Op::stencil ? op.a.size() : 0);
    auto& out = out_.emplace_back();
    for (std::int64_t c = 0; c < instruction.channels; ++c) out.push_back(row(op.first_row + c));
    for (std::size_t i = 0; i < op.a.size(); ++i) {
      if (op.a[i].is_local) a_.back()[i] = row(op.a[i].row);
    }
    for (std::size_t i = 0; i < op.b.size(); ++i) {
      if (op.b[i].is_local) b_.back()[i] = row(op.b[i].row);
    }
  }
}

template <class Locate>
void RegionRun::run_operator(std::size_t index, const Locate& locate, std::int64_t cells) {
  const auto& op = region_.operators[index];
  const auto& instruction = op.instruction;
  const auto& k = kernels();
  auto& a = a_[index];
  auto& b = b_[index];
  auto& out = out_[index];
  if (op.reads_sources) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!op.a[i].is_local) a[i] = locate(op.a[i]);
    }
    for (std::size_t i = 0; i < b.size(); ++i) {
      if (!op.b[i].is_local) b[i] = locate(op.b[i]);
    }
  }
  switch (instruction.op) {
    case Op::convolve: {
      const Product product{a.data(),          static_cast<std::int64_t>(a.size()),
                            op.weights.data(), op.bias.data(),
                            out.data(),        instruction.channels,
                            instruction.activation, instruction.activation_alpha};
      return k.multiply(product, 0, cells);
    }
    case Op::stencil: {
      auto& terms = terms_[index];
      std::size_t first = 0;
      for (std::size_t c = 0; c < out.size(); ++c) {
        const auto& stencil = instruction.stencils[c];
        for (std::size_t t = 0; t < stencil.taps.size(); ++t) {
          terms[first + t] = {a[first + t], stencil.taps[t].factor};
        }
        k.sum(terms.data() + first, static_cast<std::int64_t>(stencil.taps.size()), stencil.constant, out[c],
              cells);
        first += stencil.taps.size();
      }
      return;
    }
    case Op::mean: {
      auto& terms = terms_[index];
      terms.resize(a.size());
      for (std::size_t i = 0; i < a.size(); ++i) terms[i] = {a[i], instruction.alpha};
      return k.sum(terms.data(), static_cast<std::int64_t>(a.size()), 0.0F, out[0], cells);
    }
    case Op::affine:
      for (std::size_t c = 0; c < out.size(); ++c) {
        k.affine(a[c], out[c], cells, instruction.weight[c], instruction.bias[c], instruction.activation,
                 instruction.activation_alpha);
      }
      return;
    case Op::function:
      for (std::size_t c = 0; c < out.size(); ++c) {
        k.apply(instruction.function, instruction.alpha, a[c], out[c], cells);
      }
      return;
    case Op::combine:
      for (std::size_t c = 0; c < out.size(); ++c) k.combine(instruction.operation, a[c], b[c], out[c], cells);
      return;
    default:
      return;
  }
}

template <class Locate>
void RegionRun::run_with(const Locate& locate, std::int64_t cells) {
  for (std::size_t i = 0; i < region_.operators.size(); ++i) run_operator(i, locate, cells);
}

void RegionRun::run(const float* const* sources, std::int64_t stride, std::int64_t cells) {
  run_with([&](const Operand& operand) { return sources[operand.row] + operand.dy * stride + operand.dx; },
           cells);
}

void RegionRun::run_scattered(const float* const* sources, std::int64_t cells) {
  const auto side = 2 * region_.reach + 1;
  const auto planes = static_cast<std::int64_t>(region_.sources.size());
  run_with(
      [&](const Operand& operand) {
        const auto place = (operand.dy + region_.reach) * side + operand.dx + region_.reach;
        return sources[place * planes + operand.row];
      },
      cells);
}

}  // namespace atheria
