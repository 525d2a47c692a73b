#include "recorded_step.hpp"

#include <utility>

#include "device_draws.hpp"
#include "device_noise.hpp"
#include "field.hpp"
#include "vacuum.hpp"

namespace atheria {

RecordedStep::Outputs RecordedStep::compute(Law& law) const {
  // Whoever records may have left the caller's mode, and must not round products.
  const c10::InferenceMode inference;
  const at::NoTF32Guard exact;
  const auto& [physics, noise, seed] = *rules_;
  const auto shape = Shape::of(psi_);
  const bool is_harmonic = physics.harmonic.level > 0;
  auto [delta, memory] = law.forward(
      is_harmonic ? with_vacuum(psi_, vacuum_on_device(physics.harmonic.level, shape, seed, step_)) : psi_,
      memory_);
  check_delta(delta, psi_);
  if (is_harmonic) delta = where_near_matter(delta, psi_, physics);
  at::Tensor fires;
  if (physics.fire_rate < 1) {
    DeviceDraws draws(seed, {shape.universes, shape.height, shape.width, 0}, step_, stream::fire);
    fires = (draws.uniform(1).select(0, 0) < physics.fire_rate).unsqueeze(1);
  }
  const auto quiet = advance(psi_, delta, physics, reference_energy_, fires);
  const auto noisy = apply_on_device(noise, quiet, seed, step_);
  return {noisy, quiet, std::move(memory), noisy.sum(at::kDouble)};
}

void RecordedStep::record(Law& law, const State& state, const Rules& rules) {
  rules_.reset();
  replay_ = nullptr;
  outputs_ = {};
  psi_ = state.psi.clone();
  memory_ = state.memory.defined() ? state.memory.clone() : at::Tensor();
  reference_energy_ = state.reference_energy.clone();
  step_ = at::full({}, state.step, at::TensorOptions(at::kLong).device(psi_.device()));
  rules_ = rules;
  try {
    auto recording = recorder_([this, &law] { outputs_ = compute(law); });
    replay_ = std::move(recording.replay);
    how_ = std::move(recording.how);
  } catch (...) {
    rules_.reset();
    throw;
  }
}

RecordedStep::Stepped RecordedStep::step(Law& law, const State& state, const Rules& rules) {
  if (rules_ != rules || psi_.sizes() != state.psi.sizes()) record(law, state, rules);
  psi_.copy_(state.psi);
  if (memory_.defined()) memory_.copy_(state.memory);
  reference_energy_.copy_(state.reference_energy);
  step_.fill_(state.step);
  replay_();
  const auto sum = outputs_.sum.item<double>();
  auto psi = outputs_.psi.clone();
  auto before_noise = rules.noise.is_off() ? psi : outputs_.before_noise.clone();
  return {std::move(psi), std::move(before_noise), memory_.defined() ? outputs_.memory.clone() : at::Tensor(),
          sum};
}

}  // namespace atheria
