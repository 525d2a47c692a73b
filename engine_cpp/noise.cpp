#include "noise.hpp"

#include <ATen/Parallel.h>

#include <array>
#include <cmath>
#include <complex>
#include <map>
#include <numbers>
#include <stdexcept>
#include <vector>

#include "field.hpp"
#include "philox.hpp"
#include "text.hpp"

namespace atheria {
namespace {

using Use = NoiseUse;

// What becomes of a cell, or of one that is hit.
using Change = void (*)(Cell cell, Draws& draws, const Use& use);

void random_phases(Cell cell, Draws& draws, const Use& use) {
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    const double angle = 2.0 * std::numbers::pi * uniform(draws.next());
    cell.set(i, cell.get(i) * std::complex<float>(std::polar(1.0, use.inverse ? -angle : angle)));
  }
}

void negate(Cell cell, Draws& /*draws*/, const Use& /*use*/) {
  for (std::int64_t i = 0; i < cell.d_state; ++i) cell.set(i, -cell.get(i));
}

// Z^k: component j times exp(2 pi i j k / d).
void clock(Cell cell, std::int64_t k) {
  if (k == 0) return;
  for (std::int64_t j = 0; j < cell.d_state; ++j) {
    const double angle = 2.0 * std::numbers::pi / static_cast<double>(cell.d_state) *
                         static_cast<double>(j * k % cell.d_state);
    cell.set(j, cell.get(j) * std::complex<float>(std::polar(1.0, angle)));
  }
}

// X^k: component j moves to (j + k) mod d.
void shift(Cell cell, std::int64_t k) {
  for (float* part : {cell.re, cell.im}) {
    std::vector<float> before;
    for (std::int64_t j = 0; j < cell.d_state; ++j) before.push_back(part[j * cell.stride]);
    for (std::int64_t j = 0; j < cell.d_state; ++j) {
      part[(j + k) % cell.d_state * cell.stride] = before[static_cast<std::size_t>(j)];
    }
  }
}

void random_clock(Cell cell, Draws& draws, const Use& use) {
  const auto k = below(draws.next(), cell.d_state);
  clock(cell, use.inverse ? cell.d_state - k : k);
}

void random_shift(Cell cell, Draws& draws, const Use& use) {
  const auto k = 1 + below(draws.next(), cell.d_state - 1);
  shift(cell, use.inverse ? cell.d_state - k : k);
}

void scramble(Cell cell, Draws& draws, const Use& use) {
  const auto a = below(draws.next(), cell.d_state);
  const auto b = below(draws.next(), cell.d_state);
  if (use.inverse) {
    shift(cell, cell.d_state - a);
    clock(cell, cell.d_state - b);
  } else {
    clock(cell, b);
    shift(cell, a);
  }
}

double energy_of(Cell cell) {
  double energy = 0;
  for (std::int64_t i = 0; i < cell.d_state; ++i) energy += std::norm(std::complex<double>(cell.get(i)));
  return energy;
}

void scale(Cell cell, double factor) {
  for (std::int64_t i = 0; i < cell.d_state; ++i) cell.set(i, cell.get(i) * static_cast<float>(factor));
}

// The component that a cell jumps from, or 0 where it does not jump.
std::int64_t jump_source(Cell cell, double level, double threshold) {
  double reached = 0;
  for (std::int64_t i = 1; i < cell.d_state; ++i) {
    reached += std::norm(std::complex<double>(cell.get(i)));
    if (threshold < level * reached) return i;
  }
  return 0;
}

void amplitude_damping(Cell cell, Draws& draws, const Use& use) {
  const double before = energy_of(cell);
  const auto source = jump_source(cell, use.level, uniform(draws.next()) * before);
  const auto landed = cell.get(source);
  const auto shrink = static_cast<float>(source > 0 ? 0.0 : std::sqrt(1 - use.level));
  for (std::int64_t i = 1; i < cell.d_state; ++i) cell.set(i, cell.get(i) * shrink);
  cell.set(0, landed);
  const double after = energy_of(cell);
  if (after > 0) scale(cell, std::sqrt(before / after));
}

void thermal(Cell cell, Draws& draws, const Use& use) {
  if (energy_of(cell) == 0) return;
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    const auto radius = draws.next();
    cell.set(i, cell.get(i) + std::complex<float>(use.level * complex_normal(radius, draws.next())));
  }
}

