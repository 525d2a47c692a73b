// The kernels for one kind of CPU: included once by each .cpp beside it, which is compiled
// for it. ATHERIA_KERNELS names what the file exports.
#include <cmath>
#include <cstdint>

#include "kernels/kernels.hpp"
#include "kernels/vector.hpp"

namespace atheria {
namespace {

// Sized so that the accumulators of a block, its inputs and one weight stay in registers.
#if defined(__AVX512F__)
constexpr std::int64_t block_outputs = 8, block_vectors = 3;
#elif defined(__AVX2__)
constexpr std::int64_t block_outputs = 4, block_vectors = 3;
#else
constexpr std::int64_t block_outputs = 4, block_vectors = 2;
#endif

inline Vector activate(Activation activation, float alpha, Vector x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::elu:
      return elu(x, alpha);
    case Activation::relu:
      return x <= 0.0F ? splat(0.0F) : x;
    case Activation::leaky_relu:
      return x <= 0.0F ? alpha * x : x;
    case Activation::tanh:
      return hyperbolic_tangent(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::silu:
      return x * sigmoid(x);
  }
  __builtin_unreachable();
}

// Calls use(change), change(x) being the activation of a vector: for the usual one without a choice.
template <class Use>
inline void with_activation(Activation activation, float alpha, Use use) {
  if (activation == Activation::elu && alpha == 1.0F) {
    use([](Vector x) { return elu(x); });
  } else {
    use([=](Vector x) { return activate(activation, alpha, x); });
  }
}

// The same of what an Affine makes of a vector.
template <class Use>
inline void with_affine(const Affine& a, Use use) {
  with_activation(a.activation, a.alpha, [&](auto activated) {
    use([=, centre = a.centre, scale = a.scale, shift = a.shift](Vector x) {
      return activated((x - centre) * scale + shift);
    });
  });
}

// Up to block_outputs rows of `vectors` vectors from cell `first` on, the last one of `last` cells.
template <std::int64_t vectors>
inline void multiply_block(const Product& task, const float* weights, std::int64_t output, std::int64_t first,
                           std::int64_t last) {
  Vector sums[block_outputs][vectors];
#pragma GCC unroll 8
  for (std::int64_t o = 0; o < block_outputs; ++o) {
#pragma GCC unroll 3
    for (std::int64_t v = 0; v < vectors; ++v) sums[o][v] = splat(task.bias[output + o]);
  }
  for (std::int64_t k = 0; k < task.depth; ++k) {
    const float* const row = task.rows[k] + first;
    Vector x[vectors];
#pragma GCC unroll 3
    for (std::int64_t v = 0; v < vectors; ++v) x[v] = load(row + v * lanes);
#pragma GCC unroll 8
    for (std::int64_t o = 0; o < block_outputs; ++o) {
      const Vector weight = splat(weights[k * block_outputs + o]);
#pragma GCC unroll 3
      for (std::int64_t v = 0; v < vectors; ++v) sums[o][v] += weight * x[v];
    }
  }
  const auto rows = task.outputs - output < block_outputs ? task.outputs - output : block_outputs;
  const auto store_row = [&](std::int64_t o, const Vector(&row)[vectors]) {
    float* const to = task.out[output + o] + first;
#pragma GCC unroll 3
    for (std::int64_t v = 0; v < vectors; ++v) {
      store(to + v * lanes, row[v], v + 1 == vectors ? last : lanes);
    }
  };
  const auto store_all = [&] {
#pragma GCC unroll 8
    for (std::int64_t o = 0; o < block_outputs; ++o) {
      if (o >= rows) break;
      store_row(o, sums[o]);
    }
  };
  const auto activate_and_store = [&](auto change) {
#if defined(__AVX512F__)
#pragma GCC unroll 8
    for (std::int64_t o = 0; o < block_outputs; ++o) {
#pragma GCC unroll 3
      for (std::int64_t v = 0; v < vectors; ++v) sums[o][v] = change(sums[o][v]);
    }
    store_all();
#else
    // The sums fill the registers: they wait in memory, and what an activation needs has those.
    Vector waiting[block_outputs][vectors];
#pragma GCC unroll 8
    for (std::int64_t o = 0; o < block_outputs; ++o) {
#pragma GCC unroll 3
      for (std::int64_t v = 0; v < vectors; ++v) waiting[o][v] = sums[o][v];
    }
    asm volatile("" : "+m"(waiting));
#pragma GCC unroll 1
    for (std::int64_t o = 0; o < rows; ++o) {
      Vector row[vectors];
#pragma GCC unroll 3
      for (std::int64_t v = 0; v < vectors; ++v) row[v] = change(waiting[o][v]);
      store_row(o, row);
    }
#endif
  };
  if (task.activation == Activation::none) {
    store_all();
  } else {
    with_activation(task.activation, task.alpha, activate_and_store);
  }
}

void multiply(const Product& task, std::int64_t first, std::int64_t cells) {
  const auto end = first + cells;
  for (std::int64_t output = 0; output < task.outputs; output += block_outputs) {
    const float* const weights = task.weights + output * task.depth;
    auto cell = first;
    for (; cell + block_vectors * lanes <= end; cell += block_vectors * lanes) {
      multiply_block<block_vectors>(task, weights, output, cell, lanes);
    }
    const auto left = end - cell;
    if (left > 2 * lanes) {
      multiply_block<3>(task, weights, output, cell, left - 2 * lanes);
    } else if (left > lanes) {
      multiply_block<2>(task, weights, output, cell, left - lanes);
    } else if (left > 0) {
      multiply_block<1>(task, weights, output, cell, left);
    }
  }
}

// out = f(in) for rows of any length.
template <class Change>
inline void map(const float* in, float* out, std::int64_t cells, Change change) {
  std::int64_t i = 0;
  for (; i + lanes <= cells; i += lanes) store(out + i, change(load(in + i)));
  if (i < cells) store(out + i, change(load(in + i, cells - i)), cells - i);
}

void affine(const float* in, float* out, const Rows& rows, const Affine& affine) {
  with_affine(affine, [&](auto change) {
    for (std::int64_t y = 0; y < rows.height; ++y)
      map(in + y * rows.stride, out + y * rows.stride, rows.width, change);
  });
}

template <int quarter>
void sines(const float* in, float* out, std::int64_t cells) {
  map(in, out, cells, [](Vector x) {
    constexpr float exact = 4096.0F;  // beyond, the reduction of `sine` loses too much
    const auto far = (x > exact) | (x < -exact);
    Vector y = sine(x, quarter);
    for (std::int64_t i = 0; i < lanes; ++i) {
      if (far[i] != 0) y[i] = quarter == 0 ? __builtin_sinf(x[i]) : __builtin_cosf(x[i]);
    }
    return x == x ? y : x;
  });
}

void apply(Function function, float alpha, const float* in, float* out, std::int64_t cells) {
  switch (function) {
    case Function::elu:
      return map(in, out, cells, [=](Vector x) { return elu(x, alpha); });
    case Function::relu:
      return map(in, out, cells, [](Vector x) { return x <= 0.0F ? splat(0.0F) : x; });
    case Function::leaky_relu:
      return map(in, out, cells, [=](Vector x) { return x <= 0.0F ? alpha * x : x; });
    case Function::tanh:
      return map(in, out, cells, hyperbolic_tangent);
    case Function::sigmoid:
      return map(in, out, cells, sigmoid);
    case Function::silu:
      return map(in, out, cells, [](Vector x) { return x * sigmoid(x); });
    case Function::exp:
      return map(in, out, cells, exponential);
    case Function::sin:
      return sines<0>(in, out, cells);
    case Function::cos:
      return sines<1>(in, out, cells);
    case Function::sqrt:
      return map(in, out, cells, root);
    case Function::rsqrt:
      return map(in, out, cells, [](Vector x) { return 1.0F / root(x); });
    case Function::square:
      return map(in, out, cells, [](Vector x) { return x * x; });
    case Function::abs:
      return map(in, out, cells, [](Vector x) { return from_bits(bits(x) & 0x7FFFFFFF); });
    case Function::negate:
      return map(in, out, cells, [](Vector x) { return -x; });
    case Function::reciprocal:
      return map(in, out, cells, [](Vector x) { return 1.0F / x; });
  }
}

template <class Change>
inline void map(const float* a, const float* b, float* out, std::int64_t cells, Change change) {
  std::int64_t i = 0;
  for (; i + lanes <= cells; i += lanes) store(out + i, change(load(a + i), load(b + i)));
  if (i < cells) store(out + i, change(load(a + i, cells - i), load(b + i, cells - i)), cells - i);
}

void combine(Operation operation, const float* a, const float* b, float* out, std::int64_t cells) {
  switch (operation) {
    case Operation::add:
      return map(a, b, out, cells, [](Vector x, Vector y) { return x + y; });
    case Operation::subtract:
      return map(a, b, out, cells, [](Vector x, Vector y) { return x - y; });
    case Operation::multiply:
      return map(a, b, out, cells, [](Vector x, Vector y) { return x * y; });
    case Operation::divide:
      return map(a, b, out, cells, [](Vector x, Vector y) { return x / y; });
  }
}

// Of so many terms, known beforehand where they are few.
template <std::int64_t terms>
inline void sum_few(const Sum& sum) {
  const float* rows[terms];
  Vector factors[terms];
#pragma GCC unroll 4
  for (std::int64_t t = 0; t < terms; ++t) {
    rows[t] = sum.terms[t].row;
    factors[t] = splat(sum.terms[t].factor);
  }
  const Vector constant = splat(sum.constant);
  float* out = sum.out;
  const auto width = sum.width;
  const auto block = [&](std::int64_t x, std::int64_t count) {
    Vector v = constant;
#pragma GCC unroll 4
    for (std::int64_t t = 0; t < terms; ++t) v += factors[t] * load(rows[t] + x, count);
    store(out + x, v, count);
  };
  for (std::int64_t y = 0; y < sum.height; ++y) {
    std::int64_t x = 0;
    for (; x + lanes <= width; x += lanes) block(x, lanes);
    if (x < width) block(x, width - x);
    out += sum.out_stride;
#pragma GCC unroll 4
    for (std::int64_t t = 0; t < terms; ++t) rows[t] += sum.stride;
  }
}

template <std::int64_t vectors>
inline void sum_block(const Sum& sum, std::int64_t y, std::int64_t x, std::int64_t last) {
  const auto count = [=](std::int64_t v) { return v + 1 == vectors ? last : lanes; };
  Vector sums[vectors];
#pragma GCC unroll 4
  for (std::int64_t v = 0; v < vectors; ++v) sums[v] = splat(sum.constant);
  for (std::int64_t t = 0; t < sum.count; ++t) {
    const Vector factor = splat(sum.terms[t].factor);
    const float* const row = sum.terms[t].row + y * sum.stride + x;
#pragma GCC unroll 4
    for (std::int64_t v = 0; v < vectors; ++v) sums[v] += factor * load(row + v * lanes, count(v));
  }
  float* const out = sum.out + y * sum.out_stride + x;
#pragma GCC unroll 4
  for (std::int64_t v = 0; v < vectors; ++v) store(out + v * lanes, sums[v], count(v));
}

void sum(const Sum& sum) {
  switch (sum.count) {
    case 1:
      return sum_few<1>(sum);
    case 2:
      return sum_few<2>(sum);
    case 3:
      return sum_few<3>(sum);
    default:
      break;
  }
  for (std::int64_t y = 0; y < sum.height; ++y) {
    std::int64_t x = 0;
    for (; x + 4 * lanes <= sum.width; x += 4 * lanes) sum_block<4>(sum, y, x, lanes);
    for (; x < sum.width; x += lanes) sum_block<1>(sum, y, x, sum.width - x);
  }
}

double total(Vector v) {
  using Half = float __attribute__((vector_size(lanes * 2)));
  using Doubles = double __attribute__((vector_size(lanes * 4)));
  Half halves[2];
  std::memcpy(halves, &v, sizeof v);
  const Doubles sums =
      __builtin_convertvector(halves[0], Doubles) + __builtin_convertvector(halves[1], Doubles);
  double sum = 0;
  for (std::int64_t i = 0; i < lanes / 2; ++i) sum += sums[i];
  return sum;
}

std::int64_t total(Integers v) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < lanes; ++i) sum += v[i];
  return sum;
}

