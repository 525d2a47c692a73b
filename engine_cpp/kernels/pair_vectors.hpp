// Products of bfloat16 pairs in vectors: 16 outputs by 8 cells. Included by kernels_of.hpp, inside its
// namespace.

constexpr std::int64_t block_cells = 8;

// `vectors` vectors of outputs of some cells of a tile from `first` on.
template <std::int64_t vectors>
inline void multiply_cells(const PairProduct& task, std::int64_t output, const PairTile& tile,
                           std::int64_t first) {
  Vector sums[block_cells][vectors];
  for (std::int64_t v = 0; v < vectors; ++v) {
    const Vector bias = task.bias == nullptr ? Vector{} : load(task.bias + output + v * lanes);
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < block_cells; ++i) sums[i][v] = bias;
  }
  const auto* weights = task.weights + output * task.depth * lanes;
  for (std::int64_t k = 0; k < task.depth; ++k, weights += lanes * lanes) {
    const auto* const words = tile.cells + first * lanes + task.offsets[k];
    const auto pairs = k < task.whole ? lanes : lanes / 2;
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      __m512bh weight[vectors];
#pragma GCC unroll 2
      for (std::int64_t v = 0; v < vectors; ++v) {
        weight[v] = reinterpret_cast<__m512bh>(
            _mm512_loadu_si512(weights + v * task.depth * lanes * lanes + pair * lanes));
      }
#pragma GCC unroll 8
      for (std::int64_t i = 0; i < block_cells; ++i) {
        const auto x =
            reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(words[i * lanes + pair])));
#pragma GCC unroll 2
        for (std::int64_t v = 0; v < vectors; ++v) sums[i][v] = _mm512_dpbf16_ps(sums[i][v], weight[v], x);
      }
    }
  }
#pragma GCC unroll 8
  for (std::int64_t i = 0; i < block_cells; ++i) {
    if (first + i >= tile.count) break;
    for (std::int64_t v = 0; v < vectors; ++v) {
      store(tile.out + (first + i) * task.stride + output + v * lanes,
            activate(task.activation, task.alpha, sums[i][v]));
    }
  }
}

void multiply_pairs(const PairProduct& task, const PairTile* tiles, std::int64_t count) {
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t output = 0; output < task.outputs; output += 2 * lanes) {
      for (std::int64_t first = 0; first < tiles[t].count; first += block_cells) {
        output + lanes < task.outputs ? multiply_cells<2>(task, output, tiles[t], first)
                                      : multiply_cells<1>(task, output, tiles[t], first);
      }
    }
  }
}
