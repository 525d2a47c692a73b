// Winograd's algorithm for few channels: a block of tiles, the lanes of a vector, goes all the way from
// planes to planes while it is in the nearest cache. Part of kernels_of.hpp.

// Six rows of a plane: four of a block of tiles, one above and one below; and the cells on both sides of
// these.
struct WinogradRows {
  const float* rows[6];
  std::int64_t to_left, to_right;

  WinogradRows(const Surroundings& in, std::int64_t source, std::int64_t y, std::int64_t x) {
    for (std::int64_t i = 0; i < 6; ++i) {
      const auto row = in.rows[y + i];
      rows[i] = row == Surroundings::nothing ? in.zeros : in.planes[source] + row + x;
    }
    to_left = x > 0 ? -1 : in.to_left;
    to_right = x + WinogradProduct::tile * lanes < in.width ? WinogradProduct::tile * lanes
               : in.to_right == Surroundings::nothing       ? in.to_right
                                                            : in.to_right - x;
  }

  float left(std::int64_t i) const { return beside(i, to_left); }
  float right(std::int64_t i) const { return beside(i, to_right); }

 private:
  float beside(std::int64_t i, std::int64_t to) const {
    return to == Surroundings::nothing ? 0.0F : rows[i][to];
  }
};

inline bool is_any(Integers some) {
  std::int32_t all = 0;
  for (std::int64_t i = 0; i < lanes; ++i) all |= some[i];
  return all != 0;
}

// Which cells of a block of tiles see nothing but zeros.
struct Emptiness {
  enum class Extent : std::uint8_t { none, some, all };

  Extent extent = Extent::none;
  Integers cells[4][4];  // row by row: all bits of those

  void look(const WinogradProduct& task, std::int64_t y, std::int64_t x) {
    Integers here[6][4];
    Integers zeros{};
    for (std::int64_t i = 1; i < 5; ++i) {
      row_of(task, y, x, i, here[i]);
      for (const auto& some : here[i]) zeros |= some == 0;
    }
    if (!is_any(zeros)) return;
    row_of(task, y, x, 0, here[0]);
    row_of(task, y, x, 5, here[5]);
    // What the three columns around a cell hold, row by row.
    Integers around[6][4];
    for (std::int64_t i = 0; i < 6; ++i) {
      std::int32_t left = 0;
      std::int32_t right = 0;
      for (std::int64_t c = 0; c < task.inputs; ++c) {
        const WinogradRows rows(task.in, task.sources[c], y, x);
        left |= magnitude(rows.left(i));
        right |= magnitude(rows.right(i));
      }
      Vector before = from_bits(Integers{} + left);
      for (std::int64_t v = 0; v < 4; ++v) {
        const Vector own = from_bits(here[i][v]);
        const Vector after = from_bits(v < 3 ? here[i][v + 1] : Integers{} + right);
        around[i][v] = here[i][v] | bits(moved_right(before, own)) | bits(moved_left(own, after));
        before = own;
      }
    }
    Integers any{};
    Integers all = Integers{} - 1;
    for (std::int64_t i = 0; i < 4; ++i) {
      for (std::int64_t v = 0; v < 4; ++v) {
        cells[i][v] = (around[i][v] | around[i + 1][v] | around[i + 2][v]) == 0;
        any |= cells[i][v];
        all &= cells[i][v];
      }
    }
    if (is_any(any)) extent = is_any(~all) ? Extent::some : Extent::all;
  }

 private:
  static std::int32_t magnitude(float x) {
    std::int32_t of_bits;
    std::memcpy(&of_bits, &x, sizeof x);
    return of_bits & 0x7FFFFFFF;
  }

  // Of the cells in row i the bits of all channels, without their signs.
  static void row_of(const WinogradProduct& task, std::int64_t y, std::int64_t x, std::int64_t i,
                     Integers (&to)[4]) {
    Integers some[4]{};
    for (std::int64_t c = 0; c < task.inputs; ++c) {
      const auto row = task.in.rows[y + i];
      const float* const from =
          row == Surroundings::nothing ? task.in.zeros : task.in.planes[task.sources[c]] + row + x;
#pragma GCC unroll 4
      for (std::int64_t v = 0; v < 4; ++v) some[v] |= bits(load(from + v * lanes));
    }
    for (std::int64_t v = 0; v < 4; ++v) to[v] = some[v] & 0x7FFFFFFF;
  }
};

// A block of tiles of one input to its 36 elements, `stride` floats apart.
inline void tiles_forward(const WinogradRows& from, float* to, std::int64_t stride) {
  Vector half[6][6];
#pragma GCC unroll 6
  for (std::int64_t i = 0; i < 6; ++i) {
    Vector row[4];
    for (std::int64_t v = 0; v < 4; ++v) row[v] = load(from.rows[i] + v * lanes);
    Vector columns[6];
    split_by_four(row, columns + 1);
    columns[0] = moved_right(splat(from.left(i)), columns[4]);
    columns[5] = moved_left(columns[1], splat(from.right(i)));
    winograd_forward<symmetric_points>(columns, half[i]);
  }
  store_elements<symmetric_points>(half, to, stride);
}

