#include "neighbours.hpp"

#include <algorithm>
#include <utility>

#include "integers.hpp"

namespace atheria {
namespace {

std::int64_t wrapped(std::int64_t i, std::int64_t size) {
  while (i < 0) i += size;
  while (i >= size) i -= size;
  return i;
}

bool is_within(std::int64_t i, std::int64_t first, std::int64_t count) {
  return i >= first && i < first + count;
}

}  // namespace

Neighbours::Neighbours(const Region& region, const Sources& sources, std::int64_t height, std::int64_t width,
                       bool torus, std::int64_t rows, std::int64_t columns, bool is_filtered)
    : region_(region),
      height_(height),
      width_(width),
      reach_(region.reach),
      torus_(torus),
      stride_(rounded_up(columns + 2 * reach_, widest_vector)),
      column_size_(rows * stride_ + 2 * rounded_up(reach_, widest_vector)),
      zeros_(torus ? 0 : columns + 2 * widest_vector),
      is_filtered_(is_filtered),
      sees_vectors_(width % widest_vector == 0 &&
                    std::all_of(sources.begin(), sources.end(),
                                [&](const SourcePlane& p) { return !p.has_halo && p.stride == width; })) {
  for (const auto& op : region.operators) {
    if (is_filtered_ && op.filtered) {
      const auto inputs = static_cast<std::int64_t>(op.filtered->sources.size());
      winograd_size_ = std::max(winograd_size_, winograd_scratch(inputs));
    }
    if (!is_nearest(op)) columns_ = std::max(columns_, static_cast<std::int64_t>(op.columns.size()));
  }
}

void Neighbours::work_in(float* memory) {
  memory_ = memory;
  std::fill_n(memory + columns_ * column_size_, zeros_, 0.0F);
  for (const auto& op : region_.operators) prepared_.push_back(prepared(op));
}

// The first cell of a column in the chunk.
float* Neighbours::column(std::int64_t i) const {
  return memory_ + i * column_size_ + rounded_up(reach_, widest_vector);
}

bool Neighbours::is_nearest(const Region::Operator& op) const { return sees_vectors_ && !op.nearest.empty(); }

Neighbours::Prepared Neighbours::prepared(const Region::Operator& op) const {
  Prepared all;
  if (is_nearest(op)) return all;
  for (const auto& sum : op.sums) {
    for (const auto& tap : sum.taps) all.terms.push_back({column(tap.column) + tap.dx, tap.factor});
    all.sums.push_back(
        {nullptr, static_cast<std::int64_t>(sum.taps.size()), sum.constant, nullptr, 0, 0, stride_, 0});
  }
  const auto* terms = all.terms.data();
  for (auto& sum : all.sums) sum.terms = std::exchange(terms, terms + sum.count);
  return all;
}

bool Neighbours::run(const Region::Operator& op, const Sources& sources, const Chunk& chunk,
                     float* const* out) {
  if (is_filtered_ && op.filtered) {
    convolve(op, sources, chunk, out);
    return true;
  }
  if (op.instruction.op != Op::stencil) return false;
  if (!(is_filtered_ && op.is_filter)) sum(op, sources, chunk, out);
  return true;
}

void Neighbours::sum(const Region::Operator& op, const Sources& sources, const Chunk& chunk,
                     float* const* out) {
  if (is_nearest(op)) return sum_nearest(op, sources, chunk, out);
  for (std::size_t i = 0; i < op.columns.size(); ++i) {
    const auto& column = op.columns[i];
    sum_column(column, sources[at(column.source)], chunk, this->column(static_cast<std::int64_t>(i)));
  }
  for (auto sum : prepared_[static_cast<std::size_t>(&op - region_.operators.data())].sums) {
    sum.out = *out++;
    sum.height = chunk.height;
    sum.width = sum.out_stride = chunk.width;
    kernels().sum(sum);
  }
}

Surroundings Neighbours::around(const Sources& sources, const Chunk& chunk) {
  const auto beside = [&](std::int64_t x) {
    const auto there = torus_ ? wrapped(x, width_) : x;
    return is_within(there, 0, width_) ? there - chunk.x : Surroundings::nothing;
  };
  planes_.clear();
  for (const auto& from : sources) planes_.push_back(from.first + chunk.x);
  rows_.clear();
  for (auto y = chunk.y - 1; y <= chunk.y + chunk.height; ++y) {
    const auto there = torus_ ? wrapped(y, height_) : y;
    rows_.push_back(is_within(there, 0, height_) ? there * width_ : Surroundings::nothing);
  }
  return {planes_.data(),
          rows_.data(),
          memory_ + columns_ * column_size_ + widest_vector,
          chunk.height,
          chunk.width,
          beside(chunk.x - 1),
          beside(chunk.x + chunk.width)};
}

void Neighbours::sum_nearest(const Region::Operator& op, const Sources& sources, const Chunk& chunk,
                             float* const* out) {
  groups_.clear();
  for (const auto& [group, from, results] : op.nearest) {
    auto& own = groups_.emplace_back(group);
    own.planes = static_cast<std::int64_t>(from.size());
    own.sources = from.data();
    own.results = results.data();
  }
  kernels().sum_nearest(
      {around(sources, chunk), groups_.data(), static_cast<std::int64_t>(groups_.size()), out});
}

void Neighbours::convolve(const Region::Operator& op, const Sources& sources, const Chunk& chunk,
                          float* const* out) {
  const auto& [from, weights, weights_of_block, has_weights] = *op.filtered;
  const auto& instruction = op.instruction;
  kernels().winograd_product({around(sources, chunk), from.data(), static_cast<std::int64_t>(from.size()),
                              weights.data(), weights_of_block, has_weights.data(), op.bias.data(), out,
                              instruction.channels, instruction.activation, instruction.activation_alpha,
                              memory_ + columns_ * column_size_ + zeros_});
}

// With what lies left and right of the chunk.
void Neighbours::sum_column(const Region::Column& column, const SourcePlane& from, const Chunk& chunk,
                            float* to) {
  const auto left = from.has_halo ? reach_ : std::min(reach_, chunk.x);
  const auto right = from.has_halo ? reach_ : std::min(reach_, width_ - chunk.x - chunk.width);
  const auto wide = left + chunk.width + right;
  if (from.has_halo || (chunk.y >= reach_ && chunk.y + chunk.height + reach_ <= height_)) {
    sum_inside(column, from, {chunk.y, chunk.x - left, chunk.height, wide}, to - left);
  } else {
    for (std::int64_t y = 0; y < chunk.height; ++y) {
      sum_inside(column, from, {chunk.y + y, chunk.x - left, 1, wide}, to + y * stride_ - left);
    }
  }
  // Beyond the edges of the grid.
  const auto fill = [&](std::int64_t y, std::int64_t x) {
    float& cell = to[y * stride_ + x];
    const auto there = wrapped(chunk.x + x, width_);
    if (!torus_) {
      cell = 0;
    } else if (is_within(there, chunk.x, chunk.width)) {
      cell = to[y * stride_ + there - chunk.x];
    } else {
      sum_inside(column, from, {chunk.y + y, there, 1, 1}, &cell);
    }
  };
  for (std::int64_t y = 0; y < chunk.height; ++y) {
    for (auto x = -reach_; x < -left; ++x) fill(y, x);
    for (auto x = chunk.width + right; x < chunk.width + reach_; ++x) fill(y, x);
  }
}

// Of columns that are there.
void Neighbours::sum_inside(const Region::Column& column, const SourcePlane& from, const Chunk& part,
                            float* to) {
  terms_.clear();
  for (const auto& tap : column.taps) {
    auto y = part.y + tap.dy;
    if (!from.has_halo && torus_) y = wrapped(y, height_);
    if (!from.has_halo && !is_within(y, 0, height_)) continue;
    terms_.push_back({from.first + y * from.stride + part.x, tap.factor});
  }
  kernels().sum({terms_.data(), static_cast<std::int64_t>(terms_.size()), 0.0F, to, part.height, part.width,
                 from.stride, stride_});
}

}  // namespace atheria
