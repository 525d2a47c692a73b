// Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, 2016): 36 multiplications for 16 outputs where the
// direct sum has 144. Vectors run over tiles. Included by kernels_of.hpp, inside its namespace.

// Six of a column of d to six of B^T d.
inline void winograd_forward(const Vector* d, Vector* to) {
  const Vector even = d[4] - 4.0F * d[2];
  const Vector odd = d[3] - 4.0F * d[1];
  const Vector even2 = d[4] - d[2];
  const Vector odd2 = 2.0F * (d[3] - d[1]);
  to[0] = 4.0F * d[0] - 5.0F * d[2] + d[4];
  to[1] = even + odd;
  to[2] = even - odd;
  to[3] = even2 + odd2;
  to[4] = even2 - odd2;
  to[5] = 4.0F * d[1] - 5.0F * d[3] + d[5];
}

// Six of a column of m to four of A^T m.
inline void winograd_backward(const Vector* m, Vector* to) {
  const Vector even = m[1] + m[2];
  const Vector odd = m[1] - m[2];
  const Vector even2 = m[3] + m[4];
  const Vector odd2 = m[3] - m[4];
  to[0] = m[0] + even + even2;
  to[1] = odd + 2.0F * odd2;
  to[2] = even + 4.0F * even2;
  to[3] = odd + 8.0F * odd2 + m[5];
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

// The columns of a row for `count` <= lanes values of t.
inline void load_by_four(const float* row, std::int64_t count, Vector* columns) {
  Vector v[4];
  for (std::int64_t i = 0; i < 4; ++i) v[i] = load_some(row + i * lanes, 4 * count - i * lanes);
  split_by_four(v, columns);
}

// Transforms a plane's tiles. plane: one cell up and left of the first tile; scratch and out: 36 rows of
// `stride` floats, one for each of the 6 x 6 elements; tiles run row by row.
void winograd_input(const float* plane, std::int64_t row_stride, std::int64_t tile_rows,
                    std::int64_t tile_columns, float* scratch, float* out, std::int64_t out_stride,
                    std::int64_t stride) {
  for (std::int64_t ty = 0; ty < tile_rows; ++ty) {
    for (std::int64_t i = 0; i < 6; ++i) {
      const float* const row = plane + (4 * ty + i) * row_stride;
      for (std::int64_t tx = 0; tx < tile_columns; tx += lanes) {
        const auto count = tile_columns - tx < lanes ? tile_columns - tx : lanes;
        Vector columns[8];
        load_by_four(row + 4 * tx, count, columns);
        load_by_four(row + 4 * tx + 4, count, columns + 4);
        for (std::int64_t j = 0; j < 6; ++j) {
          store_some(scratch + (i * 6 + j) * stride + ty * tile_columns + tx, columns[j], count);
        }
      }
    }
  }
  for (std::int64_t t = 0; t < tile_rows * tile_columns; t += lanes) {
    Vector half[6][6];
    for (std::int64_t j = 0; j < 6; ++j) {
      Vector column[6];
      Vector to[6];
      for (std::int64_t i = 0; i < 6; ++i) column[i] = load(scratch + (i * 6 + j) * stride + t);
      winograd_forward(column, to);
      for (std::int64_t i = 0; i < 6; ++i) half[i][j] = to[i];
    }
    for (std::int64_t i = 0; i < 6; ++i) {
      Vector to[6];
      winograd_forward(half[i], to);
      for (std::int64_t j = 0; j < 6; ++j) store(out + (i * 6 + j) * out_stride + t, to[j]);
    }
  }
}

// The way back, into a plane: its first tile's first cell.
void winograd_output(const float* in, std::int64_t in_stride, std::int64_t tile_rows,
                     std::int64_t tile_columns, float* scratch, std::int64_t stride, float* plane,
                     std::int64_t row_stride, float bias, Activation activation, float alpha) {
  for (std::int64_t t = 0; t < tile_rows * tile_columns; t += lanes) {
    Vector half[4][6];
    for (std::int64_t j = 0; j < 6; ++j) {
      Vector column[6];
      Vector to[4];
      for (std::int64_t i = 0; i < 6; ++i) column[i] = load(in + (i * 6 + j) * in_stride + t);
      winograd_backward(column, to);
      for (std::int64_t i = 0; i < 4; ++i) half[i][j] = to[i];
    }
    for (std::int64_t i = 0; i < 4; ++i) {
      Vector to[4];
      winograd_backward(half[i], to);
      for (std::int64_t j = 0; j < 4; ++j) {
        store(scratch + (i * 4 + j) * stride + t, activate(activation, alpha, to[j] + bias));
      }
    }
  }
  for (std::int64_t ty = 0; ty < tile_rows; ++ty) {
    for (std::int64_t i = 0; i < 4; ++i) {
      float* const row = plane + (4 * ty + i) * row_stride;
      for (std::int64_t tx = 0; tx < tile_columns; tx += lanes) {
        const auto left = tile_columns - tx;
        const float* const from = scratch + i * 4 * stride + ty * tile_columns + tx;
        Vector columns[4];
        Vector cells[4];
        for (std::int64_t j = 0; j < 4; ++j) columns[j] = load(from + j * stride);
        join_four(columns, cells);
        float* const to = row + 4 * tx;
        for (std::int64_t v = 0; v < 4; ++v) store_some(to + v * lanes, cells[v], 4 * left - v * lanes);
      }
    }
  }
}