// Of one output the 36 elements, `stride` floats apart, to cells.
template <class Change>
inline void tiles_backward(const float* from, std::int64_t stride, float* out, std::int64_t width, float bias,
                           const Emptiness& empty, Change change) {
  Vector half[4][6];
  load_elements<symmetric_points>(from, stride, half);
  const Vector of_nothing = change(splat(bias));
#pragma GCC unroll 4
  for (std::int64_t i = 0; i < 4; ++i) {
    Vector columns[4];
    winograd_backward<symmetric_points>(half[i], columns);
    for (std::int64_t j = 0; j < 4; ++j) columns[j] = change(columns[j] + bias);
    Vector row[4];
    join_four(columns, row);
    for (std::int64_t v = 0; v < 4; ++v) {
      const Vector cells = empty.extent == Emptiness::Extent::none ? row[v]
                           : empty.cells[i][v] != 0                ? of_nothing
                                                                   : row[v];
      store(out + i * width + v * lanes, cells);
    }
  }
}

// The products of one element, of `blocks` blocks of tiles.
template <std::int64_t blocks>
inline void multiply_element(const float* transformed, std::int64_t inputs, const float* weights, float* to) {
  constexpr auto from_output = WinogradProduct::elements * blocks * lanes;
  Vector sums[block_outputs][blocks]{};
  for (std::int64_t c = 0; c < inputs; ++c) {
    Vector x[blocks];
#pragma GCC unroll 2
    for (std::int64_t b = 0; b < blocks; ++b) x[b] = load(transformed + (c * blocks + b) * lanes);
#pragma GCC unroll 8
    for (std::int64_t o = 0; o < block_outputs; ++o) {
      const Vector weight = splat(weights[c * block_outputs + o]);
#pragma GCC unroll 2
      for (std::int64_t b = 0; b < blocks; ++b) sums[o][b] += weight * x[b];
    }
  }
#pragma GCC unroll 8
  for (std::int64_t o = 0; o < block_outputs; ++o) {
#pragma GCC unroll 2
    for (std::int64_t b = 0; b < blocks; ++b) store(to + o * from_output + b * lanes, sums[o][b]);
  }
}

// Blocks of tiles by their first cells in the part.
struct WinogradBlock {
  std::int64_t y, x;
};

template <std::int64_t count, class Change>
inline void winograd_blocks(const WinogradProduct& task, const WinogradBlock (&blocks)[count],
                            Change change) {
  constexpr auto elements = WinogradProduct::elements;
  constexpr auto from_element = count * lanes;  // of the products
  // One vector more, lest elements share the few places that a cache has for addresses far apart.
  const auto stride = (task.inputs * count + 1) * lanes;
  float* const transformed = task.scratch;
  float* const products = transformed + elements * stride;
  const auto width = task.in.width;
  const auto place = [&](std::int64_t output, const WinogradBlock& block) {
    return task.out[output] + block.y * width + block.x;
  };
  Emptiness empty[count];
  bool is_all = true;
  for (std::int64_t b = 0; b < count; ++b) {
    empty[b].look(task, blocks[b].y, blocks[b].x);
    is_all &= empty[b].extent == Emptiness::Extent::all;
  }
  if (is_all) {
    for (std::int64_t o = 0; o < task.outputs; ++o) {
      const Vector of_nothing = change(splat(task.bias[o]));
      for (const auto& block : blocks) {
        for (std::int64_t i = 0; i < 4; ++i) {
          for (std::int64_t v = 0; v < 4; ++v) store(place(o, block) + i * width + v * lanes, of_nothing);
        }
      }
    }
    return;
  }
  for (std::int64_t c = 0; c < task.inputs; ++c) {
    for (std::int64_t b = 0; b < count; ++b) {
      tiles_forward({task.in, task.sources[c], blocks[b].y, blocks[b].x},
                    transformed + (c * count + b) * lanes, stride);
    }
  }
  for (std::int64_t first = 0; first < task.outputs; first += block_outputs) {
    const float* weights = task.weights + first / block_outputs * task.weights_of_block;
    for (std::int64_t e = 0; e < elements; ++e) {
      const auto depth = task.has_weights[e] ? task.inputs : 0;
      multiply_element<count>(transformed + e * stride, depth, weights, products + e * from_element);
      weights += depth * block_outputs;
    }
    for (auto o = first; o < task.outputs && o < first + block_outputs; ++o) {
      for (std::int64_t b = 0; b < count; ++b) {
        tiles_backward(products + (o - first) * elements * from_element + b * lanes, from_element,
                       place(o, blocks[b]), width, task.bias[o], empty[b], change);
      }
    }
  }
}

template <class Change>
inline void winograd_all(const WinogradProduct& task, Change change) {
  constexpr auto tile = WinogradProduct::tile;
  const auto across = task.in.width / (tile * lanes);
  const auto count = task.in.height / tile * across;
  const auto block = [&](std::int64_t i) {
    return WinogradBlock{i / across * tile, i % across * (tile * lanes)};
  };
  std::int64_t i = 0;
  static_assert(WinogradProduct::at_once == 2);
  for (; i + 2 <= count; i += 2) winograd_blocks<2>(task, {block(i), block(i + 1)}, change);
  if (i < count) winograd_blocks<1>(task, {block(i)}, change);
}

void winograd_product(const WinogradProduct& task) {
  with_activation(task.activation, task.alpha, [&](auto change) { winograd_all(task, change); });
}
