// Initial states from the counter-based generator; atheria/initial_state.py makes the same fields.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "field.hpp"

namespace atheria {

struct InitialState {
  std::string kind = "soup";  // soup | random | particles | gaussian | zeros
  double density = 0.5;       // soup: share of occupied cells, [0, 1]
  std::int64_t count = 16;    // particles: how many per universe, >= 1
  double width = 4.0;         // gaussian: standard deviation of the energy, in cells, > 0

  // Throws std::invalid_argument for an unknown kind or a value outside its range.
  void check() const;

  // (B, 2d, H, W) float32. Every occupied cell has norm 1 (gaussian: the cell at its centre).
  at::Tensor make(const Shape& shape, std::uint64_t seed) const;
};

}  // namespace atheria