// Of so many channels, known beforehand where one vector of each stays in the registers; else two vectors at
// once: the sums over channels are chains of additions. answer(c, v): the law's, of a channel and a vector.
template <std::int64_t known, std::int64_t vectors, bool is_full, class Answer>
inline void advance_block(const Advance& step, std::int64_t first, std::int64_t last, Vector& energies,
                          Integers& cells, Answer answer) {
  const auto channels = known > 0 ? known : step.channels;
  Vector change[known > 0 ? known : most_channels][vectors];
  Vector density[vectors]{};
  Integers some[vectors]{};
  Vector fires[vectors];
  const auto count = [&](std::int64_t v) { return is_full || v + 1 < vectors ? lanes : last; };
  if (step.fires != nullptr) {
    for (std::int64_t v = 0; v < vectors; ++v) fires[v] = load(step.fires + first + v * lanes, count(v));
  }
#pragma GCC unroll 16
  for (std::int64_t c = 0; c < channels; ++c) {
#pragma GCC unroll 2
    for (std::int64_t v = 0; v < vectors; ++v) {
      const Vector psi = load(step.psi[c] + first + v * lanes, count(v));
      Vector phi = multiply_add(splat(step.keep), psi, answer(c, v));
      if (step.fires != nullptr) phi = psi + fires[v] * (phi - psi);
      density[v] += phi * phi;
      some[v] |= bits(phi);
      change[c][v] = phi;
    }
  }
  Vector scale[vectors];
  for (std::int64_t v = 0; v < vectors; ++v) {
    Integers kept = (some[v] & 0x7FFFFFFF) != 0;
    if (step.epsilon > 0) kept &= ~(root(density[v]) <= step.epsilon);
    if (step.normalise) {
      kept &= density[v] != 0.0F;
      // An energy beyond float32 gives no number, lest an explosion pass for vacuum.
      scale[v] = density[v] == __builtin_inff() ? splat(__builtin_nanf("")) : 1.0F / root(density[v]);
    } else {
      scale[v] = splat(1.0F);
    }
    scale[v] = from_bits(bits(scale[v]) & kept);
    const Vector energy = from_bits(bits(density[v] * scale[v] * scale[v]) & kept);
    // What lies beyond the last cell was read as 0, and stays so.
    energies += energy;
    cells -= kept;
  }
#pragma GCC unroll 16
  for (std::int64_t c = 0; c < channels; ++c) {
#pragma GCC unroll 2
    for (std::int64_t v = 0; v < vectors; ++v) {
      store(step.out[c] + first + v * lanes, change[c][v] * scale[v], count(v));
    }
  }
}

