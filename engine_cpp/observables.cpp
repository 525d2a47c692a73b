#include "observables.hpp"

#include <cmath>
#include <complex>
#include <numbers>

#include "field.hpp"

namespace atheria {
namespace {

// Below this share of the energy, a circular moment is rounding: the matter has no centre on that axis.
constexpr double no_centre = 1e-9;

// The mean position along one axis of length `size`, given the energy in each row of that axis.
double mean_position(const std::vector<double>& energy, bool circular) {
  const auto size = static_cast<double>(energy.size());
  std::complex<double> moment = 0;
  double mean = 0;
  double total = 0;
  for (std::size_t i = 0; i < energy.size(); ++i) {
    const auto position = static_cast<double>(i);
    moment += energy[i] * std::polar(1.0, 2 * std::numbers::pi * position / size);
    mean += energy[i] * position;
    total += energy[i];
  }
  if (!circular) return mean / total;
  if (std::abs(moment) < no_centre * total) return size / 2;
  const double position = std::arg(moment) / (2 * std::numbers::pi) * size;
  const double wrapped = position < 0 ? position + size : position;
  return wrapped < size ? wrapped : 0.0;  // a tiny negative position rounds up to size
}

// sum of energy * distance^2 from the centre along one axis.
double second_moment(const std::vector<double>& energy, double centre, bool circular) {
  const auto size = static_cast<double>(energy.size());
  double moment = 0;
  for (std::size_t i = 0; i < energy.size(); ++i) {
    double distance = static_cast<double>(i) - centre;
    if (circular) distance = std::remainder(distance, size);
    moment += energy[i] * distance * distance;
  }
  return moment;
}

Observables observe_one(const double* rho, std::int64_t height, std::int64_t width, bool torus) {
  std::vector<double> by_x(static_cast<std::size_t>(width));
  std::vector<double> by_y(static_cast<std::size_t>(height));
  Observables result;
  std::int64_t occupied = 0;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const double energy = rho[y * width + x];
      by_x[static_cast<std::size_t>(x)] += energy;
      by_y[static_cast<std::size_t>(y)] += energy;
      result.energy += energy;
      occupied += energy > 0 ? 1 : 0;
    }
  }
  result.occupancy = static_cast<double>(occupied) / static_cast<double>(height * width);
  if (occupied == 0) return result;
  for (std::int64_t cell = 0; cell < height * width; ++cell) {
    const double p = rho[cell] / result.energy;
    if (p > 0) result.position_entropy -= p * std::log(p);
    result.ipr += p * p;
  }
  result.centre_x = mean_position(by_x, torus);
  result.centre_y = mean_position(by_y, torus);
  const double moment =
      second_moment(by_x, result.centre_x, torus) + second_moment(by_y, result.centre_y, torus);
  result.radius_of_gyration = std::sqrt(moment / result.energy);
  return result;
}

}  // namespace

std::vector<Observables> observe(const at::Tensor& psi, bool torus) {
  const auto rho = psi.to(at::kCPU, at::kDouble).square().sum(1).contiguous();
  std::vector<Observables> results;
  for (std::int64_t universe = 0; universe < rho.size(0); ++universe) {
    const auto* cells = rho.data_ptr<double>() + universe * rho.stride(0);
    results.push_back(observe_one(cells, rho.size(1), rho.size(2), torus));
  }
  return results;
}

}  // namespace atheria
