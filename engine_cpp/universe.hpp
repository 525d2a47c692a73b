// Where a law acts: fields on a grid, or unbounded ones. What an engine steps.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "law.hpp"
#include "noise.hpp"
#include "observables.hpp"
#include "physics.hpp"

namespace atheria {

// Cells of a universe from (x, y) on.
struct Window {
  std::int64_t x, y, width, height;
};

// What a universe is, to be kept elsewhere: arrays on the CPU, float32 or int64, by name.
struct Parts {
  std::int64_t step_count = 0;
  std::vector<std::pair<std::string, at::Tensor>> arrays{};

  // Undefined where there is none of that name.
  at::Tensor find(const std::string& name) const {
    for (const auto& [own, array] : arrays) {
      if (own == name) return array;
    }
    return {};
  }

  // Throws std::invalid_argument where there is none of that name, type and number of axes.
  at::Tensor get(const std::string& name, at::ScalarType type, std::int64_t axes) const {
    auto array = find(name);
    if (!array.defined() || array.scalar_type() != type || array.dim() != axes) {
      throw std::invalid_argument("the snapshot has no `" + name + "` of " + std::to_string(axes) +
                                  " axes; it is damaged");
    }
    return array;
  }
};

class Universe {
 public:
  virtual ~Universe() = default;
  virtual std::unique_ptr<Universe> copy() const = 0;

  // A copy whose fields lie on a device. Throws std::invalid_argument where such a universe cannot be there.
  virtual std::unique_ptr<Universe> moved(const at::Device& device) const = 0;
  virtual std::string kind() const = 0;  // grid | unbounded
  virtual Parts parts() const = 0;       // what makes an equal one, of its kind's `of`

  // One step, or as many at once as are worth it, at most `most`: step_count() says where it is, and is the
  // counter of the randomness. Throws std::overflow_error and leaves the state as it was when the field stops
  // being finite.
  virtual void step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed,
                    std::int64_t most) = 0;
  virtual std::int64_t step_count() const = 0;

  virtual std::int64_t universes() const = 0;
  virtual std::int64_t occupied_cells() const = 0;                     // of all universes
  virtual std::int64_t evaluated_cells(const Law& law) const = 0;      // in the last step, else the next one
  virtual bool is_same_state(const Universe& other) const = 0;         // of the same kind, memory included
  virtual std::vector<Observables> observables(bool torus) const = 0;  // before noise

  // Whether a law can take over, with all that is remembered.
  virtual bool suits(Law& law, std::int64_t d_state, const Physics& physics) const = 0;

  // The field as the start of a universe under another law; null where it does not suit that one.
  virtual std::unique_ptr<Universe> restarted(Law& law, std::int64_t d_state,
                                              const Physics& physics) const = 0;

  // before_noise: what is measured, the field before the noise of the last step.
  // The whole field, (B, 2d, H, W). Throws std::runtime_error where there is no such array.
  virtual at::Tensor psi(bool before_noise) const = 0;

  // (2d, height, width) on the CPU: wrapped on a torus, vacuum outside otherwise.
  virtual at::Tensor window(const Window& window, std::int64_t universe, bool torus) const = 0;

  // The occupied cells, row by row: coordinates (n, 2) as (x, y), and field (2d, n), on the CPU.
  virtual std::pair<at::Tensor, at::Tensor> cells(std::int64_t universe, bool before_noise) const = 0;

  // Changes cells by hand: the energy that `global` normalisation restores is fixed anew.
  // coordinates: (n, 2) int64 as (x, y); psi: (n, 2d) float32, finite; both contiguous, on the CPU.
  virtual void put(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) = 0;

 protected:
  Universe() = default;
  Universe(const Universe&) = default;
  Universe(Universe&&) = default;
  Universe& operator=(const Universe&) = default;
  Universe& operator=(Universe&&) = default;
};

// How far from the origin matter and windows may lie: coordinates are of 64 bits, and differences of them.
inline constexpr auto furthest = std::int64_t{1} << 62;

inline void check_within_reach(std::int64_t x, std::int64_t y) {
  if (x > -furthest && x < furthest && y > -furthest && y < furthest) return;
  throw std::invalid_argument("`x` and `y` must lie within 2^62 of the origin, got x=" + std::to_string(x) +
                              ", y=" + std::to_string(y));
}

[[noreturn]] inline void throw_not_finite(std::int64_t step, Normalise normalise) {
  throw std::overflow_error(
      "the field stopped being finite at step " + std::to_string(step) + "; the state before it is kept. " +
      (normalise == Normalise::none
           ? "Normalise, or raise `gamma`"
           : "Norms whose squares are beyond float32 cannot be normalised: the law makes "
             "too much of this field"));
}

}  // namespace atheria