template <std::int64_t known, std::int64_t vectors>
inline Tally advance_all(const Advance& step, std::int64_t cells) {
  Vector energies{};
  Integers occupied{};
  std::int64_t i = 0;
  for (; i + vectors * lanes <= cells; i += vectors * lanes) {
    advance_block<known, vectors, true>(
        step, i, lanes, energies, occupied,
        [&](std::int64_t c, std::int64_t v) { return load(step.delta[c] + i + v * lanes); });
  }
  for (; i < cells; i += lanes) {
    advance_block<known, 1, false>(step, i, cells - i, energies, occupied, [&](std::int64_t c, std::int64_t) {
      return load(step.delta[c] + i, cells - i);
    });
  }
  return {total(energies), total(occupied)};
}

#if defined(__AVX512F__)
constexpr std::int64_t known_channels = Kernels::channels_of_product;

Tally advance(const Advance& step, std::int64_t cells) {
  return step.channels == known_channels ? advance_all<known_channels, 1>(step, cells)
                                         : advance_all<0, 2>(step, cells);
}

// What `multiply` makes of a vector of each row, of all outputs.
template <class Load>
inline void multiply_vector(const Product& product, Load load_row, Vector (&sums)[known_channels]) {
#pragma GCC unroll 16
  for (std::int64_t o = 0; o < known_channels; ++o) sums[o] = splat(product.bias[o]);
#pragma GCC unroll 2
  for (std::int64_t k = 0; k < product.depth; ++k) {
    const Vector x = load_row(product.rows[k]);
#pragma GCC unroll 16
    for (std::int64_t o = 0; o < known_channels; ++o) {
      const auto* const block = product.weights + o / block_outputs * block_outputs * product.depth;
      sums[o] += splat(block[k * block_outputs + o % block_outputs]) * x;
    }
  }
}

