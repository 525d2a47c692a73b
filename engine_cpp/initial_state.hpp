// Initial states from the counter-based generator; atheria/initial_state.py makes the same fields.
#pragma once

#include <ATen/ATen.h>

#include <complex>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "field.hpp"

namespace atheria {

struct InitialState {
  std::string kind = "soup";  // soup | random | particles | gaussian | zeros
  double density = 0.5;       // soup: share of occupied cells, [0, 1]
  std::int64_t count = 16;    // particles: how many per universe, >= 1
  double width = 4.0;         // gaussian: standard deviation of the energy, in cells, > 0

  // Throws std::invalid_argument for an unknown kind or a value outside its range.
  void check() const;

  // Takes the amplitudes of the cell (x, y); a later call replaces what an earlier one gave.
  using Put = std::function<void(std::int64_t x, std::int64_t y, const std::vector<std::complex<float>>&)>;

  // One universe, cell by cell: those that are left out are vacuum.
  void draw(const Shape& shape, std::uint64_t seed, std::int64_t universe, const Put& put) const;

  // (B, 2d, H, W) float32. Every occupied cell has norm 1 (gaussian: the cell at its centre).
  at::Tensor make(const Shape& shape, std::uint64_t seed) const;
};

}  // namespace atheria
