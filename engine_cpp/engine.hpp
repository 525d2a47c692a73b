// The engine: a law, its physics and a universe, stepped natively. Knows nothing of Python.
#pragma once

#include <ATen/ATen.h>

#include <complex>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "initial_state.hpp"
#include "law.hpp"
#include "noise.hpp"
#include "observables.hpp"
#include "physics.hpp"
#include "universe.hpp"

namespace atheria {

struct Size {
  std::int64_t height, width;
};

// When a rollout ends before its last step.
struct Stop {
  bool extinction = false;   // no cell is occupied
  bool fixed_point = false;  // a step changed nothing
  bool blow_up = false;      // the field would stop being finite: it stays as it was, instead of a throw
};

struct Observation {
  std::int64_t step;
  std::vector<Observables> universes;
};

// What runs, and how.
struct Info {
  std::string backend, why, device, precision;
  int threads;
  std::int64_t d_state, stride;
  bool has_memory;
  std::optional<std::int64_t> receptive_radius;
  bool vacuum_stable;
  Physics physics;
  Noise noise;
  std::string universe;          // grid | unbounded, or empty where there is none
  std::int64_t evaluated_cells;  // per step, over all universes
};

class Engine {
 public:
  // Called between steps; may throw to stop.
  using BetweenSteps = std::function<void()>;

  // d_state: components of a cell, or none to take the artifact's. threads: 0 keeps libtorch's number.
  // recorder: of the steps on a device, or none to launch their kernels one by one; on the CPU too, for
  // tests.
  Engine(std::optional<std::int64_t> d_state, const std::string& device, int threads,
         const std::string& precision, const std::string& backend, Recorder recorder);

  // Replaces the law. A field that suits the new law stays, as the start of a universe; another is dropped.
  struct Description {
    std::optional<std::int64_t> d_state;           // none where the file does not tell, as for the others
    std::optional<std::int64_t> receptive_radius;  // none also where the law is not local
    std::optional<Size> training_grid;
  };
  void load_model(const std::string& path, const Description& description, const Physics& physics);

  void set_state(const at::Tensor& psi);

  // grid: none for unbounded universes, which start as a grid of the size `extent` does; that is none for
  // the law's training grid.
  void reset(const InitialState& initial, std::uint64_t seed, std::optional<Size> grid,
             std::int64_t universes, std::optional<Size> extent);

  // Starts anew at step 0 with these cells as an unbounded universe, beside the others of its batch where
  // the engine has one. coordinates: (n, 2) int64; psi: (n, 2d) float32.
  void set_cells(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe);
  void set_noise(Noise noise);
  void set_seed(std::uint64_t seed) { seed_ = seed; }

  // Puts amplitudes into cells, in place of what they held. coordinates: (n, 2) int64; psi: (n, 2d) float32.
  void add_particles(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe);

  // Steps at most `steps` times, then returns the number of occupied cells of all universes.
  std::int64_t step(std::int64_t steps, const BetweenSteps& between_steps);

  // Observes at once, every `observe_every` steps, and at the end.
  std::vector<Observation> rollout(std::int64_t steps, std::int64_t observe_every, const Stop& stop,
                                   const BetweenSteps& between_steps);

  // Steps `steps` times, and says where the time of a step goes, all parts in their order; last what is in
  // none of them.
  struct PartOfStep {
    std::string what;
    double seconds;
    double operations;  // multiplications and additions
  };
  std::vector<PartOfStep> profile(std::int64_t steps, const BetweenSteps& between_steps);

  // A copy of everything that a universe is. Bit for bit what restore() brings back.
  struct Snapshot {
    std::shared_ptr<const Universe> universe;
    Noise noise;
    std::uint64_t seed;

    // Of parts that were kept elsewhere. Throws std::invalid_argument where they are no universe's.
    static Snapshot of(const std::string& kind, const Parts& parts, const Noise& noise, std::uint64_t seed);
  };
  Snapshot snapshot() const { return {universe().copy(), noise_, seed_}; }
  void restore(const Snapshot& snapshot);

  // (2d, height, width) on the CPU: wrapped on a torus, vacuum outside otherwise.
  at::Tensor window(const Window& window, std::int64_t universe) const;

  // The occupied cells: coordinates (n, 2) as (x, y), and field (2d, n), on the CPU.
  std::pair<at::Tensor, at::Tensor> cells(std::int64_t universe, bool before_noise) const;

  const Universe& universe() const;
  bool has_state() const { return universe_ != nullptr; }
  std::vector<Observables> observables() const;
  std::int64_t d_state() const;
  std::uint64_t seed() const { return seed_; }
  Info info() const;

 private:
  Law& law() const;
  bool torus() const { return physics_.boundary == Boundary::torus; }
  void check_universe(std::int64_t universe) const;
  bool try_step(std::int64_t most, bool may_blow_up);

  std::optional<std::int64_t> wanted_d_state_;
  at::Device device_;
  Precision precision_;
  Backend backend_;
  int threads_;
  Recorder recorder_;
  std::unique_ptr<Law> law_;
  std::int64_t d_state_ = 0;
  Physics physics_;
  Noise noise_;
  std::uint64_t seed_ = 0;
  std::optional<Size> training_grid_;
  std::unique_ptr<Universe> universe_;
};

}  // namespace atheria
