// Vectors of float, as wide as the CPU that this is compiled for. Everything is local to the including file:
// a function shared with files for other CPUs could be linked in the wrong one.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr std::int64_t lanes = 16;
#elif defined(__AVX2__)
constexpr std::int64_t lanes = 8;
#else
constexpr std::int64_t lanes = 4;
#endif

using Vector = float __attribute__((vector_size(lanes * 4)));
using Integers = std::int32_t __attribute__((vector_size(lanes * 4)));
using Unsigned = std::uint32_t __attribute__((vector_size(lanes * 4)));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// a b + c, rounded once where the CPU can: the compiler does so of itself, but not everywhere.
inline Vector multiply_add(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

#if defined(__AVX512F__)
inline __mmask16 first_lanes(std::int64_t count) { return static_cast<__mmask16>((1U << count) - 1); }
#elif defined(__AVX2__)
inline __m256i first_lanes(std::int64_t count) {
  const auto lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
#endif

inline void store(float* to, Vector v, std::int64_t count) {
  if (count >= lanes) return store(to, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, first_lanes(count), v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(to, first_lanes(count), v);
#else
  std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(float));
#endif
}

inline Vector load(const float* from, std::int64_t count) {
  if (count >= lanes) return load(from);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(first_lanes(count), from);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(from, first_lanes(count));
#else
  Vector v{};
  std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof(float));
  return v;
#endif
}

// Minus 0 is no arithmetic, as plus 0 would be, which makes 0 of -0.
inline Vector splat(float x) { return x - Vector{}; }

// The larger of two; b where a is no number.
inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline Vector root(Vector x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#else
  for (std::int64_t i = 0; i < lanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

inline Integers bits(Vector v) { return reinterpret_cast<Integers>(v); }
inline Vector from_bits(Integers v) { return reinterpret_cast<Vector>(v); }

// Sums of bits wrap around, which only unsigned numbers may.
inline Vector from_sum_of_bits(Integers a, Integers b, int shift_of_b) {
  return reinterpret_cast<Vector>(reinterpret_cast<Unsigned>(a) +
                                  (reinterpret_cast<Unsigned>(b) << shift_of_b));
}

// Adding and taking it away rounds to an integer, which is then in the low bits of the sum.
constexpr float rounder = 12582912.0F;  // 1.5 * 2^23

// exp(x) of -87 to 88 as 2^(n/parts) 2^(f/parts), f within 1/2 of 0. What is no number is for the callers to
// keep.
#if defined(__AVX512F__)
constexpr float parts = 16;
inline Vector power(Vector shifted) {
  // 2^(j/16), less what the shift of the integer adds to its fraction.
  alignas(64) constexpr std::int32_t table[16] = {0x3F800000,
                                                  0x3F85AAC3 - 0x080000,
                                                  0x3F8B95C2 - 0x100000,
                                                  0x3F91C3D3 - 0x180000,
                                                  0x3F9837F0 - 0x200000,
                                                  0x3F9EF532 - 0x280000,
                                                  0x3FA5FED7 - 0x300000,
                                                  0x3FAD583F - 0x380000,
                                                  0x3FB504F3 - 0x400000,
                                                  0x3FBD08A4 - 0x480000,
                                                  0x3FC5672A - 0x500000,
                                                  0x3FCE248C - 0x580000,
                                                  0x3FD744FD - 0x600000,
                                                  0x3FE0CCDF - 0x680000,
                                                  0x3FEAC0C7 - 0x700000,
                                                  0x3FF5257D - 0x780000};
  const auto entry = _mm512_permutexvar_epi32(reinterpret_cast<__m512i>(shifted), _mm512_load_si512(table));
  return from_sum_of_bits(reinterpret_cast<Integers>(entry), bits(shifted), 19);
}
// (2^(f/16) - 1) / f: minimax of the relative error, which is 1.1e-7.
inline Vector rise(Vector f) {
  Vector p = splat(1.35508078e-5F);
  p = p * f + 9.38412310e-4F;
  return p * f + 4.33216988e-2F;
}
#elif defined(__AVX2__)
constexpr float parts = 4;
inline Vector power(Vector shifted) {
  constexpr int first = 0x3F800000, second = 0x3F9837F0 - 0x200000, third = 0x3FB504F3 - 0x400000,
                last = 0x3FD744FD - 0x600000;
  const auto table = _mm256_setr_epi32(first, second, third, last, first, second, third, last);
  const auto entry =
      _mm256_permutevar_ps(reinterpret_cast<Vector>(table), reinterpret_cast<__m256i>(shifted));
  return from_sum_of_bits(bits(entry), bits(shifted), 21);
}
// Likewise, 5.9e-8.
inline Vector rise(Vector f) {
  Vector p = splat(3.75708164e-5F);
  p = p * f + 8.67577215e-4F;
  p = p * f + 1.50141582e-2F;
  return p * f + 1.73286785e-1F;
}
#else
constexpr float parts = 1;
inline Vector power(Vector shifted) { return from_sum_of_bits(bits(splat(1.0F)), bits(shifted), 23); }
// Likewise, 1.1e-8.
inline Vector rise(Vector f) {
  Vector p = splat(1.54035124e-4F);
  p = p * f + 1.33907355e-3F;
  p = p * f + 9.61823749e-3F;
  p = p * f + 5.55035743e-2F;
  p = p * f + 2.40226498e-1F;
  return p * f + 6.93147188e-1F;
}
#endif

struct Powers {
  Vector power;  // 2^(n/parts)
  Vector rest;   // f
};
inline Powers split(Vector x) {
  constexpr float scale = parts * 1.44269504F;
  const Vector shifted = x * scale + rounder;
  return {power(shifted), x * scale - (shifted - rounder)};
}
inline Vector exp_within(Vector x) {
  const auto [power, rest] = split(x);
  return power * rest * rise(rest) + power;
}
// exp(x) - 1. Near 0, where the difference would lose all digits, the power is 1. Relative error 5e-7, of the
// first power that is not.
inline Vector exp_less_one_within(Vector x) {
  const auto [power, rest] = split(x);
  return power * rest * rise(rest) + (power - 1.0F);
}

// exp of x <= 88; about 0 below -87.
inline Vector exp_bounded(Vector x) { return exp_within(larger(x, splat(-87.0F))); }

inline Vector exponential(Vector x) {
  // Half of the largest numbers, twice: 2^128 is none.
  const Vector half = exp_bounded(x > 88.0F ? x - 0.693147181F : x);
  const Vector e = x > 88.0F ? half + half : half;
  const Vector finite = x > 88.72F ? splat(__builtin_inff()) : (x < -87.3F ? splat(0.0F) : e);
  return x == x ? finite : x;
}

inline Vector elu(Vector x, float alpha) {
  return x <= 0.0F ? alpha * exp_less_one_within(larger(x, splat(-87.0F))) : x;
}

// Of alpha 1: exp(x) - 1 is no less than x, and what is made of a positive x less than that.
inline Vector elu(Vector x) {
#if defined(__AVX512DQ__)
  constexpr int minus_the_nearer_to_0 = 0b1110;
  return larger(exp_less_one_within(_mm512_range_ps(x, splat(87.0F), minus_the_nearer_to_0)), x);
#elif defined(__AVX2__)
  // Their bits as integers, negative numbers are the larger the farther from 0, and positive ones larger yet:
  // what is positive or below -87 becomes that.
  const auto within =
      _mm256_min_epi32(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(splat(-87.0F)));
  return larger(exp_less_one_within(reinterpret_cast<Vector>(within)), x);
#else
  return elu(x, 1.0F);
#endif
}

inline Vector sigmoid(Vector x) {
  const Vector r = 1.0F / (1.0F + exp_bounded(-x > 88.0F ? splat(88.0F) : -x));
  return x == x ? r : x;
}

inline Vector hyperbolic_tangent(Vector x) {
  const Vector twice = x + x;
  const Vector r = 1.0F - 2.0F / (1.0F + exp_bounded(twice > 88.0F ? splat(88.0F) : twice));
  // Near 0 the difference above cancels: x - x^3/3 + 2 x^5/15 - 17 x^7/315.
  const Vector s = x * x;
  const Vector near = x + x * s * (-1.0F / 3 + s * (2.0F / 15 + s * (-17.0F / 315)));
  const Vector small = s < 0.04F ? near : r;
  return x == x ? small : x;
}

// sin (quarter 0) or cos (quarter 1): reduced by pi/2 in three parts, exact to |x| of some thousands.
inline Vector sine(Vector x, int quarter) {
  const Vector shifted = x * 0.63661977F + rounder;
  const Vector n = shifted - rounder;
  Vector r = x - n * 1.5703125F;
  r = r - n * 4.837512969970703e-4F;
  r = r - n * 7.549789954891882e-8F;
  const Vector s = r * r;
  const Vector sin_r = r + r * s * (-1.6666655e-1F + s * (8.3321609e-3F + s * -1.9515296e-4F));
  const Vector cos_r = 1.0F - 0.5F * s + s * s * (4.1666646e-2F + s * (-1.3887316e-3F + s * 2.4433157e-5F));
  const Integers turn = (bits(shifted) & 0x3FFFFF) + quarter;
  const Vector value = from_bits((turn & 1) != 0 ? bits(cos_r) : bits(sin_r));
  return from_bits(bits(value) ^ ((turn & 2) << 30));
}

// Every second element of a and b, from the first or from the second one on.
#if defined(__AVX512F__)
inline Vector evens(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
inline Vector odds(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
#elif defined(__AVX2__)
inline Vector evens(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14); }
inline Vector odds(Vector a, Vector b) { return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15); }
#else
inline Vector evens(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 2, 4, 6); }
inline Vector odds(Vector a, Vector b) { return __builtin_shufflevector(a, b, 1, 3, 5, 7); }
#endif

// The last element of a and all of b but its last; all of a but its first and the first one of b.
#if defined(__AVX512F__)
inline Vector moved_right(Vector a, Vector b) {
  return reinterpret_cast<Vector>(
      _mm512_alignr_epi32(reinterpret_cast<__m512i>(b), reinterpret_cast<__m512i>(a), 15));
}
inline Vector moved_left(Vector a, Vector b) {
  return reinterpret_cast<Vector>(
      _mm512_alignr_epi32(reinterpret_cast<__m512i>(b), reinterpret_cast<__m512i>(a), 1));
}
#elif defined(__AVX2__)
inline Vector moved_right(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 7, 8, 9, 10, 11, 12, 13, 14);
}
inline Vector moved_left(Vector a, Vector b) { return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8); }
#else
inline Vector moved_right(Vector a, Vector b) { return __builtin_shufflevector(a, b, 3, 4, 5, 6); }
inline Vector moved_left(Vector a, Vector b) { return __builtin_shufflevector(a, b, 1, 2, 3, 4); }
#endif

// a and b interleaved: the first half, and the second.
#if defined(__AVX512F__)
inline Vector zip_first(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Vector zip_second(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif defined(__AVX2__)
inline Vector zip_first(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
inline Vector zip_second(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#else
inline Vector zip_first(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
inline Vector zip_second(Vector a, Vector b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#endif

}  // namespace
