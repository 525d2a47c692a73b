#include "noise.hpp"

#include <ATen/Parallel.h>

#include <cmath>
#include <complex>
#include <map>
#include <numbers>
#include <stdexcept>
#include <vector>

#include "field.hpp"
#include "philox.hpp"

namespace atheria {
namespace {

// coin: a word that all cells of the universe share at this step.
using Channel = void (*)(Cell cell, double level, Draws& draws, std::uint32_t coin);

void phase_flip(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  const bool hit = uniform(draws.next()) < static_cast<float>(level);
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    const auto word = draws.next();
    if (!hit) continue;
    const std::complex<float> turn(std::polar(1.0, 2.0 * std::numbers::pi * uniform(word)));
    cell.set(i, cell.get(i) * turn);
  }
}

void sign_flip(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  if (uniform(draws.next()) >= static_cast<float>(level)) return;
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

void dephasing(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  const bool hit = uniform(draws.next()) < static_cast<float>(level);
  const auto k = below(draws.next(), cell.d_state);
  if (hit) clock(cell, k);
}

void bit_flip(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  const bool hit = uniform(draws.next()) < static_cast<float>(level);
  const auto k = 1 + below(draws.next(), cell.d_state - 1);
  if (hit) shift(cell, k);
}

void depolarising(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  const bool hit = uniform(draws.next()) < static_cast<float>(level);
  const auto a = below(draws.next(), cell.d_state);
  const auto b = below(draws.next(), cell.d_state);
  if (!hit) return;
  clock(cell, b);
  shift(cell, a);
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

void amplitude_damping(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  const double before = energy_of(cell);
  const auto source = jump_source(cell, level, uniform(draws.next()) * before);
  const auto landed = cell.get(source);
  const auto shrink = static_cast<float>(source > 0 ? 0.0 : std::sqrt(1 - level));
  for (std::int64_t i = 1; i < cell.d_state; ++i) cell.set(i, cell.get(i) * shrink);
  cell.set(0, landed);
  const double after = energy_of(cell);
  if (after > 0) scale(cell, std::sqrt(before / after));
}

void thermal(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  if (energy_of(cell) == 0) return;
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    const auto radius = draws.next();
    cell.set(i, cell.get(i) + std::complex<float>(level * complex_normal(radius, draws.next())));
  }
}

// The seed's QuantumNoiseInjector: phase flips at the level each step, and in one step of five
// sign flips at a tenth of it.
void seed_mix(Cell cell, double level, Draws& draws, std::uint32_t coin) {
  phase_flip(cell, level, draws, coin);
  if (uniform(coin) < 0.2F) sign_flip(cell, 0.1 * level, draws, coin);
}

const std::map<std::string, Channel>& channels() {
  static const std::map<std::string, Channel> table = {{"amplitude_damping", amplitude_damping},
                                                       {"bit_flip", bit_flip},
                                                       {"dephasing", dephasing},
                                                       {"depolarising", depolarising},
                                                       {"phase_flip", phase_flip},
                                                       {"seed", seed_mix},
                                                       {"sign_flip", sign_flip},
                                                       {"thermal", thermal}};
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
    throw std::invalid_argument("`level` of noise must be between 0 and 1, got " + std::to_string(level));
  }
}

at::Tensor Noise::apply(const at::Tensor& psi, std::uint64_t seed, std::int64_t step) const {
  if (name == "none" || level == 0) return psi;
  const auto channel = channels().at(name);
  const auto shape = Shape::of(psi);
  if (name == "bit_flip" && shape.d_state < 2) {
    throw std::invalid_argument("noise bit_flip needs `d_state` of at least 2, got 1");
  }
  auto noisy = psi.clone();
  auto* data = noisy.data_ptr<float>();
  at::parallel_for(0, shape.universes * shape.height, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const auto universe = row / shape.height;
      const auto y = row % shape.height;
      const auto coin = Draws(seed, 0, 0, step, universe, stream::coin).next();
      for (std::int64_t x = 0; x < shape.width; ++x) {
        Draws draws(seed, x, y, step, universe, stream::noise);
        channel(Cell::at(data, shape, universe, y, x), level, draws, coin);
      }
    }
  });
  return noisy;
}

}  // namespace atheria
