#include "region.hpp"

#include <algorithm>

namespace atheria {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

std::int64_t Region::chunk() const {
  constexpr std::int64_t cache = 96 * 1024 / static_cast<std::int64_t>(sizeof(float));
  constexpr std::int64_t unit = 48;  // a whole number of vectors of every width
  const auto wanted = rows + static_cast<std::int64_t>(sources.size()) + 1;
  return std::clamp<std::int64_t>(cache / wanted / unit * unit, 2 * unit, 8 * unit);
}

std::int64_t Region::rows_ahead() const {
  std::int64_t count = 0;
  for (const auto& op : operators) {
    if (is_ahead(op)) count += op.instruction.channels;
  }
  return count;
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
  for (std::int64_t local = 0; local < region.rows; ++local) rows_.push_back(scratch_row(local));
  for (const auto& op : region.operators) {
    a_.emplace_back(op.a.size());
    b_.emplace_back(op.b.size());
    terms_.emplace_back(op.a.size());
    auto& out = out_.emplace_back();
    for (std::int64_t c = 0; c < op.instruction.channels; ++c) out.push_back(scratch_row(op.first_row + c));
  }
}

void RegionRun::run_operator(std::size_t index, const float* const* cells, std::int64_t count) {
  const auto& op = region_.operators[index];
  const auto& instruction = op.instruction;
  const auto& k = kernels();
  auto& a = a_[index];
  auto& b = b_[index];
  auto& out = out_[index];
  const auto located = [&](const Operand& operand) {
    return operand.is_local ? row(operand.row) : cells[operand.row];
  };
  std::transform(op.a.begin(), op.a.end(), a.begin(), located);
  std::transform(op.b.begin(), op.b.end(), b.begin(), located);
  switch (instruction.op) {
    case Op::convolve:
      return k.multiply(
          {a.data(), static_cast<std::int64_t>(a.size()), op.weights.data(), op.bias.data(), out.data(),
           instruction.channels, instruction.activation, instruction.activation_alpha},
          0, count);
    case Op::mean: {
      auto& terms = terms_[index];
      for (std::size_t i = 0; i < a.size(); ++i) terms[i] = {a[i], instruction.alpha};
      return k.sum(terms.data(), static_cast<std::int64_t>(a.size()), 0.0F, out[0], 1, count, 0);
    }
    case Op::affine:
      for (std::size_t c = 0; c < out.size(); ++c) {
        k.affine(a[c], out[c], count,
                 {0.0F, instruction.weight[c], instruction.bias[c], instruction.activation,
                  instruction.activation_alpha});
      }
      return;
    case Op::function:
      for (std::size_t c = 0; c < out.size(); ++c) {
        k.apply(instruction.function, instruction.alpha, a[c], out[c], count);
      }
      return;
    case Op::combine:
      for (std::size_t c = 0; c < out.size(); ++c)
        k.combine(instruction.operation, a[c], b[c], out[c], count);
      return;
    default:
      return;
  }
}

template <class Locate>
void RegionRun::run_stencil(std::size_t index, const Locate& locate, float* const* out, const Ahead& size,
                            std::int64_t stride) {
  const auto& op = region_.operators[index];
  auto& terms = terms_[index];
  std::size_t tap = 0;
  for (std::size_t c = 0; c < op.instruction.stencils.size(); ++c) {
    const auto& stencil = op.instruction.stencils[c];
    for (std::size_t t = 0; t < stencil.taps.size(); ++t, ++tap) {
      terms[t] = {locate(op.a[tap]), stencil.taps[t].factor};
    }
    kernels().sum(terms.data(), static_cast<std::int64_t>(stencil.taps.size()), stencil.constant, out[c],
                  size.height, size.width, stride);
  }
}

void RegionRun::run_ahead(const float* const* neighbours, std::int64_t stride, const Ahead& ahead) {
  std::vector<float*> out;
  float* next = ahead.first;
  for (std::size_t i = 0; i < region_.operators.size(); ++i) {
    const auto& op = region_.operators[i];
    if (!region_.is_ahead(op)) continue;
    out.clear();
    for (std::int64_t c = 0; c < op.instruction.channels; ++c, next += ahead.size) out.push_back(next);
    const auto locate = [&](const Operand& operand) {
      return neighbours[operand.row] + operand.dy * stride + operand.dx;
    };
    run_stencil(i, locate, out.data(), ahead, stride);
  }
}

void RegionRun::run(const float* const* cells, const float* ahead, std::int64_t size, std::int64_t count) {
  for (std::size_t i = 0; i < region_.operators.size(); ++i) {
    const auto& op = region_.operators[i];
    float* const* const out = out_[i].data();
    auto* const rows = rows_.data() + op.first_row;
    std::copy_n(out, op.instruction.channels, rows);
    if (region_.is_ahead(op)) {
      for (std::int64_t c = 0; c < op.instruction.channels; ++c, ahead += size) rows[c] = ahead;
    } else if (op.instruction.op == Op::stencil) {
      const auto locate = [&](const Operand& operand) { return cells[operand.row]; };
      run_stencil(i, locate, out, {.height = 1, .width = count}, 0);
    } else {
      run_operator(i, cells, count);
    }
  }
}

}  // namespace atheria
