#include "device_noise.hpp"

#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <utility>

#include "device_draws.hpp"
#include "field.hpp"

namespace atheria {
namespace {

// coin: a uniform number that all cells of a universe share, (B, 1, 1).
using Channel = at::Tensor (*)(const at::Tensor& psi, double level, DeviceDraws& draws,
                               const at::Tensor& coin);

// Words as integers, uniform in 0..count-1.
at::Tensor below(const at::Tensor& words, std::int64_t count) {
  return (words * count).bitwise_right_shift(32);
}

// Whether a cell is hit: (B, H, W).
at::Tensor hit(DeviceDraws& draws, double level) { return draws.uniform(1).select(0, 0) < level; }

// The next word of a cell as an integer in first..first+count-1 where the cell is hit, else 0: (B, H, W).
at::Tensor chosen(DeviceDraws& draws, const at::Tensor& is_hit, std::int64_t count, std::int64_t first = 0) {
  return (below(draws.words(1).select(0, 0), count) + first) * is_hit;
}

// Components, each turned by its angle: float64 (B, d, H, W).
at::Tensor turned(const at::Tensor& psi, const at::Tensor& angle) {
  const auto parts = psi.chunk(2, 1);
  const auto cos = angle.cos().to(at::kFloat);
  const auto sin = angle.sin().to(at::kFloat);
  return at::cat({parts[0] * cos - parts[1] * sin, parts[0] * sin + parts[1] * cos}, 1);
}

at::Tensor component(const at::Tensor& psi) {
  return at::arange(psi.size(1) / 2, at::TensorOptions(at::kLong).device(psi.device())).view({1, -1, 1, 1});
}

// Z^k: component j times exp(2 pi i j k / d); k: (B, H, W).
at::Tensor clock(const at::Tensor& psi, const at::Tensor& k) {
  const auto d = psi.size(1) / 2;
  const auto turns = (component(psi) * k.unsqueeze(1)).remainder(d).to(at::kDouble);
  return turned(psi, turns * (2.0 * std::numbers::pi / static_cast<double>(d)));
}

// X^k: component j moves to (j + k) mod d; k: (B, H, W).
at::Tensor shift(const at::Tensor& psi, const at::Tensor& k) {
  const auto d = psi.size(1) / 2;
  const auto source = (component(psi) - k.unsqueeze(1)).remainder(d);
  return psi.gather(1, at::cat({source, source + d}, 1));
}

at::Tensor phase_flip(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& /*coin*/) {
  const auto uniform = draws.uniform(1 + psi.size(1) / 2);
  const auto is_hit = (uniform.select(0, 0) < level).unsqueeze(1);
  const auto angle = uniform.narrow(0, 1, psi.size(1) / 2).transpose(0, 1).to(at::kDouble);
  return turned(psi, angle * (2.0 * std::numbers::pi) * is_hit);
}

at::Tensor sign_flip(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& /*coin*/) {
  return at::where(hit(draws, level).unsqueeze(1), -psi, psi);
}

at::Tensor seed_mix(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& coin) {
  const auto flipped = phase_flip(psi, level, draws, coin);
  return at::where((coin < 0.2).unsqueeze(1), sign_flip(flipped, 0.1 * level, draws, coin), flipped);
}

at::Tensor dephasing(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& /*coin*/) {
  const auto is_hit = hit(draws, level);
  return clock(psi, chosen(draws, is_hit, psi.size(1) / 2));
}

at::Tensor bit_flip(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& /*coin*/) {
  const auto is_hit = hit(draws, level);
  return shift(psi, chosen(draws, is_hit, psi.size(1) / 2 - 1, 1));
}

at::Tensor depolarising(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& /*coin*/) {
  const auto is_hit = hit(draws, level);
  const auto a = chosen(draws, is_hit, psi.size(1) / 2);
  const auto b = chosen(draws, is_hit, psi.size(1) / 2);
  return shift(clock(psi, b), a);
}

at::Tensor amplitude_damping(const at::Tensor& psi, double level, DeviceDraws& draws,
                             const at::Tensor& /*coin*/) {
  const auto d = psi.size(1) / 2;
  if (d == 1) return psi;  // nothing above the ground
  const auto parts = psi.chunk(2, 1);
  const auto energy = (parts[0].square() + parts[1].square()).to(at::kDouble);
  const auto threshold = draws.uniform(1).select(0, 0).unsqueeze(1) * energy.sum(1, true);
  const auto reached = energy.narrow(1, 1, d - 1).cumsum(1) * level;  // the jumps from 1..i
  const auto jumps = threshold < reached.narrow(1, d - 2, 1);
  const auto source = (threshold >= reached).sum(1, true).clamp_max(d - 2) + 1;
  const auto others = at::zeros_like(parts[0].narrow(1, 1, d - 1));
  const auto landed = at::cat({parts[0].gather(1, source), others, parts[1].gather(1, source), others}, 1);
  const auto shrink = at::full({1, d, 1, 1}, std::sqrt(1 - level), psi.options());
  shrink.select(1, 0).fill_(1.0);
  const auto moved = at::where(jumps, landed, at::cat({parts[0] * shrink, parts[1] * shrink}, 1));
  const auto after = energy_density(moved);
  const auto ratio = (energy_density(psi) / after).sqrt();
  return moved * ratio.masked_fill(after == 0, 1.0);
}

at::Tensor mixed(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& coin) {
  static constexpr std::array<Channel, 4> parts = {dephasing, bit_flip, depolarising, amplitude_damping};
  const auto which = below(draws.words(1), parts.size()).transpose(0, 1);
  auto changed = psi;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto own = draws;  // each reads from the same word on
    changed = at::where(which == static_cast<std::int64_t>(i), parts[i](psi, level, own, coin), changed);
  }
  return changed;
}

at::Tensor thermal(const at::Tensor& psi, double level, DeviceDraws& draws, const at::Tensor& /*coin*/) {
  const auto [re, im] = draws.complex_normal(psi.size(1) / 2);
  const auto kick = (at::cat({re, im}).transpose(0, 1) * level).to(at::kFloat);
  return psi + kick * occupied(psi).unsqueeze(1);
}

const std::map<std::string, Channel>& channels() {
  static const std::map<std::string, Channel> table = {{"amplitude_damping", amplitude_damping},
                                                       {"bit_flip", bit_flip},
                                                       {"dephasing", dephasing},
                                                       {"depolarising", depolarising},
                                                       {"mixed", mixed},
                                                       {"phase_flip", phase_flip},
                                                       {"seed", seed_mix},
                                                       {"sign_flip", sign_flip},
                                                       {"thermal", thermal}};
  return table;
}

}  // namespace

at::Tensor apply_on_device(const Noise& noise, const at::Tensor& psi, std::uint64_t seed,
                           const at::Tensor& step) {
  if (noise.is_off()) return psi;
  const auto shape = Shape::of(psi);
  noise.channel(shape.d_state);
  DeviceDraws draws(seed, {shape.universes, shape.height, shape.width, 0}, step, stream::noise);
  DeviceDraws at_origin(seed, {shape.universes, 1, 1, 0}, step, stream::coin);
  return channels().at(noise.name)(psi, noise.level, draws, at_origin.uniform(1).select(0, 0));
}

}  // namespace atheria
