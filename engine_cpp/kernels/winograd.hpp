// Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, 2016): 36 multiplications for 16 outputs where the
// direct sum has 144. Vectors run over tiles. Included by kernels_of.hpp, inside its namespace.

// Six of a column of d to six of B^T d, for the points 0, a, -a, b, -b and infinity.
template <WinogradPoints points>
inline void winograd_forward(const Vector* d, Vector* to) {
  constexpr float a = points.a, b = points.b;
  constexpr float a2 = a * a, b2 = b * b;
  const Vector even = d[4] - b2 * d[2];
  const Vector odd = d[3] - b2 * d[1];
  const Vector even2 = d[4] - a2 * d[2];
  const Vector odd2 = d[3] - a2 * d[1];
  to[0] = a2 * b2 * d[0] - (a2 + b2) * d[2] + d[4];
  to[1] = even + a * odd;
  to[2] = even - a * odd;
  to[3] = even2 + b * odd2;
  to[4] = even2 - b * odd2;
  to[5] = a2 * b2 * d[1] - (a2 + b2) * d[3] + d[5];
}

// Six of a column of m to four of A^T m.
template <WinogradPoints points>
inline void winograd_backward(const Vector* m, Vector* to) {
  constexpr float a = points.a, b = points.b;
  const Vector even = m[1] + m[2];
  const Vector odd = m[1] - m[2];
  const Vector even2 = m[3] + m[4];
  const Vector odd2 = m[3] - m[4];
  to[0] = m[0] + even + even2;
  to[1] = a * odd + b * odd2;
  to[2] = a * a * even + b * b * even2;
  to[3] = a * a * a * odd + b * b * b * odd2 + m[5];
}

// Columns 4t + j, j = 0..3, of a row of four vectors.
inline void split_by_four(const Vector* row, Vector* columns) {
  const Vector e0 = evens(row[0], row[1]);
  const Vector e1 = evens(row[2], row[3]);
  const Vector o0 = odds(row[0], row[1]);
  const Vector o1 = odds(row[2], row[3]);
  columns[0] = evens(e0, e1);
  columns[1] = evens(o0, o1);
  columns[2] = odds(e0, e1);
  columns[3] = odds(o0, o1);
}

// And back.
inline void join_four(const Vector* columns, Vector* row) {
  const Vector a = zip_first(columns[0], columns[2]);
  const Vector b = zip_first(columns[1], columns[3]);
  const Vector c = zip_second(columns[0], columns[2]);
  const Vector d = zip_second(columns[1], columns[3]);
  row[0] = zip_first(a, b);
  row[1] = zip_second(a, b);
  row[2] = zip_first(c, d);
  row[3] = zip_second(c, d);
}

// Walks through some of a plane's tiles, row by row, a vector of them at a time: four vectors of their cells,
// of which each row has whole ones.
class TileWalk {
 public:
  explicit TileWalk(const TileRun& run)
      : height_(run.height), width_(run.width), stride_(run.stride), left_(run.count) {
    const auto across = (width_ + lanes - 1) / lanes;
    row_ = run.first / across * 4;
    column_ = run.first % across * lanes;
  }

  // To the next ones; returns whether there are any.
  bool next() {
    if (left_ <= 0) return false;
    is_inside_ = true;
    for (std::int64_t v = 0; v < 4; ++v, --left_) {
      offsets_[v] = row_ * stride_ + column_;
      heights_[v] = left_ > 0 ? height_ - row_ : -2;
      widths_[v] = width_ - column_;
      is_inside_ &= heights_[v] >= 4 && widths_[v] >= lanes;
      column_ += lanes;
      if (column_ >= width_) {
        column_ = 0;
        row_ += 4;
      }
    }
    return true;
  }

  // The cells from column `from` of the six of each tile on, of row `i` of six; of what is outside, 0. plane:
  // one cell up and left of its first tile.
  void load_row(const float* plane, std::int64_t i, std::int64_t from, Vector* cells) const {
    const float* const row = plane + i * stride_ + from;
    if (is_inside_) {
      for (std::int64_t v = 0; v < 4; ++v) cells[v] = load(row + offsets_[v]);
    } else {
      for (std::int64_t v = 0; v < 4; ++v) {
        cells[v] = load_some(row + offsets_[v], i < heights_[v] + 2 ? widths_[v] + 2 - from : 0);
      }
    }
  }

