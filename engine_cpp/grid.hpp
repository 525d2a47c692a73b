// A dense universe: B fields on one H x W grid, stepped by any law.
#pragma once

#include <optional>

#include "field.hpp"
#include "universe.hpp"

namespace atheria {

class Grid final : public Universe {
 public:
  // psi: (B, 2d, H, W) float32, finite; H and W multiples of the law's stride.
  // Throws std::invalid_argument otherwise.
  Grid(at::Tensor psi, Law& law);

  // Throws std::invalid_argument where they are no grid's.
  static std::unique_ptr<Grid> of(const Parts& parts);

  std::unique_ptr<Universe> copy() const override { return std::make_unique<Grid>(*this); }
  std::unique_ptr<Universe> moved(const at::Device& device) const override;
  std::string kind() const override { return "grid"; }
  Parts parts() const override;
  void step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed,
            std::int64_t most) override;
  std::int64_t step_count() const override { return step_count_; }
  std::int64_t universes() const override { return psi_.size(0); }
  std::int64_t occupied_cells() const override;
  std::int64_t evaluated_cells(const Law& law) const override;
  bool is_same_state(const Universe& other) const override;
  std::vector<Observables> observables(bool torus) const override { return observe(before_noise_, torus); }
  bool suits(Law& law, std::int64_t d_state, const Physics& physics) const override;
  std::unique_ptr<Universe> restarted(Law& law, std::int64_t d_state, const Physics& physics) const override;
  at::Tensor psi(bool before_noise) const override { return before_noise ? before_noise_ : psi_; }
  at::Tensor window(const Window& window, std::int64_t universe, bool torus) const override;
  std::pair<at::Tensor, at::Tensor> cells(std::int64_t universe, bool before_noise) const override;
  void put(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) override;

 private:
  Grid() = default;

  Shape shape() const { return Shape::of(psi_); }
  void edit(at::Tensor psi);
  void step_recorded(Law& law, RecordedStep& recorded, const Physics& physics, const Noise& noise,
                     std::uint64_t seed);
  bool fits(const Law& law, std::int64_t d_state) const;

  at::Tensor psi_;               // never changed in place: snapshots share it
  at::Tensor before_noise_;      // what is measured
  at::Tensor memory_;            // undefined where the law has none
  at::Tensor reference_energy_;  // (B, 1, 1, 1): N0 of each universe
  std::int64_t step_count_ = 0;
  std::optional<std::int64_t> occupied_;  // cells, where the last step has counted them
};

}  // namespace atheria
