// A dense universe: B fields on one H x W grid, stepped by any law.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

#include "field.hpp"
#include "law.hpp"
#include "noise.hpp"
#include "physics.hpp"

namespace atheria {

class Grid {
 public:
  // psi: (B, 2d, H, W) float32, finite; H and W multiples of the law's stride.
  // Throws std::invalid_argument otherwise.
  Grid(at::Tensor psi, Law& law);

  // One step; the counter of the randomness is step_count(). Throws std::overflow_error and leaves
  // the state as it was when the field stops being finite.
  void step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed);

  const at::Tensor& psi() const { return psi_; }
  const at::Tensor& before_noise() const { return before_noise_; }  // what is measured
  const at::Tensor& memory() const { return memory_; }
  Shape shape() const { return Shape::of(psi_); }
  std::int64_t step_count() const { return step_count_; }
  std::int64_t occupied_cells() const;

  // Whether field and memory equal another's.
  bool is_same_state(const Grid& other) const;

  // Changes the field by hand: the energy that `global` normalisation restores is fixed anew.
  void edit(at::Tensor psi);

 private:
  at::Tensor psi_;  // never changed in place: snapshots share it
  at::Tensor before_noise_;
  at::Tensor memory_;            // undefined where the law has none
  at::Tensor reference_energy_;  // (B, 1, 1, 1): N0 of each universe
  std::int64_t step_count_ = 0;
  std::optional<std::int64_t> occupied_;  // cells, where the last step has counted them
};

}  // namespace atheria
