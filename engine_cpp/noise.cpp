#include "noise.hpp"

#include <ATen/Parallel.h>

#include <cmath>
#include <complex>
#include <map>
#include <numbers>
#include <stdexcept>

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
    float& re = cell.re[i * cell.stride];
    float& im = cell.im[i * cell.stride];
    const auto turned = std::complex<float>(re, im) * turn;
    re = turned.real();
    im = turned.imag();
  }
}

void sign_flip(Cell cell, double level, Draws& draws, std::uint32_t /*coin*/) {
  if (uniform(draws.next()) >= static_cast<float>(level)) return;
  for (std::int64_t i = 0; i < cell.d_state; ++i) {
    cell.re[i * cell.stride] *= -1;
    cell.im[i * cell.stride] *= -1;
  }
}

// The seed's QuantumNoiseInjector: phase flips at the level each step, and in one step of five
// sign flips at a tenth of it.
void seed_mix(Cell cell, double level, Draws& draws, std::uint32_t coin) {
  phase_flip(cell, level, draws, coin);
  if (uniform(coin) < 0.2F) sign_flip(cell, 0.1 * level, draws, coin);
}

const std::map<std::string, Channel>& channels() {
  static const std::map<std::string, Channel> table = {
      {"phase_flip", phase_flip}, {"seed", seed_mix}, {"sign_flip", sign_flip}};
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

void Noise::apply(at::Tensor& psi, std::uint64_t seed, std::int64_t step) const {
  if (name == "none" || level == 0) return;
  const auto channel = channels().at(name);
  const auto shape = Shape::of(psi);
  auto* data = psi.data_ptr<float>();
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
}

}  // namespace atheria
