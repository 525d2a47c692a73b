// Products of bfloat16 pairs in the tiles of Intel's AMX: 16 outputs by 16 pairs of inputs by 16 cells with
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
  alignas(64) float of[2][2][tile_side][tile_side];  // outputs, cells; each an output's row of cells
};

// Sums of one or two tiles of outputs, of one or two tiles of cells from `first` on.
template <bool two_outputs, bool two_cells>
inline void sum_tiles(const PairProduct& task, const std::uint32_t* weights, std::int64_t first,
                      TileSums& sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto row_bytes = task.stride * static_cast<std::int64_t>(sizeof(std::uint32_t));
  const auto second = tile_side * task.depth;  // from a tile of outputs to the next
  for (std::int64_t pair = 0; pair < task.depth; pair += tile_side * task.taps) {
    for (std::int64_t tap = 0; tap < task.taps; ++tap) {
      const auto* const cells = task.rows[pair + tap] + first;
      _tile_loadd(4, weights, 64);
      _tile_loadd(6, cells, row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (two_cells) {
        _tile_loadd(7, cells + tile_side, row_bytes);
        _tile_dpbf16ps(1, 4, 7);
      }
      if constexpr (two_outputs) {
        _tile_loadd(5, weights + second, 64);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (two_cells) _tile_dpbf16ps(3, 5, 7);
      }
      weights += tile_side * tile_side;
    }
  }
  _tile_stored(0, sums.of[0][0], 64);
  if constexpr (two_cells) _tile_stored(1, sums.of[0][1], 64);
  if constexpr (two_outputs) _tile_stored(2, sums.of[1][0], 64);
  if constexpr (two_outputs && two_cells) _tile_stored(3, sums.of[1][1], 64);
}

// Writes what was summed, with bias and activation, `outputs` <= 32 rows of cells from `first` to `end`.
template <class Activate>
inline void write_sums(const PairProduct& task, const TileSums& sums, std::int64_t output,
                       std::int64_t outputs, std::int64_t first, std::int64_t end, Activate activate) {
  for (std::int64_t o = 0; o < outputs; ++o) {
    const Vector bias = splat(task.bias[output + o]);
    float* const to = task.out[output + o];
    const auto& left = sums.of[o / tile_side][0][o % tile_side];
    const auto& right = sums.of[o / tile_side][1][o % tile_side];
    store(to + first, activate(load(left) + bias), end - first);
    if (first + tile_side < end) {
      store(to + first + tile_side, activate(load(right) + bias), end - first - tile_side);
    }
  }
}

void multiply_tiles(const PairProduct& task, std::int64_t first, std::int64_t cells) {
  const FullTiles tiles;
  TileSums sums;
  const auto end = first + cells;
  const auto activation = task.activation;
  const auto alpha = task.alpha;
  for (std::int64_t output = 0; output < task.outputs; output += 2 * tile_side) {
    const auto* const weights = task.weights + output * task.depth;
    const auto outputs = task.outputs - output < 2 * tile_side ? task.outputs - output : 2 * tile_side;
    for (auto cell = first; cell < end; cell += 2 * tile_side) {
      const bool two_cells = cell + tile_side < end;
      if (outputs > tile_side) {
        two_cells ? sum_tiles<true, true>(task, weights, cell, sums)
                  : sum_tiles<true, false>(task, weights, cell, sums);
      } else {
        two_cells ? sum_tiles<false, true>(task, weights, cell, sums)
                  : sum_tiles<false, false>(task, weights, cell, sums);
      }
      if (activation == Activation::none) {
        write_sums(task, sums, output, outputs, cell, end, [](Vector x) { return x; });
      } else {
        write_sums(task, sums, output, outputs, cell, end,
                   [=](Vector x) { return activate(activation, alpha, x); });
      }
    }
  }
}