Tally advance_product(const Product& product, const Advance& step, std::int64_t cells) {
  Vector energies{};
  Integers occupied{};
  Vector sums[known_channels];
  const auto answer = [&](std::int64_t c, std::int64_t) { return sums[c]; };
  std::int64_t i = 0;
  for (; i + lanes <= cells; i += lanes) {
    multiply_vector(product, [&](const float* row) { return load(row + i); }, sums);
    advance_block<known_channels, 1, true>(step, i, lanes, energies, occupied, answer);
  }
  if (i < cells) {
    multiply_vector(product, [&](const float* row) { return load(row + i, cells - i); }, sums);
    // Beyond the last cell there is no matter, whatever the bias.
    for (auto& sum : sums) sum = _mm512_maskz_mov_ps(first_lanes(cells - i), sum);
    advance_block<known_channels, 1, false>(step, i, cells - i, energies, occupied, answer);
  }
  return {total(energies), total(occupied)};
}
#else
Tally advance(const Advance& step, std::int64_t cells) { return advance_all<0, 2>(step, cells); }

constexpr decltype(Kernels::advance_product) advance_product = nullptr;
#endif

// Calls use(i, x, is_inside) with all vectors x of rows, the i-th of four sums to add to, and 1 where a cell
// is.
template <class Use>
inline void for_vectors(const float* in, const Rows& rows, Use use) {
  constexpr std::int64_t at_once = 4;
  const auto [height, width, stride] = rows;
  const auto whole = width / lanes * lanes;
  const Vector all = splat(1.0F);
  alignas(64) float inside[lanes]{};
  for (std::int64_t i = 0; i < width - whole; ++i) inside[i] = 1.0F;
  const Vector some = load(inside);
  const auto run = [&](std::int64_t y, std::int64_t count) __attribute__((always_inline)) {
    for (std::int64_t x = 0; x < whole; x += lanes) {
#pragma GCC unroll 4
      for (std::int64_t i = 0; i < count; ++i) use(i, load(in + (y + i) * stride + x), all);
    }
    if (whole == width) return;
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < count; ++i) use(i, load(in + (y + i) * stride + whole, width - whole), some);
  };
  std::int64_t y = 0;
  for (; y + at_once <= height; y += at_once) run(y, at_once);
  for (; y < height; ++y) run(y, 1);
}

