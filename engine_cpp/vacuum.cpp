#include "vacuum.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>

#include "field.hpp"

namespace atheria {
namespace {

std::complex<double> unit(std::uint32_t turns) {
  return std::polar(1.0, 2.0 * std::numbers::pi * (turns * 0x1p-32));
}

// e^(i phase) at `count` places, `step` turns apart.
std::vector<std::complex<double>> phases(std::uint32_t first, std::uint32_t step, std::int64_t count) {
  std::vector<std::complex<double>> values;
  values.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    values.push_back(unit(first + step * static_cast<std::uint32_t>(i)));
  return values;
}

// Whether any is true at most `reach` places away along an axis: bool, of the same shape.
at::Tensor any_along(const at::Tensor& present, std::int64_t axis, std::int64_t reach, bool torus) {
  const auto size = present.size(axis);
  if (torus && 2 * reach + 1 >= size) return present.any(axis, true).expand_as(present);
  const auto margin = std::min(reach, size);
  const auto before = present.narrow(axis, size - margin, margin);
  const auto after = present.narrow(axis, 0, margin);
  const auto padded = torus ? at::cat({before, present, after}, axis)
                            : at::cat({at::zeros_like(before), present, at::zeros_like(after)}, axis);
  const auto sums =
      at::cat({at::zeros_like(padded.narrow(axis, 0, 1), at::kLong), padded.cumsum(axis)}, axis);
  return sums.narrow(axis, 2 * margin + 1, size) > sums.narrow(axis, 0, size);
}

}  // namespace

HarmonicVacuum::HarmonicVacuum(double level, std::int64_t d_state, std::uint64_t seed, std::int64_t step)
    : scale_(level / std::sqrt(static_cast<double>(waves) * static_cast<double>(d_state))),
      components_(static_cast<std::size_t>(d_state)) {
  const auto time = static_cast<std::uint32_t>(step);
  for (std::size_t component = 0; component < components_.size(); ++component) {
    for (std::size_t wave = 0; wave < waves; ++wave) {
      const auto [along_x, along_y, along_time, phase] = philox(
          {static_cast<std::uint32_t>(wave), static_cast<std::uint32_t>(component), 0, stream::vacuum}, seed);
      components_[component][wave] = {along_x, along_y, along_time * time + phase};
    }
  }
}

void HarmonicVacuum::fill(std::int64_t component, std::int64_t x, std::int64_t y, std::int64_t width,
                          std::int64_t height, float* re, float* im) const {
  const auto west = static_cast<std::uint32_t>(x);
  const auto north = static_cast<std::uint32_t>(y);
  std::array<std::vector<std::complex<double>>, waves> columns;
  std::array<std::vector<std::complex<double>>, waves> rows;
  for (std::size_t k = 0; k < waves; ++k) {
    const auto& wave = components_[static_cast<std::size_t>(component)][k];
    columns[k] = phases(wave.along_x * west, wave.along_x, width);
    rows[k] = phases(wave.along_y * north + wave.phase, wave.along_y, height);
  }
  for (std::size_t row = 0; row < static_cast<std::size_t>(height); ++row) {
    for (std::size_t column = 0; column < static_cast<std::size_t>(width); ++column) {
      double sum_re = 0;
      double sum_im = 0;
      for (std::size_t k = 0; k < waves; ++k) {
        const auto a = columns[k][column];
        const auto b = rows[k][row];
        sum_re += a.real() * b.real() - a.imag() * b.imag();
        sum_im += a.real() * b.imag() + a.imag() * b.real();
      }
      *re++ = static_cast<float>(scale_ * sum_re);
      *im++ = static_cast<float>(scale_ * sum_im);
    }
  }
}

at::Tensor with_vacuum(const at::Tensor& psi, double level, std::uint64_t seed, std::int64_t step) {
  const auto shape = Shape::of(psi);
  const HarmonicVacuum vacuum(level, shape.d_state, seed, step);
  const auto field = at::empty({1, 2 * shape.d_state, shape.height, shape.width}, at::kFloat);
  auto* const planes = field.data_ptr<float>();
  at::parallel_for(0, shape.d_state, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      vacuum.fill(i, 0, 0, shape.width, shape.height, planes + i * shape.cells(),
                  planes + (shape.d_state + i) * shape.cells());
    }
  });
  return at::where(occupied(psi).unsqueeze(1), psi, field);
}

at::Tensor near_matter(const at::Tensor& psi, std::int64_t reach, bool torus) {
  return any_along(any_along(occupied(psi).unsqueeze(1), 2, reach, torus), 3, reach, torus);
}

}  // namespace atheria
