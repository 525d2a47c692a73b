// Sums over neighbours in a part of a grid, read where the planes are: down the columns first, then along the
// rows.
#pragma once

#include <cstdint>
#include <vector>

#include "planes.hpp"
#include "region.hpp"

namespace atheria {

// How a plane that a region reads lies: with a margin, or bare.
struct SourcePlane {
  const float* first;  // the cell (0, 0)
  std::int64_t stride;
  bool has_halo;
};

// Whole rows of a grid, or a part of one.
struct Chunk {
  std::int64_t y, x, height, width;
  std::int64_t cells() const { return height * width; }
};

class Neighbours {
 public:
  using Sources = std::vector<SourcePlane>;

  // sources: or others that lie like them. rows, columns: of the largest chunk. is_filtered: whether chunks
  // are whole blocks of tiles.
  Neighbours(const Region& region, const Sources& sources, std::int64_t height, std::int64_t width,
             bool torus, std::int64_t rows, std::int64_t columns, bool is_filtered);

  // Floats that it works in.
  std::int64_t size() const { return columns_ * column_size_ + zeros_ + winograd_size_; }
  void work_in(float* memory);

  // Writes what an operator makes of a chunk and its neighbours, a row for each result, unless nothing reads
  // it here; returns false where that is not for it to do.
  bool run(const Region::Operator& op, const Sources& sources, const Chunk& chunk, float* const* out);

 private:
  // An operator's sums of columns, as the kernel wants them, but for the chunk.
  struct Prepared {
    std::vector<Term> terms;
    std::vector<Sum> sums;
  };

  float* column(std::int64_t i) const;
  void sum(const Region::Operator& op, const Sources& sources, const Chunk& chunk, float* const* out);
  Surroundings around(const Sources& sources, const Chunk& chunk);
  void convolve(const Region::Operator& op, const Sources& sources, const Chunk& chunk, float* const* out);
  bool is_nearest(const Region::Operator& op) const;
  Prepared prepared(const Region::Operator& op) const;
  void sum_nearest(const Region::Operator& op, const Sources& sources, const Chunk& chunk, float* const* out);
  void sum_column(const Region::Column& column, const SourcePlane& from, const Chunk& chunk, float* to);
  void sum_inside(const Region::Column& column, const SourcePlane& from, const Chunk& part, float* to);

  const Region& region_;
  const std::int64_t height_, width_, reach_;
  const bool torus_;
  const std::int64_t stride_;  // of the columns' rows
  const std::int64_t column_size_;
  std::int64_t columns_ = 0;
  const std::int64_t zeros_;  // that are read beyond an edge
  const bool is_filtered_;
  std::int64_t winograd_size_ = 0;
  bool sees_vectors_;  // bare planes, of rows of whole vectors one after the other
  float* memory_ = nullptr;
  std::vector<Prepared> prepared_;  // of each operator
  std::vector<Term> terms_;
  std::vector<NearestSums::Group> groups_;
  std::vector<const float*> planes_;
  std::vector<std::int64_t> rows_;
};

}  // namespace atheria