double total(const Vector (&sums)[4]) { return total((sums[0] + sums[1]) + (sums[2] + sums[3])); }

// In two passes over rows in the cache: squares of differences to another number would swallow the variance.
Moments moments(const float* in, const Rows& rows) {
  const auto count = static_cast<double>(rows.height * rows.width);
  Vector sums[4]{};
  for_vectors(in, rows, [&](std::int64_t i, Vector x, Vector /*is_inside*/) { sums[i] += x; });
  const auto mean = static_cast<float>(total(sums) / count);
  Vector differences[4]{};
  Vector squares[4]{};
  for_vectors(in, rows, [&](std::int64_t i, Vector x, Vector is_inside) {
    const Vector difference = (x - mean) * is_inside;
    differences[i] += difference;
    squares[i] += difference * difference;
  });
  const auto difference = total(differences);
  const double off = difference / count;  // by which the mean was rounded
  return {static_cast<double>(mean) + off, total(squares) - off * difference};
}

inline Vector load_some(const float* from, std::int64_t count) {
  return count <= 0 ? Vector{} : load(from, count);
}

inline void store_some(float* to, Vector v, std::int64_t count) {
  if (count > 0) store(to, v, count);
}

// As libtorch: no number wins.
inline Vector larger_or_none(Vector a, Vector b) { return (a > b) | (a != a) ? a : b; }

