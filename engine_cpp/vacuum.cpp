#include "vacuum.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>

#include "device_draws.hpp"
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

// Of int64 turns, taken modulo 2^32: float64.
at::Tensor angle_of(const at::Tensor& turns) {
  return turns.bitwise_and(std::int64_t{0xFFFFFFFF}).to(at::kDouble) * (2.0 * std::numbers::pi * 0x1p-32);
}

}  // namespace

HarmonicVacuum::HarmonicVacuum(double level, std::int64_t d_state, std::uint64_t seed, std::int64_t step)
    : scale_(scale(level, d_state)), components_(static_cast<std::size_t>(d_state)) {
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

at::Tensor vacuum_field(double level, const Shape& shape, std::uint64_t seed, std::int64_t step) {
  const HarmonicVacuum vacuum(level, shape.d_state, seed, step);
  const auto field = at::empty({1, 2 * shape.d_state, shape.height, shape.width}, at::kFloat);
  auto* const planes = field.data_ptr<float>();
  at::parallel_for(0, shape.d_state, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      vacuum.fill(i, 0, 0, shape.width, shape.height, planes + i * shape.cells(),
                  planes + (shape.d_state + i) * shape.cells());
    }
  });
  return field;
}

at::Tensor vacuum_on_device(double level, const Shape& shape, std::uint64_t seed, const at::Tensor& step) {
  const auto options = at::TensorOptions(at::kLong).device(step.device());
  const auto index = at::arange(static_cast<std::int64_t>(HarmonicVacuum::waves), options);
  const auto component = at::arange(shape.d_state, options);
  const auto zero = at::zeros({1, 1}, options);
  const auto [along_x, along_y, along_time, phase] =
      philox({index.unsqueeze(1), component.unsqueeze(0), zero, zero + std::int64_t{stream::vacuum}}, seed);
  const auto columns = along_x.unsqueeze(2) * at::arange(shape.width, options);
  const auto rows =
      along_y.unsqueeze(2) * at::arange(shape.height, options) + (along_time * step + phase).unsqueeze(2);
  at::Tensor re, im;
  for (std::size_t k = 0; k < HarmonicVacuum::waves; ++k) {
    const auto wave = static_cast<std::int64_t>(k);
    const auto across = angle_of(columns.select(0, wave)).unsqueeze(1);
    const auto down = angle_of(rows.select(0, wave)).unsqueeze(2);
    const auto wave_re = across.cos() * down.cos() - across.sin() * down.sin();
    const auto wave_im = across.cos() * down.sin() + across.sin() * down.cos();
    re = re.defined() ? re + wave_re : wave_re;
    im = im.defined() ? im + wave_im : wave_im;
  }
  const auto scale = HarmonicVacuum::scale(level, shape.d_state);
  return (at::cat({re, im}) * scale).to(at::kFloat).unsqueeze(0);
}

at::Tensor with_vacuum(const at::Tensor& psi, const at::Tensor& vacuum) {
  return at::where(occupied(psi).unsqueeze(1), psi, vacuum);
}

at::Tensor where_near_matter(const at::Tensor& delta, const at::Tensor& psi, const Physics& physics) {
  const auto reach = physics.harmonic.reach;
  const bool torus = physics.boundary == Boundary::torus;
  const auto near = any_along(any_along(occupied(psi).unsqueeze(1), 2, reach, torus), 3, reach, torus);
  return delta.masked_fill(near.logical_not(), 0.0);
}

}  // namespace atheria
