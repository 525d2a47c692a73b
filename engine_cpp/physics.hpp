// One step of the model after the law has spoken: decay, update mask, threshold, normalisation.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string_view>

#include "field.hpp"

namespace atheria {

enum class Normalise { none, cell, global };

Normalise parse_normalise(std::string_view name);
std::string_view name_of(Normalise normalise);

// What lies beyond the edges of a grid: its other side, or vacuum.
enum class Boundary { torus, zeros };

Boundary parse_boundary(std::string_view name);
std::string_view name_of(Boundary boundary);

// What laws read in vacuum.
struct Harmonic {
  double level = 0.0;      // root mean square norm of a cell; 0: vacuum is read as it is
  std::int64_t reach = 0;  // of the law: further from matter, what it makes of vacuum does not count
  bool operator==(const Harmonic&) const = default;
};

struct Physics {
  double gamma = 0.0;      // amplitude decay per step, [0, 1)
  double epsilon = 0.0;    // cells of norm <= epsilon become vacuum
  double fire_rate = 1.0;  // probability that a cell updates, (0, 1]
  Normalise normalise = Normalise::none;
  // Of the law, which pads so by itself; windows, centres and the reach of `harmonic` go by it.
  Boundary boundary = Boundary::torus;
  Harmonic harmonic{};

  // Throws std::invalid_argument where a value is outside its range.
  void check() const;
  bool operator==(const Physics&) const = default;
};

// 1 where a cell updates, else 0: (B, 1, H, W) on the CPU; undefined where the rate is 1.
at::Tensor fire_mask(const Shape& shape, double rate, std::uint64_t seed, std::int64_t step);

// The state after one step, before noise. psi, delta: (B, 2d, H, W); reference_energy: (B, 1, 1, 1),
// the energy that `global` normalisation restores; fires: (B, 1, H, W), 1 where a cell updates, undefined
// where all do.
at::Tensor advance(const at::Tensor& psi, const at::Tensor& delta, const Physics& physics,
                   const at::Tensor& reference_energy, const at::Tensor& fires);

}  // namespace atheria
