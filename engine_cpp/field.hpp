// The field psi: (B, 2d, H, W), float32, planar. Channels 0..d-1 are Re, d..2d-1 are Im.
#pragma once

#include <ATen/ATen.h>

#include <complex>
#include <cstdint>

namespace atheria {

struct Shape {
  std::int64_t universes, d_state, height, width;

  static Shape of(const at::Tensor& psi) { return {psi.size(0), psi.size(1) / 2, psi.size(2), psi.size(3)}; }
  std::int64_t cells() const { return height * width; }
};

// One cell's d components, wherever they lie.
struct Cell {
  float* re;
  float* im;
  std::int64_t stride;  // between components
  std::int64_t d_state;
  std::int64_t pitch = 1;  // between cells of a row

  std::complex<float> get(std::int64_t component) const {
    return {re[component * stride], im[component * stride]};
  }
  void set(std::int64_t component, std::complex<float> amplitude) const {
    re[component * stride] = amplitude.real();
    im[component * stride] = amplitude.imag();
  }

  // The cell at x in the row that this one begins.
  Cell beside(std::int64_t x) const { return {re + x * pitch, im + x * pitch, stride, d_state, pitch}; }

  static Cell at(float* psi, const Shape& shape, std::int64_t universe, std::int64_t y, std::int64_t x) {
    float* re = psi + universe * 2 * shape.d_state * shape.cells() + y * shape.width + x;
    return {re, re + shape.d_state * shape.cells(), shape.cells(), shape.d_state};
  }
};

// Energy of each cell, rho = sum_i |psi_i|^2: (B, 1, H, W).
inline at::Tensor energy_density(const at::Tensor& psi) { return psi.square().sum(1, true); }

// Whether a cell is not vacuum: (B, H, W).
inline at::Tensor occupied(const at::Tensor& psi) { return (psi != 0).any(1); }

// Energy of each universe, N = sum_x rho: (B, 1, 1, 1).
inline at::Tensor total_energy(const at::Tensor& psi) { return energy_density(psi).sum({2, 3}, true); }

}  // namespace atheria