// Of each two neighbours in two rows, the largest of the four.
void max_of_pairs(const float* upper, const float* lower, float* out, std::int64_t cells) {
  for (std::int64_t i = 0; i < cells; i += lanes) {
    const auto left = 2 * (cells - i);
    const Vector a = larger_or_none(load_some(upper + 2 * i, left), load_some(lower + 2 * i, left));
    const Vector b = larger_or_none(load_some(upper + 2 * i + lanes, left - lanes),
                                    load_some(lower + 2 * i + lanes, left - lanes));
    store(out + i, larger_or_none(evens(a, b), odds(a, b)), cells - i);
  }
}

void zip(const float* even, const float* odd, float* out, std::int64_t cells) {
  for (std::int64_t i = 0; i < cells; i += lanes) {
    const auto left = cells - i;
    const Vector a = load(even + i, left);
    const Vector b = load(odd + i, left);
    store_some(out + 2 * i, zip_first(a, b), 2 * left);
    store_some(out + 2 * i + lanes, zip_second(a, b), 2 * left - lanes);
  }
}

using Eight = float __attribute__((vector_size(32)));

// Eight vectors of eight as rows become columns.
inline void transpose(Eight (&v)[8]) {
  Eight a[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    a[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  Eight b[8];
  for (int i = 0; i < 8; i += 4) {
    for (int k = 0; k < 2; ++k) {
      b[i + k] = __builtin_shufflevector(a[i + k], a[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      b[i + k + 2] = __builtin_shufflevector(a[i + k], a[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int k = 0; k < 4; ++k) {
    v[k] = __builtin_shufflevector(b[k], b[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[k + 4] = __builtin_shufflevector(b[k], b[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// A sum over the surroundings of some cells, of `Channels`: an Eight, or a float of one channel.
template <class Channels>
inline void sum_of(const FieldSums::Tap* taps, std::int64_t tap_count, const float* const* places,
                   std::int64_t channel, float* to, std::int64_t of_cell) {
  Channels sums[FieldSums::at_once]{};
  for (std::int64_t t = 0; t < tap_count; ++t) {
    const auto [offset, factor] = taps[t];
    for (std::int64_t i = 0; i < FieldSums::at_once; ++i) {
      Channels x;
      std::memcpy(&x, places[i] + channel + offset, sizeof x);
      sums[i] += factor * x;
    }
  }
  for (std::int64_t i = 0; i < FieldSums::at_once; ++i)
    std::memcpy(to + i * of_cell, &sums[i], sizeof sums[i]);
}

void sum_around(const FieldSums& what, const PlacedCell* cells, std::int64_t count,
                const float* const* places, std::int64_t place_count, float* sums) {
  const auto channels = what.channels;
  const auto whole = channels / 8 * 8;
  const auto of_cell = what.sum_count * channels;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto [numbers, place] = cells[i];
    for (std::int64_t c = 0; c < whole; c += 8) std::memcpy(place + c, numbers + c, sizeof(Eight));
    for (auto c = whole; c < channels; ++c) place[c] = numbers[c];
  }
  for (std::int64_t i = 0; i < place_count; i += FieldSums::at_once) {
    const auto* taps = what.taps;
    float* to = sums + i * of_cell;
    for (std::int64_t s = 0; s < what.sum_count; ++s) {
      const auto tap_count = what.tap_counts[s];
      for (std::int64_t c = 0; c < whole; c += 8)
        sum_of<Eight>(taps, tap_count, places + i, c, to + c, of_cell);
      for (auto c = whole; c < channels; ++c) sum_of<float>(taps, tap_count, places + i, c, to + c, of_cell);
      to += channels;
      taps += tap_count;
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    float* const place = cells[i].place;
    for (std::int64_t c = 0; c < whole; c += 8) std::memset(place + c, 0, sizeof(Eight));
    for (auto c = whole; c < channels; ++c) place[c] = 0;
  }
}

void to_rows(const float* cells, std::int64_t count, std::int64_t channels, float* rows,
             std::int64_t stride) {
  std::int64_t first = 0;
  for (; first + 8 <= count; first += 8) {
    std::int64_t c = 0;
    for (; c + 8 <= channels; c += 8) {
      Eight block[8];
      for (int i = 0; i < 8; ++i) std::memcpy(&block[i], cells + (first + i) * channels + c, sizeof(Eight));
      transpose(block);
      for (int i = 0; i < 8; ++i) std::memcpy(rows + (c + i) * stride + first, &block[i], sizeof(Eight));
    }
    for (; c < channels; ++c) {
      for (int i = 0; i < 8; ++i) rows[c * stride + first + i] = cells[(first + i) * channels + c];
    }
  }
  for (; first < count; ++first) {
    for (std::int64_t c = 0; c < channels; ++c) rows[c * stride + first] = cells[first * channels + c];
  }
}

void to_cells(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t channels,
              float* const* cells) {
  std::int64_t first = 0;
  for (; first + 8 <= count; first += 8) {
    std::int64_t c = 0;
    for (; c + 8 <= channels; c += 8) {
      Eight block[8];
      for (int i = 0; i < 8; ++i) std::memcpy(&block[i], rows + (c + i) * stride + first, sizeof(Eight));
      transpose(block);
      for (int i = 0; i < 8; ++i) std::memcpy(cells[first + i] + c, &block[i], sizeof(Eight));
    }
    for (; c < channels; ++c) {
      for (int i = 0; i < 8; ++i) cells[first + i][c] = rows[c * stride + first + i];
    }
  }
  for (; first < count; ++first) {
    for (std::int64_t c = 0; c < channels; ++c) cells[first][c] = rows[c * stride + first];
  }
}

void largest(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t channels,
             std::int32_t* out) {
  for (std::int64_t i = 0; i < count; i += lanes) {
    Integers most{};
    for (std::int64_t c = 0; c < channels; ++c) {
      const Integers size = bits(load(rows + c * stride + i, count - i)) & 0x7FFFFFFF;
      most = size > most ? size : most;
    }
    store(reinterpret_cast<float*>(out) + i, from_bits(most), count - i);
  }
}

#include "kernels/nearest.hpp"
#include "kernels/winograd.hpp"
#include "kernels/winograd_product.hpp"
#if defined(__AVX512BF16__)
#include "kernels/cells.hpp"
#if defined(__AMX_BF16__)
#include "kernels/pair_tiles.hpp"
#else
#include "kernels/pair_vectors.hpp"
#endif
#endif

}  // namespace

extern const Kernels ATHERIA_KERNELS;
const Kernels ATHERIA_KERNELS = {
    .name = ATHERIA_CPU,
    .block = block_outputs,
    .multiply = multiply,
#if defined(__AVX512BF16__)
    .multiply_pairs = multiply_pairs,
    .pack_cells = pack_cells,
    .change_cells = change_cells,
    .moments_of_cells = moments_of_cells,
    .max_of_cells = max_of_cells,
#else
    .multiply_pairs = nullptr,
    .pack_cells = nullptr,
    .change_cells = nullptr,
    .moments_of_cells = nullptr,
    .max_of_cells = nullptr,
#endif
    .affine = affine,
    .apply = apply,
    .combine = combine,
    .sum = sum,
    .sum_nearest = sum_nearest,
    .advance = advance,
    .advance_product = advance_product,
    .moments = moments,
    .max_of_pairs = max_of_pairs,
    .zip = zip,
    .sum_around = sum_around,
    .to_rows = to_rows,
    .to_cells = to_cells,
    .largest = largest,
    .winograd_input = winograd_input,
    .winograd_output = winograd_output,
    .winograd_tiles = lanes == 16 ? 32 : 64,
    .winograd_product = winograd_product,
    .winograd_width = WinogradProduct::tile * lanes,
};

}  // namespace atheria
