// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). atheria/philox.py draws the same numbers.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>
#include <vector>

namespace atheria {

// Where each use of randomness starts among the 256 streams of a universe.
namespace stream {
inline constexpr std::uint32_t fire = 0;
inline constexpr std::uint32_t noise = 64;
inline constexpr std::uint32_t coin = 159;  // one draw per universe, at the origin
inline constexpr std::uint32_t initial_state = 160;
inline constexpr std::uint32_t vacuum = 243;  // the same waves in every universe: counted as the first's
inline constexpr std::uint32_t count = 256;

// More would run into the next stream, or wrap around the counter.
inline constexpr std::int64_t most_components = 128;
inline constexpr std::int64_t most_universes = std::int64_t{1} << 24;
}  // namespace stream

using Words = std::array<std::uint32_t, 4>;

inline Words philox(Words counter, std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1), on a grid of 2^-24: exact in float32.
inline float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24F; }

// Whether what has that probability happens.
inline bool is_below(std::uint32_t word, double probability) {
  return uniform(word) < static_cast<float>(probability);
}

// Uniform in 0..count-1.
inline std::int64_t below(std::uint32_t word, std::int64_t count) {
  return static_cast<std::int64_t>((std::uint64_t{word} * static_cast<std::uint64_t>(count)) >> 32);
}

// Standard complex normal (unit variance of Re and of Im) by Box and Muller.
inline std::complex<double> complex_normal(std::uint32_t radius, std::uint32_t angle) {
  const double r = std::sqrt(-2.0 * std::log((radius + 0.5) * 0x1p-32));
  return std::polar(r, 2.0 * std::numbers::pi * (angle * 0x1p-32));
}

// The words of one cell at one step, read in order across consecutive streams.
class Draws {
 public:
  Draws(std::uint64_t seed, std::int64_t x, std::int64_t y, std::int64_t step, std::int64_t universe,
        std::uint32_t first_stream)
      : key_(seed),
        counter_{static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(y),
                 static_cast<std::uint32_t>(step),
                 static_cast<std::uint32_t>(universe) * stream::count + first_stream},
        words_(philox(counter_, key_)) {}

  // With the first stream's words, where they are known.
  Draws(std::uint64_t seed, Words counter, Words first) : key_(seed), counter_(counter), words_(first) {}

  std::uint32_t next() {
    if (lane_ >= 4) {
      counter_[3] += lane_ / 4;
      lane_ %= 4;
      words_ = philox(counter_, key_);
    }
    return words_[lane_++];
  }

  void skip(std::int64_t count) { lane_ += static_cast<std::uint32_t>(count); }

 private:
  std::uint64_t key_;
  Words counter_;
  Words words_;
  std::uint32_t lane_ = 0;  // runs on into streams that are not drawn yet
};

// One stream's words for a row of cells, which the compiler draws several at a time.
class Row {
 public:
  explicit Row(std::int64_t width) : width_(static_cast<std::size_t>(width)), words_(4 * width_) {}

  // The row's first cell is at (first_x, y).
  void draw(std::uint64_t seed, std::int64_t y, std::int64_t step, std::int64_t universe,
            std::uint32_t stream, std::int64_t first_x = 0) {
    seed_ = seed;
    counter_ = {static_cast<std::uint32_t>(first_x), static_cast<std::uint32_t>(y),
                static_cast<std::uint32_t>(step),
                static_cast<std::uint32_t>(universe) * stream::count + stream};
    const auto [first, row, when, last] = counter_;  // by value, lest the words written might be these
    auto* const words = words_.data();
    for (std::size_t x = 0; x < width_; ++x) {
      const auto drawn = philox({first + static_cast<std::uint32_t>(x), row, when, last}, seed);
      for (std::size_t lane = 0; lane < 4; ++lane) words[lane * width_ + x] = drawn[lane];
    }
  }

  std::int64_t width() const { return static_cast<std::int64_t>(width_); }
  const std::uint32_t* lane(std::size_t index) const { return words_.data() + index * width_; }

  // A cell's words from this stream on.
  Draws at(std::int64_t x) const {
    const auto* const first = words_.data() + x;
    return {seed_,
            {counter_[0] + static_cast<std::uint32_t>(x), counter_[1], counter_[2], counter_[3]},
            {first[0], first[width_], first[2 * width_], first[3 * width_]}};
  }

 private:
  std::size_t width_;
  std::vector<std::uint32_t> words_;
  std::uint64_t seed_ = 0;
  Words counter_{};
};

// Universes first.. on a height x width grid.
struct Lattice {
  std::int64_t universes, height, width, first;
};

// `count` words of every cell at one step, the first being word `first_word` of stream 0, four to a stream:
// int64 (count, B, H, W).
at::Tensor words(std::uint64_t seed, const Lattice& lattice, std::int64_t step, std::int64_t first_word,
                 std::int64_t count);

}  // namespace atheria
