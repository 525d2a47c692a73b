// Pointwise instructions, and sums over neighbours of stored planes, that run together: a few cells at a
// time, so that what passes between them stays in the cache.
#pragma once

#include <cstdint>
#include <vector>

#include "planes.hpp"
#include "program.hpp"

namespace atheria {

// A row that an instruction reads: of the region itself, or of a plane from outside, `dy`, `dx` away.
struct Operand {
  bool is_local;
  std::int64_t row;  // local row, or place among the region's sources
  std::int64_t dy = 0, dx = 0;
};

struct Region {
  struct Operator {
    Instruction instruction;
    std::vector<Operand> a, b;         // stencils: all taps, one after the other
    std::vector<float> weights, bias;  // of a convolution, as the kernels want them
    std::int64_t first_row = 0;        // of the result
  };

  std::vector<Operator> operators;
  std::vector<Plane> sources;
  std::int64_t level = 0;
  std::int64_t rows = 0;  // local ones
  std::int64_t reach = 0;
  std::vector<std::pair<Plane, std::int64_t>> stored;  // planes to keep, and their local rows

  // Cells that are run together.
  std::int64_t chunk() const;

  // Sums over neighbours are computed ahead of the rest: for many rows of cells at once, whose neighbours
  // then are met again in the cache.
  bool is_ahead(const Operator& op) const { return reach > 0 && op.instruction.op == Op::stencil; }
  std::int64_t rows_ahead() const;
};

// Packs weights (outputs, depth) by blocks of outputs.
std::vector<float> pack_weights(const std::vector<float>& weight, std::int64_t outputs, std::int64_t depth,
                                std::int64_t block);
std::vector<float> pad_bias(const std::vector<float>& bias, std::int64_t outputs, std::int64_t block);

// Rows of sums over neighbours, `size` floats apart, each of `height` rows of `width` cells.
struct Ahead {
  float* first = nullptr;
  std::int64_t size = 0, height = 0, width = 0;
};

// Runs a region on one run of cells after the other; of one thread.
class RegionRun {
 public:
  explicit RegionRun(const Region& region);

  // The sums over neighbours. neighbours: each source's cell (0, 0) among its neighbours, rows `stride`
  // apart.
  void run_ahead(const float* const* neighbours, std::int64_t stride, const Ahead& ahead);

  // The rest, on `count` cells. cells: each source's; ahead: the sums', rows `size` apart, null where there
  // are none.
  void run(const float* const* cells, const float* ahead, std::int64_t size, std::int64_t count);

  // Where a local row's cells of the last run are: results take turns in it.
  const float* row(std::int64_t local) const { return rows_[static_cast<std::size_t>(local)]; }

  // Memory for copies of sources.
  float* tile(std::int64_t floats) {
    if (floats > tile_size_) tile_ = Floats(tile_size_ = floats);
    return tile_.get();
  }

 private:
  float* scratch_row(std::int64_t local) { return scratch_.get() + local * capacity_; }
  void run_operator(std::size_t index, const float* const* cells, std::int64_t count);
  template <class Locate>
  void run_stencil(std::size_t index, const Locate& locate, float* const* out, const Ahead& size,
                   std::int64_t stride);

  const Region& region_;
  std::int64_t capacity_;
  Floats scratch_;
  Floats tile_;
  std::int64_t tile_size_ = 0;
  std::vector<const float*> rows_;
  std::vector<std::vector<const float*>> a_, b_;
  std::vector<std::vector<float*>> out_;
  std::vector<std::vector<Term>> terms_;
};

}  // namespace atheria
