#include "initial_state.hpp"

#include <cmath>
#include <complex>
#include <stdexcept>
#include <vector>

#include "philox.hpp"
#include "text.hpp"

namespace atheria {
namespace {

using Amplitudes = std::vector<std::complex<double>>;

// The first stream chooses where matter is, the ones after it which state it is in.
constexpr std::uint32_t place_stream = stream::initial_state;
constexpr std::uint32_t state_stream = stream::initial_state + 1;

// A uniformly random pure state of norm 1, drawn for counter (x, y).
Amplitudes random_state(std::int64_t d_state, std::uint64_t seed, std::int64_t x, std::int64_t y,
                        std::int64_t universe) {
  Draws draws(seed, x, y, 0, universe, state_stream);
  Amplitudes state(static_cast<std::size_t>(d_state));
  double energy = 0;
  for (auto& component : state) {
    const auto radius = draws.next();
    component = complex_normal(radius, draws.next());
    energy += std::norm(component);
  }
  for (auto& component : state) component /= std::sqrt(energy);
  return state;
}

std::vector<std::complex<float>> scaled(const Amplitudes& state, double scale = 1.0) {
  std::vector<std::complex<float>> result;
  for (const auto& component : state) result.emplace_back(scale * component);
  return result;
}

struct Canvas {
  const InitialState::Put& put;
  Shape shape;
  std::uint64_t seed;
  std::int64_t universe;

  Amplitudes state(std::int64_t x, std::int64_t y) const {
    return random_state(shape.d_state, seed, x, y, universe);
  }
  Draws place(std::int64_t x, std::int64_t y) const { return {seed, x, y, 0, universe, place_stream}; }
};

void soup(const Canvas& canvas, double density) {
  for (std::int64_t y = 0; y < canvas.shape.height; ++y) {
    for (std::int64_t x = 0; x < canvas.shape.width; ++x) {
      if (uniform(canvas.place(x, y).next()) < static_cast<float>(density)) {
        canvas.put(x, y, scaled(canvas.state(x, y)));
      }
    }
  }
}

void particles(const Canvas& canvas, std::int64_t count) {
  for (std::int64_t k = 0; k < count; ++k) {
    auto draws = canvas.place(k, 0);
    const auto x = below(draws.next(), canvas.shape.width);
    const auto y = below(draws.next(), canvas.shape.height);
    canvas.put(x, y, scaled(canvas.state(k, 0)));
  }
}

void gaussian(const Canvas& canvas, double width) {
  const auto state = canvas.state(0, 0);
  const auto centre_y = canvas.shape.height / 2;
  const auto centre_x = canvas.shape.width / 2;
  for (std::int64_t y = 0; y < canvas.shape.height; ++y) {
    for (std::int64_t x = 0; x < canvas.shape.width; ++x) {
      const auto dy = static_cast<double>(y - centre_y);
      const auto dx = static_cast<double>(x - centre_x);
      canvas.put(x, y, scaled(state, std::exp(-(dx * dx + dy * dy) / (4 * width * width))));
    }
  }
}

}  // namespace

void InitialState::check() const {
  if (kind != "soup" && kind != "random" && kind != "particles" && kind != "gaussian" && kind != "zeros") {
    throw std::invalid_argument(
        "`kind` of initial state must be soup, random, particles, gaussian or zeros, got '" + kind +
        "'; give any other field to set_state");
  }
  if (!(density >= 0 && density <= 1)) {
    throw std::invalid_argument("`density` must be between 0 and 1, got " + short_number(density));
  }
  if (count < 1) throw std::invalid_argument("`count` must be at least 1, got " + std::to_string(count));
  if (!(width > 0)) throw std::invalid_argument("`width` must be above 0, got " + short_number(width));
}

void InitialState::draw(const Shape& shape, std::uint64_t seed, std::int64_t universe, const Put& put) const {
  check();
  if (kind == "particles" && count > shape.cells()) {
    throw std::invalid_argument("`count` must be at most the " + std::to_string(shape.cells()) +
                                " cells of the grid, got " + std::to_string(count));
  }
  const Canvas canvas{put, shape, seed, universe};
  if (kind == "soup") soup(canvas, density);
  if (kind == "random") soup(canvas, 1.0);
  if (kind == "particles") particles(canvas, count);
  if (kind == "gaussian") gaussian(canvas, width);
}

at::Tensor InitialState::make(const Shape& shape, std::uint64_t seed) const {
  check();
  auto psi = at::zeros({shape.universes, 2 * shape.d_state, shape.height, shape.width}, at::kFloat);
  for (std::int64_t universe = 0; universe < shape.universes; ++universe) {
    draw(shape, seed, universe, [&](std::int64_t x, std::int64_t y, const auto& amplitudes) {
      const auto cell = Cell::at(psi.data_ptr<float>(), shape, universe, y, x);
      for (std::int64_t i = 0; i < cell.d_state; ++i) cell.set(i, amplitudes[static_cast<std::size_t>(i)]);
    });
  }
  return psi;
}

}  // namespace atheria
