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

namespace atheria {
namespace {

struct Use {
  double level;
  std::uint32_t coin;  // a word that all cells of the universe share at this step
  bool inverse;        // undo what the same draws do; of unitary channels alone

  bool hits(Draws& draws) const { return uniform(draws.next()) < static_cast<float>(level); }
};

using Channel = void (*)(Cell cell, Draws& draws, const Use& use);

void phase_flip(Cell cell, Draws& draws, const Use& use) {
  if (!use.hits(draws)) {
    draws.skip(cell.d_state);
    return;
  }
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    const double angle = 2.0 * std::numbers::pi * uniform(draws.next());
    cell.set(i, cell.get(i) * std::complex<float>(std::polar(1.0, use.inverse ? -angle : angle)));
  }
}

void sign_flip(Cell cell, Draws& draws, const Use& use) {
  if (!use.hits(draws)) return;
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

void dephasing(Cell cell, Draws& draws, const Use& use) {
  if (!use.hits(draws)) return;
  const auto k = below(draws.next(), cell.d_state);
  clock(cell, use.inverse ? cell.d_state - k : k);
}

void bit_flip(Cell cell, Draws& draws, const Use& use) {
  if (!use.hits(draws)) return;
  const auto k = 1 + below(draws.next(), cell.d_state - 1);
  shift(cell, use.inverse ? cell.d_state - k : k);
}

void depolarising(Cell cell, Draws& draws, const Use& use) {
  if (!use.hits(draws)) return;
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

// One of four, each with its own words.
void mixed(Cell cell, Draws& draws, const Use& use) {
  static constexpr std::array<Channel, 4> parts = {dephasing, bit_flip, depolarising, amplitude_damping};
  parts[static_cast<std::size_t>(below(draws.next(), 4))](cell, draws, use);
}

void thermal(Cell cell, Draws& draws, const Use& use) {
  if (energy_of(cell) == 0) return;
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    const auto radius = draws.next();
    cell.set(i, cell.get(i) + std::complex<float>(use.level * complex_normal(radius, draws.next())));
  }
}

// The seed's QuantumNoiseInjector: phase flips at the level each step, and in one step of five
// sign flips at a tenth of it.
void seed_mix(Cell cell, Draws& draws, const Use& use) {
  phase_flip(cell, draws, use);
  if (uniform(use.coin) < 0.2F) sign_flip(cell, draws, {0.1 * use.level, use.coin, use.inverse});
}

// A channel in a row of cells; compiled for each, since most cells only see that they are not hit.
template <Channel channel>
void along_row(Cell first, const Row& words, const Use& use, std::int64_t width) {
  for (std::int64_t x = 0; x < width; ++x) {
    auto draws = words.at(x);
    channel({first.re + x, first.im + x, first.stride, first.d_state}, draws, use);
  }
}

using RowChannel = void (*)(Cell first, const Row& words, const Use& use, std::int64_t width);

const std::map<std::string, RowChannel>& channels() {
  static const std::map<std::string, RowChannel> table = {{"amplitude_damping", along_row<amplitude_damping>},
                                                          {"bit_flip", along_row<bit_flip>},
                                                          {"dephasing", along_row<dephasing>},
                                                          {"depolarising", along_row<depolarising>},
                                                          {"mixed", along_row<mixed>},
                                                          {"phase_flip", along_row<phase_flip>},
                                                          {"seed", along_row<seed_mix>},
                                                          {"sign_flip", along_row<sign_flip>},
                                                          {"thermal", along_row<thermal>}};
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

at::Tensor Noise::apply(const at::Tensor& psi, std::uint64_t seed, std::int64_t step,
                        std::int64_t first_universe, bool inverse) const {
  if (name == "none" || level == 0) return psi;
  const auto channel = channels().at(name);
  const auto shape = Shape::of(psi);
  if ((name == "bit_flip" || name == "mixed") && shape.d_state < 2) {
    throw std::invalid_argument("noise " + name + " needs `d_state` of at least 2, got 1");
  }
  auto noisy = psi.clone();
  auto* data = noisy.data_ptr<float>();
  at::parallel_for(0, shape.universes * shape.height, 1, [&](std::int64_t begin, std::int64_t end) {
    Row words(shape.width);
    for (std::int64_t row = begin; row < end; ++row) {
      const auto universe = row / shape.height;
      const auto y = row % shape.height;
      const Use use{level, Draws(seed, 0, 0, step, first_universe + universe, stream::coin).next(), inverse};
      words.draw(seed, y, step, first_universe + universe, stream::noise);
      channel(Cell::at(data, shape, universe, y, 0), words, use, shape.width);
    }
  });
  return noisy;
}

}  // namespace atheria
