// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). atheria/philox.py draws the same numbers.
#pragma once

#include <array>
#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>

namespace atheria {

// Where each use of randomness starts among the 256 streams of a universe.
namespace stream {
inline constexpr std::uint32_t fire = 0;
inline constexpr std::uint32_t noise = 64;
inline constexpr std::uint32_t coin = 159;  // one draw per universe, at the origin
inline constexpr std::uint32_t initial_state = 160;
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
                 static_cast<std::uint32_t>(universe) * stream::count + first_stream} {}

  std::uint32_t next() {
    if (lane_ == 4) {
      words_ = philox(counter_, key_);
      ++counter_[3];
      lane_ = 0;
    }
    return words_[lane_++];
  }

 private:
  std::uint64_t key_;
  Words counter_;
  Words words_{};
  std::size_t lane_ = 4;
};

}  // namespace atheria
