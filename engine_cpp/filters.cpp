#include "filters.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include "integers.hpp"
#include "winograd_weights.hpp"

namespace atheria {
namespace {

constexpr auto elements = WinogradProduct::elements;
constexpr std::int64_t cells_of_tile = WinogradProduct::tile * WinogradProduct::tile;
constexpr double enough = 1.3;  // times the multiplications, to pay for the transforms

// 3 x 3, row by row.
using Filter = std::array<double, 9>;

bool makes(const Region::Operator& op, const Operand& operand) {
  const auto row = operand.row - op.first_row;
  return operand.is_local && row >= 0 && row < op.instruction.channels;
}

// A convolution's inputs as filters of sources, while it is not known whether all are.
class Inputs {
 public:
  explicit Inputs(const Region::Operator& filters) : filters_(filters) {
    std::int64_t tap = 0;
    for (const auto& stencil : filters.instruction.stencils) {
      first_tap_.push_back(tap);
      tap += static_cast<std::int64_t>(stencil.taps.size());
    }
  }

  // Adds what `weight` times an input is; returns whether that can be said.
  bool add(const Operand& input, double weight, std::map<std::int64_t, Filter>& sum) const {
    if (!input.is_local) {
      if (input.dy != 0 || input.dx != 0) return false;
      sum[input.row][4] += weight;
      return true;
    }
    if (!makes(filters_, input)) return false;
    const auto which = at(input.row - filters_.first_row);
    const auto& stencil = filters_.instruction.stencils[which];
    if (stencil.constant != 0) return false;
    for (std::size_t t = 0; t < stencil.taps.size(); ++t) {
      const auto& [is_local, row, dy, dx] = filters_.a[at(first_tap_[which]) + t];
      if (is_local || std::abs(dy) > 1 || std::abs(dx) > 1) return false;
      sum[row][at(4 + 3 * dy + dx)] += weight * static_cast<double>(stencil.taps[t].factor);
    }
    return true;
  }

 private:
  const Region::Operator& filters_;
  std::vector<std::int64_t> first_tap_;
};

// Of each output the filter of each source, the same sources for all.
using Filters = std::vector<std::map<std::int64_t, Filter>>;

std::optional<Filters> filters_of(const Region::Operator& convolution, const Region::Operator& stencils) {
  const Inputs inputs(stencils);
  const auto depth = static_cast<std::int64_t>(convolution.a.size());
  Filters filters(at(convolution.instruction.channels));
  for (std::int64_t o = 0; o < convolution.instruction.channels; ++o) {
    for (std::int64_t i = 0; i < depth; ++i) {
      const double weight = convolution.instruction.weight[at(o * depth + i)];
      if (!inputs.add(convolution.a[at(i)], weight, filters[at(o)])) return {};
    }
  }
  return filters;
}

constexpr double rounding = 1e-12;  // of sums of doubles, at most

double largest_of(const std::map<std::int64_t, Filter>& filters) {
  double largest = 0;
  for (const auto& [source, filter] : filters) {
    for (const auto tap : filter) largest = std::max(largest, std::abs(tap));
  }
  return largest;
}

// Whether what lies anywhere around a cell is seen, of every source: rounding would leave traces in cells
// that see none of it.
bool see_all_around(const Filters& filters) {
  std::map<std::int64_t, std::array<bool, 9>> seen;
  for (const auto& of_output : filters) {
    for (const auto& [source, filter] : of_output) {
      for (std::size_t tap = 0; tap < filter.size(); ++tap) {
        if (std::abs(filter[tap]) > rounding * largest_of(of_output)) seen[source][tap] = true;
      }
    }
  }
  const auto is_all = [](const auto& taps) { return std::all_of(taps.begin(), taps.end(), std::identity()); };
  return seen.size() == filters[0].size() &&
         std::all_of(seen.begin(), seen.end(), [&](const auto& of) { return is_all(of.second); });
}

Region::Filtered transformed(const Filters& filters) {
  const auto block = kernels().block;
  const auto outputs = static_cast<std::int64_t>(filters.size());
  const auto blocks = ceil_div(outputs, block);
  Region::Filtered result;
  for (const auto& [source, filter] : filters[0]) result.sources.push_back(source);
  const auto inputs = static_cast<std::int64_t>(result.sources.size());
  std::vector<std::vector<float>> of_elements;
  for (std::int64_t e = 0; e < elements; ++e) {
    std::vector<float> weights;
    // Symmetric filters cancel in some elements, to the last digits of a double.
    bool cancel = true;
    for (const auto& of_output : filters) {
      const auto least = rounding * largest_of(of_output);
      for (const auto& [source, filter] : of_output) {
        const auto weight = winograd_weight(filter.data(), e, symmetric_points);
        weights.push_back(static_cast<float>(weight));
        cancel = cancel && std::abs(weight) <= least;
      }
    }
    result.has_weights[at(e)] = !cancel;
    if (result.has_weights[at(e)]) of_elements.push_back(pack_weights(weights, outputs, inputs, block));
  }
  const auto of_element = block * inputs;
  result.weights_of_block = of_element * static_cast<std::int64_t>(of_elements.size());
  for (std::int64_t b = 0; b < blocks; ++b) {
    for (const auto& weights : of_elements) {
      const auto first = weights.begin() + b * of_element;
      result.weights.insert(result.weights.end(), first, first + of_element);
    }
  }
  return result;
}

// How often the region reads what an operator makes.
std::int64_t reads(const Region& region, const Region::Operator& of,
                   const std::vector<const std::vector<Operand>*>& outputs) {
  std::int64_t count = 0;
  const auto look = [&](const std::vector<Operand>& operands) {
    count += std::count_if(operands.begin(), operands.end(), [&](const Operand& o) { return makes(of, o); });
  };
  for (const auto& op : region.operators) {
    look(op.a);
    look(op.b);
  }
  for (const auto* operands : outputs) look(*operands);
  for (const auto& [plane, row] : region.stored) count += makes(of, {true, row}) ? 1 : 0;
  return count;
}

}  // namespace

void join_filters(Region& region, const std::vector<const std::vector<Operand>*>& outputs) {
  if (region.reach == 0) return;
  for (auto& convolution : region.operators) {
    if (convolution.instruction.op != Op::convolve) continue;
    for (auto& stencils : region.operators) {
      if (stencils.instruction.op != Op::stencil) continue;
      const auto own = std::count_if(convolution.a.begin(), convolution.a.end(),
                                     [&](const Operand& input) { return makes(stencils, input); });
      if (own == 0 || own != reads(region, stencils, outputs)) continue;
      const auto filters = filters_of(convolution, stencils);
      if (!filters || !see_all_around(*filters)) continue;
      auto joined = transformed(*filters);
      const auto multiplications =
          static_cast<double>(joined.weights_of_block / kernels().block) / cells_of_tile;
      if (static_cast<double>(convolution.a.size()) < enough * multiplications) continue;
      convolution.filtered = std::move(joined);
      stencils.is_filter = true;
    }
  }
}

}  // namespace atheria
