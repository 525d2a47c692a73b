// A whole step of a grid by libtorch, recorded once and replayed: what a device, which is told kernel by
// kernel what to do, would otherwise wait for.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "law.hpp"
#include "noise.hpp"
#include "physics.hpp"

namespace atheria {

class RecordedStep {
 public:
  struct State {
    at::Tensor psi, memory, reference_energy;  // memory: undefined where the law has none
    std::int64_t step;
  };
  struct Rules {
    Physics physics;
    Noise noise;
    std::uint64_t seed;
    bool operator==(const Rules&) const = default;
  };
  struct Stepped {
    at::Tensor psi, before_noise, memory;
    double sum;  // of psi: not finite where a number of it is not
  };

  explicit RecordedStep(Recorder recorder) : recorder_(std::move(recorder)) {}

  // Records anew where the size of the universe or the rules are others than before. The law is always the
  // one that owns this.
  Stepped step(Law& law, const State& state, const Rules& rules);

  const std::string& how() const { return how_; }

 private:
  struct Outputs {
    at::Tensor psi, before_noise, memory, sum;
  };

  void record(Law& law, const State& state, const Rules& rules);
  Outputs compute(Law& law) const;

  Recorder recorder_;
  std::string how_ = "its first step will be recorded";
  std::optional<Rules> rules_;  // none before the first recording

  // What a replay reads and writes, always in the same places.
  at::Tensor psi_, memory_, reference_energy_, step_;
  Outputs outputs_;
  std::function<void()> replay_;
};

}  // namespace atheria
