#include "physics.hpp"

#include <ATen/Parallel.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "philox.hpp"
#include "text.hpp"

namespace atheria {

Normalise parse_normalise(std::string_view name) {
  if (name == "none") return Normalise::none;
  if (name == "cell") return Normalise::cell;
  if (name == "global") return Normalise::global;
  throw std::invalid_argument("`normalise` must be none, cell or global, got '" + std::string(name) + "'");
}

std::string_view name_of(Normalise normalise) {
  switch (normalise) {
    case Normalise::none:
      return "none";
    case Normalise::cell:
      return "cell";
    case Normalise::global:
      return "global";
  }
  throw std::logic_error("Normalise has a value without a name");
}

Boundary parse_boundary(std::string_view name) {
  if (name == "torus") return Boundary::torus;
  if (name == "zeros") return Boundary::zeros;
  throw std::invalid_argument("`boundary` must be torus or zeros, got '" + std::string(name) + "'");
}

std::string_view name_of(Boundary boundary) {
  switch (boundary) {
    case Boundary::torus:
      return "torus";
    case Boundary::zeros:
      return "zeros";
  }
  throw std::logic_error("Boundary has a value without a name");
}

void Physics::check() const {
  const auto require = [](bool holds, const char* rule, double value) {
    if (!holds) throw std::invalid_argument(std::string(rule) + ", got " + short_number(value));
  };
  require(gamma >= 0 && gamma < 1, "`gamma` must be at least 0 and below 1", gamma);
  require(epsilon >= 0 && std::isfinite(epsilon), "`epsilon` must be at least 0 and finite", epsilon);
  require(harmonic.level >= 0 && std::isfinite(harmonic.level), "`harmonic` must be at least 0 and finite",
          harmonic.level);
  require(fire_rate > 0 && fire_rate <= 1, "`fire_rate` must be above 0 and at most 1", fire_rate);
}

at::Tensor fire_mask(const Shape& shape, double rate, std::uint64_t seed, std::int64_t step) {
  if (rate >= 1) return {};
  auto mask = at::empty({shape.universes, 1, shape.height, shape.width}, at::kFloat);
  auto* out = mask.data_ptr<float>();
  at::parallel_for(0, shape.universes * shape.height, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t x = 0; x < shape.width; ++x) {
        Draws draws(seed, x, row % shape.height, step, row / shape.height, stream::fire);
        out[row * shape.width + x] = is_below(draws.next(), rate) ? 1.0F : 0.0F;
      }
    }
  });
  return mask;
}

namespace {

// 1 / sqrt(energy), 0 where there is none. An energy beyond float32 gives NaN, lest an explosion pass for
// vacuum.
at::Tensor inverse_root(const at::Tensor& energy) {
  const auto root = at::where(energy > 0, energy, at::ones_like(energy)).rsqrt() * (energy > 0);
  return root.masked_fill(energy.isinf(), std::numeric_limits<float>::quiet_NaN());
}

at::Tensor normalised(const at::Tensor& phi, Normalise normalise, const at::Tensor& reference_energy) {
  switch (normalise) {
    case Normalise::none:
      return phi;
    case Normalise::cell:
      return phi * inverse_root(energy_density(phi));
    case Normalise::global:
      return phi * (inverse_root(total_energy(phi)) * reference_energy.sqrt());
  }
  throw std::logic_error("Normalise has a value without a rule");
}

}  // namespace

at::Tensor advance(const at::Tensor& psi, const at::Tensor& delta, const Physics& physics,
                   const at::Tensor& reference_energy, const at::Tensor& fires) {
  auto phi = (1 - physics.gamma) * psi + delta;
  if (fires.defined()) phi = psi + fires * (phi - psi);
  if (physics.epsilon > 0) {
    phi = phi * (energy_density(phi).sqrt() > physics.epsilon);
  }
  return normalised(phi, physics.normalise, reference_energy);
}

}  // namespace atheria
