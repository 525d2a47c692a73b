// Products of bfloat16 pairs in the tiles of Intel's AMX: 16 cells by 16 pairs of inputs by 16 outputs with
// one instruction, 2 x 2 tiles of sums at a time. Included by kernels_of.hpp, inside its namespace.

constexpr std::int64_t tile_side = 16;

struct TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14]{};
  std::uint16_t row_bytes[16]{64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16]{16, 16, 16, 16, 16, 16, 16, 16};
};

// Not on the stack: the intrinsic does not say that it reads all of it.
alignas(64) constexpr TileShapes all_full{};

// This thread's tiles; given back as they were found, since libraries keep theirs set.
class FullTiles {
 public:
  FullTiles() {
    _tile_storeconfig(&before_);
    _tile_loadconfig(&all_full);
  }
  FullTiles(const FullTiles&) = delete;
  FullTiles& operator=(const FullTiles&) = delete;
  ~FullTiles() { _tile_loadconfig(&before_); }

 private:
  alignas(64) TileShapes before_;
};

struct TileSums {
  alignas(64) float of[2][2][tile_side][tile_side];  // cells, outputs; each a cell's row of outputs
};

// Tiles of cells that stay in the cache while all outputs' weights pass by.
constexpr std::int64_t tiles_at_once = 12;

// Sums of one or two tiles of cells, of one or two tiles of outputs.
template <bool two_cells, bool two_outputs>
inline void sum_tiles(const PairProduct& task, const std::uint32_t* weights, const PairTile* tiles) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto second = task.depth * tile_side * tile_side;  // from a tile of outputs to the next
  for (std::int64_t k = 0; k < task.depth; ++k, weights += tile_side * tile_side) {
    const auto offset = task.offsets[k];
    _tile_loadd(4, tiles[0].cells + offset, 64);
    _tile_loadd(6, weights, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (two_outputs) {
      _tile_loadd(7, weights + second, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (two_cells) {
      _tile_loadd(5, tiles[1].cells + offset, 64);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (two_outputs) _tile_dpbf16ps(3, 5, 7);
    }
  }
}

// Stores what was summed, `to(cells, outputs)` being where each tile goes, its rows `stride` floats apart.
template <bool two_cells, bool two_outputs, class Place>
inline void store_tiles(std::int64_t stride, Place to) {
  const auto bytes = stride * static_cast<std::int64_t>(sizeof(float));
  _tile_stored(0, to(0, 0), bytes);
  if constexpr (two_outputs) _tile_stored(1, to(0, 1), bytes);
  if constexpr (two_cells) _tile_stored(2, to(1, 0), bytes);
  if constexpr (two_cells && two_outputs) _tile_stored(3, to(1, 1), bytes);
}

template <bool two_cells, bool two_outputs>
inline void multiply_tiles(const PairProduct& task, std::int64_t output, const PairTile* tiles,
                           TileSums& sums) {
  sum_tiles<two_cells, two_outputs>(task, task.weights + output * task.depth * tile_side, tiles);
  const bool are_full = tiles[0].count == tile_side && (!two_cells || tiles[1].count == tile_side);
  if (are_full && task.bias == nullptr && task.activation == Activation::none) {
    return store_tiles<two_cells, two_outputs>(
        task.stride, [=](int cells, int outputs) { return tiles[cells].out + output + outputs * tile_side; });
  }
  store_tiles<two_cells, two_outputs>(tile_side,
                                      [&](int cells, int outputs) { return sums.of[cells][outputs][0]; });
  for (int o = 0; o < (two_outputs ? 2 : 1); ++o) {
    const auto column = output + o * tile_side;
    const Vector bias = task.bias == nullptr ? Vector{} : load(task.bias + column);
    for (int t = 0; t < (two_cells ? 2 : 1); ++t) {
      for (std::int64_t i = 0; i < tiles[t].count; ++i) {
        store(tiles[t].out + i * task.stride + column,
              activate(task.activation, task.alpha, load(sums.of[t][o][i]) + bias));
      }
    }
  }
}

void multiply_pairs(const PairProduct& task, const PairTile* tiles, std::int64_t count) {
  const FullTiles configured;
  TileSums sums;
  for (std::int64_t first = 0; first < count; first += tiles_at_once) {
    const auto end = first + tiles_at_once < count ? first + tiles_at_once : count;
    for (std::int64_t output = 0; output < task.outputs; output += 2 * tile_side) {
      const bool two_outputs = output + tile_side < task.outputs;
      for (auto t = first; t < end; t += 2) {
        const bool two_cells = t + 1 < end;
        if (two_outputs) {
          two_cells ? multiply_tiles<true, true>(task, output, tiles + t, sums)
                    : multiply_tiles<false, true>(task, output, tiles + t, sums);
        } else {
          two_cells ? multiply_tiles<true, false>(task, output, tiles + t, sums)
                    : multiply_tiles<false, false>(task, output, tiles + t, sums);
        }
      }
    }
  }
}
