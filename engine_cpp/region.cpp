#include "region.hpp"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "integers.hpp"

namespace atheria {
namespace {

// Divides a column by its lowest factor, where nothing is lost by that: then more are alike. Returns what it
// is to be multiplied by.
float take_factor(Region::Column& column) {
  const auto lowest = column.taps.back().factor;
  const bool is_exact = std::all_of(column.taps.begin(), column.taps.end(), [&](const auto& tap) {
    return tap.factor / lowest * lowest == tap.factor;
  });
  if (!is_exact) return 1;
  for (auto& tap : column.taps) tap.factor /= lowest;
  return lowest;
}

NearestSums::Column of_three(const Region::Column& column, float factor) {
  NearestSums::Column three{};
  for (const auto& [dy, of_tap] : column.taps) {
    (dy < 0 ? three.above : dy > 0 ? three.below : three.here) = factor * of_tap;
  }
  return three;
}

// A sum over nearest neighbours of one source, and what it sees beside a cell: columns, -1 where there is
// none.
struct NearestSum {
  std::int64_t source, result;
  std::int64_t left = -1, right = -1;
  bool has_middle = false;
  NearestSums::Sum sum{};

  auto key() const { return std::tuple(source, left, right, has_middle); }
  bool shares_sides(const NearestSum& other) const {
    return left == other.left && right == other.right && left == right && left >= 0;
  }
};

std::optional<NearestSum> nearest_sum(const Region::Operator& op, std::int64_t result) {
  const auto& [taps, constant] = op.sums[at(result)];
  if (taps.empty()) return {};
  NearestSum own{op.columns[at(taps[0].column)].source, result};
  own.sum.constant = constant;
  for (const auto& [index, dx, factor] : taps) {
    const auto& column = op.columns[at(index)];
    const bool is_near = std::all_of(column.taps.begin(), column.taps.end(),
                                     [](const auto& tap) { return std::abs(tap.dy) <= 1; });
    if (column.source != own.source || std::abs(dx) > 1 || !is_near) return {};
    if (dx == 0) {
      own.sum.middle = of_three(column, factor);
      own.has_middle = true;
    } else {
      (dx < 0 ? own.left : own.right) = index;
      (dx < 0 ? own.sum.left : own.sum.right) = factor;
    }
  }
  // What counts for nothing may be like the other one.
  if (own.left < 0) own.left = own.right;
  if (own.right < 0) own.right = own.left;
  return own;
}

bool are_alike(const NearestSums::Group& a, const NearestSums::Group& b) {
  return a.left == b.left && a.right == b.right && a.has_sides == b.has_sides && a.is_alike == b.is_alike &&
         a.count == b.count && a.middles == b.middles && std::equal(a.sums, a.sums + a.count, b.sums);
}

std::vector<Region::Nearest> nearest(const Region::Operator& op) {
  std::vector<NearestSum> all;
  for (std::size_t s = 0; s < op.sums.size(); ++s) {
    const auto sum = nearest_sum(op, static_cast<std::int64_t>(s));
    if (!sum) return {};
    all.push_back(*sum);
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key() < b.key(); });
  std::vector<Region::Nearest> found;
  for (std::size_t s = 0; s < all.size();) {
    const auto& first = all[s];
    NearestSums::Group group{};
    group.has_sides = first.left >= 0;
    group.is_alike = first.left == first.right;
    if (group.has_sides) {
      group.left = of_three(op.columns[at(first.left)], 1);
      group.right = of_three(op.columns[at(first.right)], 1);
    }
    const bool is_pair = s + 1 < all.size() && first.shares_sides(all[s + 1]);
    std::vector<std::int64_t> results;
    for (; group.count < (is_pair ? 2 : 1); ++group.count, ++s) {
      group.sums[group.count] = all[s].sum;
      group.middles += all[s].has_middle ? 1 : 0;
      results.push_back(all[s].result);
    }
    auto same = std::find_if(found.begin(), found.end(),
                             [&](const auto& other) { return are_alike(other.group, group); });
    if (same == found.end()) same = found.insert(same, {group, {}, {}});
    same->sources.push_back(first.source);
    same->results.insert(same->results.end(), results.begin(), results.end());
  }
  return found;
}

}  // namespace

std::int64_t Region::chunk() const {
  constexpr std::int64_t cache = 112 * 1024 / static_cast<std::int64_t>(sizeof(float));
  constexpr std::int64_t unit = 48;  // a whole number of vectors of every width
  const auto wanted = rows + static_cast<std::int64_t>(sources.size()) + 1;
  return std::clamp<std::int64_t>(cache / wanted / unit * unit, 2 * unit, 6 * unit);
}

std::int64_t Region::filtered_chunk() const {
  const bool is_any = std::any_of(operators.begin(), operators.end(),
                                  [](const Operator& op) { return op.filtered.has_value(); });
  return is_any ? kernels().winograd_width * WinogradProduct::tile * most_across : 0;
}

