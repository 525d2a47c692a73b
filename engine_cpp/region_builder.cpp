#include "region_builder.hpp"

#include <algorithm>
#include <utility>

#include "filters.hpp"
#include "integers.hpp"

namespace atheria {
namespace {

// Lets results take the rows of earlier ones that nothing reads any more.
void reuse_rows(Region& region, const std::vector<std::vector<Operand>*>& outputs) {
  const auto count = static_cast<std::int64_t>(region.operators.size());
  std::vector<std::int64_t> last_use(at(region.rows), count);  // of rows that nothing makes: kept
  for (const auto& op : region.operators) {
    std::fill_n(last_use.begin() + op.first_row, op.instruction.channels, std::int64_t{-1});
  }
  const auto use = [&](const std::vector<Operand>& operands, std::int64_t when) {
    for (const auto& operand : operands) {
      if (operand.is_local) last_use[at(operand.row)] = std::max(last_use[at(operand.row)], when);
    }
  };
  for (std::int64_t i = 0; i < count; ++i) {
    use(region.operators[at(i)].a, i);
    use(region.operators[at(i)].b, i);
  }
  for (const auto* operands : outputs) use(*operands, count);
  for (const auto& [plane, row] : region.stored) last_use[at(row)] = count;

  std::vector<std::int64_t> place(at(region.rows), -1);
  std::vector<std::int64_t> taken_until;  // of each new row: the operator that reads it last
  const auto take = [&](std::int64_t first, std::int64_t channels, std::int64_t now) {
    std::int64_t to = 0;
    for (std::int64_t free = 0; free < channels; ++to) {
      const bool is_free = to >= static_cast<std::int64_t>(taken_until.size()) || taken_until[at(to)] < now;
      free = is_free ? free + 1 : 0;
    }
    to -= channels;
    taken_until.resize(std::max(taken_until.size(), at(to + channels)), -1);
    for (std::int64_t c = 0; c < channels; ++c) {
      place[at(first + c)] = to + c;
      // A row that is written but not read is taken while it is written.
      taken_until[at(to + c)] = std::max(last_use[at(first + c)], now);
    }
  };
  for (std::int64_t row = 0; row < region.rows; ++row) {
    if (last_use[at(row)] == count) {
      const bool is_made = std::any_of(region.operators.begin(), region.operators.end(), [&](const auto& op) {
        return row >= op.first_row && row < op.first_row + op.instruction.channels;
      });
      if (!is_made) take(row, 1, -1);
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    auto& op = region.operators[at(i)];
    take(op.first_row, op.instruction.channels, i);
  }
  const auto move = [&](std::vector<Operand>& operands) {
    for (auto& operand : operands) {
      if (operand.is_local) operand.row = place[at(operand.row)];
    }
  };
  for (auto& op : region.operators) {
    op.first_row = place[at(op.first_row)];
    move(op.a);
    move(op.b);
  }
  for (auto* operands : outputs) move(*operands);
  for (auto& [plane, row] : region.stored) row = place[at(row)];
  region.rows = static_cast<std::int64_t>(taken_until.size());
}

}  // namespace

Operand RegionBuilder::operand(Plane plane, std::int64_t dy, std::int64_t dx) {
  if (makes(plane.value)) return {true, rows_.at(plane.value) + plane.channel};
  if (plane.value < 0) return {true, zeros()};
  const auto found = std::find(region_.sources.begin(), region_.sources.end(), plane);
  const auto place = found - region_.sources.begin();
  if (found == region_.sources.end()) region_.sources.push_back(plane);
  region_.reach = std::max({region_.reach, std::abs(dy), std::abs(dx)});
  return {false, place, dy, dx};
}

void RegionBuilder::add(std::int64_t value) {
  Region::Operator op;
  op.instruction = program_.instructions[at(value)];
  op.value = value;
  auto& instruction = op.instruction;
  region_.level = instruction.level;
  for (const auto& plane : instruction.a) op.a.push_back(operand(plane));
  for (const auto& plane : instruction.b) op.b.push_back(operand(plane));
  for (const auto& stencil : instruction.stencils) {
    for (const auto& tap : stencil.taps) op.a.push_back(operand(tap.plane, tap.dy, tap.dx));
  }
  separate(op);
  if (instruction.op == Op::convolve) {
    const auto block = kernels().block;
    op.weights = pack_weights(instruction.weight, instruction.channels,
                              static_cast<std::int64_t>(instruction.a.size()), block);
    op.bias = pad_bias(instruction.bias, instruction.channels, block);
  }
  op.first_row = region_.rows;
  rows_[value] = region_.rows;
  region_.rows += instruction.channels;
  region_.operators.push_back(std::move(op));
}

void RegionBuilder::store(std::int64_t value) {
  for (std::int64_t c = 0; c < program_.instructions[at(value)].channels; ++c) {
    region_.stored.emplace_back(Plane{value, c}, rows_.at(value) + c);
  }
}

Region RegionBuilder::finished(const std::vector<std::vector<Operand>*>& outputs, bool winograd) {
  auto region = std::move(region_);
  const bool reads_field_alone = std::all_of(region.sources.begin(), region.sources.end(),
                                             [](const Plane& plane) { return plane.value == 0; });
  if (winograd && reads_field_alone) join_filters(region, {outputs.begin(), outputs.end()});
  reuse_rows(region, outputs);
  return region;
}

std::int64_t RegionBuilder::zeros() {
  if (zeros_ < 0) zeros_ = region_.rows++;
  return zeros_;
}

}  // namespace atheria