  // Row `i` of four. plane: its first tile.
  void store_row(const Vector* cells, float* plane, std::int64_t i) const {
    float* const row = plane + i * stride_;
    if (is_inside_) {
      for (std::int64_t v = 0; v < 4; ++v) store(row + offsets_[v], cells[v]);
    } else {
      for (std::int64_t v = 0; v < 4; ++v)
        store_some(row + offsets_[v], cells[v], i < heights_[v] ? widths_[v] : 0);
    }
  }

 private:
  std::int64_t height_, width_, stride_;  // cells; floats from one row to the next
  std::int64_t left_;                     // vectors of cells
  std::int64_t row_, column_;             // of the next ones
  // Of each vector the first cell, and how many rows and columns from there on are inside.
  std::int64_t offsets_[4], heights_[4], widths_[4];
  bool is_inside_;
};

// 36 elements, `stride` floats apart, of the six columns of six rows.
template <WinogradPoints points>
inline void store_elements(const Vector (&half)[6][6], float* to, std::int64_t stride) {
#pragma GCC unroll 6
  for (std::int64_t j = 0; j < 6; ++j) {
    Vector column[6];
    Vector elements[6];
    for (std::int64_t i = 0; i < 6; ++i) column[i] = half[i][j];
    winograd_forward<points>(column, elements);
    for (std::int64_t i = 0; i < 6; ++i) store(to + (i * 6 + j) * stride, elements[i]);
  }
}

// Of 36 elements, `stride` floats apart, the six columns of four rows.
template <WinogradPoints points>
inline void load_elements(const float* from, std::int64_t stride, Vector (&half)[4][6]) {
#pragma GCC unroll 6
  for (std::int64_t j = 0; j < 6; ++j) {
    Vector column[6];
    Vector to[4];
    for (std::int64_t i = 0; i < 6; ++i) column[i] = load(from + (i * 6 + j) * stride);
    winograd_backward<points>(column, to);
    for (std::int64_t i = 0; i < 4; ++i) half[i][j] = to[i];
  }
}

// The points of whole planes.
constexpr auto points = accurate_points;

// Transforms some of a plane's tiles. plane: one cell up and left of its first one; out: 36 elements,
// `stride` floats apart, each of all these tiles, to whole vectors.
void winograd_input(const float* plane, const TileRun& run, float* out, std::int64_t stride) {
  for (TileWalk tiles(run); tiles.next(); out += lanes) {
    Vector half[6][6];
#pragma GCC unroll 6
    for (std::int64_t i = 0; i < 6; ++i) {
      Vector cells[4];
      Vector columns[8];
      tiles.load_row(plane, i, 0, cells);
      split_by_four(cells, columns);
      tiles.load_row(plane, i, 4, cells);
      split_by_four(cells, columns + 4);
      winograd_forward<points>(columns, half[i]);
    }
    store_elements<points>(half, out, stride);
  }
}

template <class Change>
inline void tiles_to_plane(const float* in, std::int64_t stride, float* plane, TileWalk tiles,
                           Change change) {
  for (; tiles.next(); in += lanes) {
    Vector half[4][6];
    load_elements<points>(in, stride, half);
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < 4; ++i) {
      Vector columns[4];
      Vector cells[4];
      winograd_backward<points>(half[i], columns);
      for (auto& column : columns) column = change(column);
      join_four(columns, cells);
      tiles.store_row(cells, plane, i);
    }
  }
}

// The way back, into a plane: its first tile's first cell.
void winograd_output(const float* in, std::int64_t stride, float* plane, const TileRun& run, float bias,
                     Activation activation, float alpha) {
  const TileWalk tiles(run);
  if (activation == Activation::none) {
    tiles_to_plane(in, stride, plane, tiles, [=](Vector x) { return x + bias; });
  } else {
    tiles_to_plane(in, stride, plane, tiles, [=](Vector x) { return activate(activation, alpha, x + bias); });
  }
}