bool Region::ends_in_product(const std::vector<Operand>& outputs) const {
  if (operators.empty()) return false;
  const auto& last = operators.back();
  const auto& instruction = last.instruction;
  if (instruction.op != Op::convolve || instruction.activation != Activation::none || last.filtered)
    return false;
  if (static_cast<std::int64_t>(outputs.size()) != instruction.channels) return false;
  auto row = last.first_row;
  for (const auto& output : outputs) {
    if (!output.is_local || output.row != row++) return false;
  }
  return std::none_of(stored.begin(), stored.end(),
                      [&](const auto& kept) { return kept.second >= last.first_row && kept.second < row; });
}

void separate(Region::Operator& op) {
  auto operand = op.a.begin();
  for (const auto& stencil : op.instruction.stencils) {
    std::vector<std::pair<std::int64_t, Region::Column>> found;  // and their dx
    for (const auto& tap : stencil.taps) {
      const auto dx = operand->dx;
      const auto source = operand->row;
      const auto same = std::find_if(found.begin(), found.end(), [&](const auto& other) {
        return other.first == dx && other.second.source == source;
      });
      auto& column = same != found.end() ? *same : found.emplace_back(dx, Region::Column{source, {}});
      column.second.taps.push_back({operand->dy, tap.factor});
      ++operand;
    }
    auto& sum = op.sums.emplace_back(Region::SumOfColumns{{}, stencil.constant});
    for (auto& [dx, column] : found) {
      std::sort(column.taps.begin(), column.taps.end(), [](auto a, auto b) { return a.dy < b.dy; });
      const auto factor = take_factor(column);
      const auto same = std::find(op.columns.begin(), op.columns.end(), column);
      sum.taps.push_back({same - op.columns.begin(), dx, factor});
      if (same == op.columns.end()) op.columns.push_back(std::move(column));
    }
  }
  op.nearest = nearest(op);
}

std::vector<float> pack_weights(const std::vector<float>& weight, std::int64_t outputs, std::int64_t depth,
                                std::int64_t block) {
  const auto blocks = ceil_div(outputs, block);
  std::vector<float> packed(at(blocks * block * depth), 0.0F);
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t k = 0; k < depth; ++k) {
      packed[at((o / block * depth + k) * block + o % block)] = weight[at(o * depth + k)];
    }
  }
  return packed;
}

std::vector<float> pad_bias(const std::vector<float>& bias, std::int64_t outputs, std::int64_t block) {
  std::vector<float> padded(at(rounded_up(outputs, block)), 0.0F);
  std::copy(bias.begin(), bias.end(), padded.begin());
  return padded;
}

RegionRun::RegionRun(const Region& region, Profile* profile)
    : region_(region),
      profile_(profile),
      row_size_(apart_in_cache(std::max(region.chunk(), region.filtered_chunk()))),
      scratch_(region.rows * row_size_) {
  for (const auto& op : region.operators) {
    a_.emplace_back(op.a.size());
    b_.emplace_back(op.b.size());
    terms_.emplace_back(op.a.size());
    auto& out = out_.emplace_back();
    for (std::int64_t c = 0; c < op.instruction.channels; ++c) out.push_back(row(op.first_row + c));
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
    case Op::sum: {
      auto& terms = terms_[index];
      for (std::size_t i = 0; i < a.size(); ++i) terms[i] = {a[i], instruction.alpha};
      return k.sum({terms.data(), static_cast<std::int64_t>(a.size()), 0.0F, out[0], 1, count, 0, 0});
    }
    case Op::affine:
      for (std::size_t c = 0; c < out.size(); ++c) {
        k.affine(a[c], out[c], {1, count, 0},
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
    case Op::stencil: {
      auto& terms = terms_[index];
      std::size_t tap = 0;
      for (std::size_t c = 0; c < out.size(); ++c) {
        const auto& stencil = instruction.stencils[c];
        for (std::size_t t = 0; t < stencil.taps.size(); ++t, ++tap) {
          terms[t] = {cells[op.a[tap].row], stencil.taps[t].factor};
        }
        k.sum({terms.data(), static_cast<std::int64_t>(stencil.taps.size()), stencil.constant, out[c], 1,
               count, 0, 0});
      }
      return;
    }
    default:
      return;
  }
}

void RegionRun::run(const float* const* cells, std::int64_t count, const RunNeighbours& run_neighbours,
                    std::size_t operators) {
  for (std::size_t i = 0; i < operators; ++i) {
    const auto& op = region_.operators[i];
    const Timed timed(profile_, at(op.value));
    const bool is_done = region_.reach > 0 && run_neighbours(op, out_[i].data());
    if (!is_done) run_operator(i, cells, count);
  }
}

}  // namespace atheria