// A change with probability `level`.
template <Change change>
void if_hit(Cell cell, Draws& draws, const Use& use) {
  if (is_below(draws.next(), use.level)) change(cell, draws, use);
}

void one_of_four(Cell cell, Draws& draws, const Use& use) {
  static constexpr std::array<Change, 4> parts = {if_hit<random_clock>, if_hit<random_shift>,
                                                  if_hit<scramble>, amplitude_damping};
  parts[static_cast<std::size_t>(below(draws.next(), 4))](cell, draws, use);
}

template <Change change>
void everywhere(Cell first, const Row& words, const Use& use) {
  for (std::int64_t x = 0; x < words.width(); ++x) {
    auto draws = words.at(x);
    change(first.beside(x), draws, use);
  }
}

// As `everywhere<if_hit<change>>`, but a cell that is not hit costs no more than a comparison.
template <Change change>
void where_hit(Cell first, const Row& words, const Use& use) {
  const auto* const coins = words.lane(0);
  for (std::int64_t x = 0; x < words.width(); ++x) {
    if (!is_below(coins[x], use.level)) continue;
    auto draws = words.at(x);
    draws.skip(1);
    change(first.beside(x), draws, use);
  }
}

// The seed's QuantumNoiseInjector: phase flips at the level each step, and in one step of five
// sign flips at a tenth of it.
void seed_mix(Cell first, const Row& words, const Use& use) {
  where_hit<random_phases>(first, words, use);
  if (!is_below(use.coin, 0.2)) return;
  for (std::int64_t x = 0; x < words.width(); ++x) {
    auto draws = words.at(x);
    draws.skip(1 + first.d_state);
    if (is_below(draws.next(), 0.1 * use.level)) negate(first.beside(x), draws, use);
  }
}

const std::map<std::string, NoiseChannel>& channels() {
  static const std::map<std::string, NoiseChannel> table = {
      {"amplitude_damping", everywhere<amplitude_damping>},
      {"bit_flip", where_hit<random_shift>},
      {"dephasing", where_hit<random_clock>},
      {"depolarising", where_hit<scramble>},
      {"mixed", everywhere<one_of_four>},
      {"phase_flip", where_hit<random_phases>},
      {"seed", seed_mix},
      {"sign_flip", where_hit<negate>},
      {"thermal", everywhere<thermal>}};
  return table;
}

}  // namespace

void Noise::check() const {
  if (name != "none" && !channels().contains(name)) {
    std::string known = "none";
    for (const auto& [channel, _] : channels()) known += ", " + channel;
    throw std::invalid_argument("`name` of noise must be one of " + known + ", got '" + name + "'");
  }
  if (!(level >= 0 && level <= 1)) {
    throw std::invalid_argument("`level` of noise must be between 0 and 1, got " + short_number(level));
  }
}

NoiseChannel Noise::channel(std::int64_t d_state) const {
  if ((name == "bit_flip" || name == "mixed") && d_state < 2) {
    throw std::invalid_argument("noise " + name + " needs `d_state` of at least 2, got 1");
  }
  return channels().at(name);
}

NoiseUse Noise::use(std::uint64_t seed, std::int64_t step, std::int64_t universe, bool inverse) const {
  return {level, Draws(seed, 0, 0, step, universe, stream::coin).next(), inverse};
}

at::Tensor Noise::apply(const at::Tensor& psi, std::uint64_t seed, std::int64_t step,
                        std::int64_t first_universe, bool inverse) const {
  if (is_off()) return psi;
  const auto shape = Shape::of(psi);
  const auto channel = this->channel(shape.d_state);
  auto noisy = psi.clone();
  auto* data = noisy.data_ptr<float>();
  at::parallel_for(0, shape.universes * shape.height, 1, [&](std::int64_t begin, std::int64_t end) {
    Row words(shape.width);
    for (std::int64_t row = begin; row < end; ++row) {
      const auto universe = row / shape.height;
      const auto y = row % shape.height;
      words.draw(seed, y, step, first_universe + universe, stream::noise);
      channel(Cell::at(data, shape, universe, y, 0), words,
              use(seed, step, first_universe + universe, inverse));
    }
  });
  return noisy;
}

}  // namespace atheria
