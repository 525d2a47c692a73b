// Unbounded universes: finitely many cells hold matter, wherever they are, and all others are vacuum. A step
// evaluates the cells within the law's radius of matter.
#pragma once

#include <optional>

#include "evaluation.hpp"
#include "initial_state.hpp"
#include "scattered.hpp"
#include "universe.hpp"

namespace atheria {

// A radius beyond this evaluates so much vacuum that a grid is faster.
inline constexpr std::int64_t largest_worthwhile_radius = 8;

// Throws std::invalid_argument, with the reason and the remedy, where a law cannot run without bounds: it
// must be local, without memory, and leave vacuum alone.
void check_unbounded(const Law& law, const Physics& physics);

// The same where the engine runs on another device than the CPU.
void check_unbounded(const at::Device& device);

class Unbounded final : public Universe {
 public:
  // Vacuum.
  Unbounded(std::int64_t universes, std::int64_t d_state);

  // Throws std::invalid_argument where they are no unbounded universe's.
  static std::unique_ptr<Unbounded> of(const Parts& parts);

  std::unique_ptr<Universe> copy() const override;
  std::unique_ptr<Universe> moved(const at::Device& device) const override;
  std::string kind() const override { return "unbounded"; }
  Parts parts() const override;
  void step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed,
            std::int64_t most) override;
  std::int64_t step_count() const override { return step_count_; }
  std::int64_t universes() const override { return static_cast<std::int64_t>(now_.size()); }
  std::int64_t occupied_cells() const override;
  std::int64_t evaluated_cells(const Law& law) const override;
  bool is_same_state(const Universe& other) const override;
  std::vector<Observables> observables(bool torus) const override;
  bool suits(Law& law, std::int64_t d_state, const Physics& physics) const override;
  std::unique_ptr<Universe> restarted(Law& law, std::int64_t d_state, const Physics& physics) const override;
  at::Tensor psi(bool before_noise) const override;
  at::Tensor window(const Window& window, std::int64_t universe, bool torus) const override;
  std::pair<at::Tensor, at::Tensor> cells(std::int64_t universe, bool before_noise) const override;
  void put(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) override;

  // Puts cells into a universe that is vacuum, or in place of all that it holds.
  // coordinates: (n, 2) int64, (x, y) each; psi: (n, 2d) float32; both on the CPU, contiguous.
  // Throws std::invalid_argument where one is out of reach or given twice, or psi is not finite.
  void set_cells(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe);

  // Puts an initial state into a universe, as it is on a grid of that shape.
  void start(const InitialState& initial, const Shape& extent, std::uint64_t seed, std::int64_t universe);

  // The field at step 0.
  std::unique_ptr<Unbounded> anew() const;

 private:
  const std::vector<Tiles>& measured_tiles() const { return before_noise_.empty() ? now_ : before_noise_; }
  void changed_by_hand();
  bool restore_energy();
  bool apply(const Noise& noise, std::uint64_t seed);
  void drop_far_tiles();

  std::int64_t d_state_;
  std::vector<Tiles> now_;           // of each universe
  std::vector<Tiles> before_noise_;  // what is measured; none where it is the same
  std::vector<Tiles> next_;          // the step's; kept for the memory that it has
  Evaluation evaluation_;            // of the last step
  std::vector<float> reference_energy_;
  std::int64_t step_count_ = 0;
  std::optional<std::int64_t> evaluated_cells_;
};

}  // namespace atheria
