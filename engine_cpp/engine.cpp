#include "engine.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <regex>
#include <stdexcept>
#include <string>
#include <thread>

#include "grid.hpp"
#include "parallel.hpp"
#include "philox.hpp"
#include "unbounded.hpp"

namespace atheria {
namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

at::Device parse_device(const std::string& name) {
  require(std::regex_match(name, std::regex("cpu|cuda(:(0|[1-9][0-9]?))?")),
          "`device` must be cpu, cuda or cuda:N, got '" + name + "'");
  const at::Device device(name);
  if (device.is_cpu()) return device;
  const auto count = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  require(count > 0, "`device`=" + name +
                         ": libtorch finds no CUDA device; torch must be a build for CUDA, and "
                         "nvidia-smi must show one; or leave `device` cpu");
  require(device.index() < count, "`device`=" + name + ": there are " + std::to_string(count) +
                                      " CUDA devices, cuda:0 to cuda:" + std::to_string(count - 1));
  return device;
}

static_assert(2 * stream::most_components == most_channels);

void check_components(std::int64_t d_state) {
  require(d_state >= 1 && d_state <= stream::most_components, "`d_state` must be 1 to " +
                                                                  std::to_string(stream::most_components) +
                                                                  ", got " + std::to_string(d_state));
}

// What records the steps: none on the CPU but where one is given.
Recorder recorder_for(const at::Device& device, Recorder given) {
  if (given || device.is_cpu()) return given;
  return [](const std::function<void()>& step) { return Recording{step, "kernels are launched one by one"}; };
}

// What every method that computes does for its time.
struct Computing {
  explicit Computing(int threads) : number(threads) {}
  const c10::InferenceMode inference;
  const ThreadNumber number;
};

constexpr std::int64_t largest_side = 65536;

constexpr Size usual_extent{64, 64};

// How far from matter a law may make something of the harmonic vacuum.
std::int64_t reach_of(const Law& law, std::optional<std::int64_t> described) {
  const auto reach = described ? described : law.receptive_radius();
  require(reach && !law.has_memory(),
          "`harmonic` needs a local law without memory: what vacuum does counts only within the law's radius "
          "of matter. Train with model.norm=pixel, or leave it 0");
  return *reach;
}

// Unbounded universes that start as a grid of the size `extent` does.
std::unique_ptr<Unbounded> make_unbounded(const InitialState& initial, const Shape& extent,
                                          std::uint64_t seed) {
  // Words of 32 bits place particles; the other kinds visit every cell.
  const auto largest = initial.kind == "particles" ? std::int64_t{1} << 31 : largest_side;
  require(extent.height >= 1 && extent.width >= 1 && extent.height <= largest && extent.width <= largest,
          "`extent` must be 1 to " + std::to_string(largest) + " a side for " + initial.kind + ", got " +
              std::to_string(extent.height) + " x " + std::to_string(extent.width));
  auto made = std::make_unique<Unbounded>(extent.universes, extent.d_state);
  for (std::int64_t universe = 0; universe < extent.universes; ++universe) {
    made->start(initial, extent, seed, universe);
  }
  return made;
}

}  // namespace

Engine::Engine(std::optional<std::int64_t> d_state, const std::string& device, int threads,
               const std::string& precision, const std::string& backend, Recorder recorder)
    : wanted_d_state_(d_state),
      device_(parse_device(device)),
      precision_(precision == "bf16" ? Precision::bf16 : Precision::fp32),
      backend_(parse_backend(backend)),
      threads_(threads),
      recorder_(recorder_for(device_, std::move(recorder))) {
  if (d_state) check_components(*d_state);
  const auto most_threads = 4 * static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  require(threads >= 0 && threads <= most_threads, "`threads` must be 0 (libtorch's number) to " +
                                                       std::to_string(most_threads) + ", got " +
                                                       std::to_string(threads));
  require(precision == "fp32" || precision == "bf16",
          "`precision` must be fp32 or bf16, got '" + precision + "'");
  require(precision == "fp32" || device_.is_cpu(),
          "`precision` bf16 is of kernels that run on the CPU alone; leave it fp32 on " + device_.str());
  require(backend_ != Backend::compiled || device_.is_cpu(),
          "`backend` compiled has kernels for the CPU alone; leave it out on " + device_.str());
  require(precision == "fp32" || backend_ != Backend::torchscript,
          "`precision` bf16 is of our own kernels, which `backend` torchscript leaves out; leave one of them "
          "out");
  require(precision == "fp32" || kernels().multiply_pairs != nullptr,
          "`precision` bf16 needs a CPU with AVX512_BF16; this one has " + std::string(kernels().name));
}

void Engine::load_model(const std::string& path, const Description& description, const Physics& physics) {
  physics.check();
  const auto d_state = description.d_state;
  require(d_state || wanted_d_state_,
          "'" + path + "' does not say its `d_state`; give it: Engine(d_state=...)");
  require(!d_state || !wanted_d_state_ || *d_state == *wanted_d_state_,
          "the law has `d_state`=" + std::to_string(d_state.value_or(0)) + ", the engine was made with " +
              std::to_string(wanted_d_state_.value_or(0)) + "; leave it out: Engine()");
  const auto components = d_state ? *d_state : *wanted_d_state_;
  check_components(components);
  const ThreadNumber threads(threads_);
  auto law =
      load_law(path, components, device_, {backend_, precision_, description.receptive_radius, recorder_});
  auto own_physics = physics;
  if (physics.harmonic.level > 0) own_physics.harmonic.reach = reach_of(*law, description.receptive_radius);
  const c10::InferenceMode inference;
  auto start = universe_ ? universe_->restarted(*law, components, own_physics) : nullptr;
  law_ = std::move(law);
  d_state_ = components;
  physics_ = std::move(own_physics);
  training_grid_ = description.training_grid;
  universe_ = std::move(start);
}

Law& Engine::law() const {
  if (!law_)
    throw std::runtime_error("the engine has no law; call load_model(path) or Engine.from_run(run_id)");
  return *law_;
}

const Universe& Engine::universe() const {
  if (!universe_) {
    throw std::runtime_error("the engine has no state; call set_state(array) or reset(kind, seed, grid)");
  }
  return *universe_;
}

std::int64_t Engine::d_state() const {
  law();
  return d_state_;
}

void Engine::set_state(const at::Tensor& psi) {
  const Computing computing(threads_);
  require(psi.size(1) == 2 * d_state(), "`state` must have 2*`d_state` = " + std::to_string(2 * d_state_) +
                                            " channels, got " + std::to_string(psi.size(1)));
  require(psi.size(0) > 0, "`state` must hold at least one universe, got an empty batch");
  universe_ = std::make_unique<Grid>(psi.to(device_), law());
}

void Engine::reset(const InitialState& initial, std::uint64_t seed, std::optional<Size> grid,
                   std::int64_t universes, std::optional<Size> extent) {
  initial.check();
  const Shape shape{universes, d_state(), grid.value_or(usual_extent).height,
                    grid.value_or(usual_extent).width};
  require(universes >= 1, "`universes` must be at least 1, got " + std::to_string(universes));
  require(!grid || !extent, "`extent` is where unbounded universes start; a grid starts on all of it");
  require(universes <= stream::most_universes, "`universes` must be at most " +
                                                   std::to_string(stream::most_universes) + ", got " +
                                                   std::to_string(universes));
  require(
      shape.height >= 1 && shape.width >= 1 && shape.height <= largest_side && shape.width <= largest_side,
      "`grid` must be 1 to " + std::to_string(largest_side) + " a side, got " + std::to_string(shape.height) +
          " x " + std::to_string(shape.width));
  const Computing computing(threads_);
  if (grid) {
    universe_ = std::make_unique<Grid>(initial.make(shape, seed).to(device_), law());
  } else {
    check_unbounded(device_);
    check_unbounded(law(), physics_);
    const auto [height, width] = extent.value_or(training_grid_.value_or(usual_extent));
    universe_ = make_unbounded(initial, {universes, d_state_, height, width}, seed);
  }
  seed_ = seed;
}

void Engine::set_cells(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) {
  const Computing computing(threads_);
  require(psi.size(1) == 2 * d_state(), "`amplitudes` must have `d_state` = " + std::to_string(d_state_) +
                                            " components a cell, got " + std::to_string(psi.size(1) / 2));
  check_unbounded(device_);
  check_unbounded(law(), physics_);
  std::unique_ptr<Unbounded> start;
  if (const auto* const others = dynamic_cast<const Unbounded*>(universe_.get())) {
    check_universe(universe);
    start = others->anew();
  } else {
    require(universe == 0, "`universe` must be 0 where the engine has no unbounded universes yet, got " +
                               std::to_string(universe) + "; for many: reset('zeros', seed, universes=...)");
    start = std::make_unique<Unbounded>(1, d_state_);
  }
  start->set_cells(coordinates, psi, universe);
  universe_ = std::move(start);
}

void Engine::set_noise(Noise noise) {
  noise.check();
  noise_ = std::move(noise);
}

void Engine::check_universe(std::int64_t universe) const {
  const auto universes = this->universe().universes();
  require(universe >= 0 && universe < universes,
          "`universe` must be 0 to " + std::to_string(universes - 1) + ", got " + std::to_string(universe));
}

void Engine::add_particles(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) {
  const Computing computing(threads_);
  check_universe(universe);
  require(psi.size(1) == 2 * d_state_, "`amplitudes` must have `d_state` = " + std::to_string(d_state_) +
                                           " components, got " + std::to_string(psi.size(1) / 2));
  require(at::isfinite(psi).all().item<bool>(), "`amplitudes` must be finite");
  universe_->put(coordinates, psi, universe);
}

std::int64_t Engine::step(std::int64_t steps, const BetweenSteps& between_steps) {
  require(steps >= 0, "`steps` must be at least 0, got " + std::to_string(steps));
  const Computing computing(threads_);
  universe();
  for (auto left = steps; left > 0;) {
    const auto before = universe_->step_count();
    universe_->step(law(), physics_, noise_, seed_, left);
    left -= universe_->step_count() - before;
    between_steps();
  }
  return universe_->occupied_cells();
}

// Whether the field stays finite; throws where it does not and may not blow up.
bool Engine::try_step(std::int64_t most, bool may_blow_up) {
  try {
    universe_->step(law(), physics_, noise_, seed_, most);
    return true;
  } catch (const std::overflow_error&) {
    if (!may_blow_up) throw;
    return false;
  }
}

std::vector<Observation> Engine::rollout(std::int64_t steps, std::int64_t observe_every, const Stop& stop,
                                         const BetweenSteps& between_steps) {
  require(steps >= 0, "`steps` must be at least 0, got " + std::to_string(steps));
  require(observe_every >= 1, "`observe_every` must be at least 1, got " + std::to_string(observe_every));
  require(!stop.fixed_point || (physics_.fire_rate == 1 && physics_.harmonic.level == 0 && noise_.is_off()),
          "`stop` fixed_point needs a step without chance or waves: `fire_rate` 1, `harmonic` 0, no noise");
  const Computing computing(threads_);
  const auto start = universe().step_count();
  std::vector<Observation> observations{{start, observables()}};
  if (stop.extinction && universe_->occupied_cells() == 0) return observations;
  for (std::int64_t done = 0; done < steps;) {
    const auto before = stop.fixed_point ? universe_->copy() : nullptr;
    const auto unseen = std::min(steps - done, observe_every - done % observe_every);
    const bool blew_up = !try_step(stop.fixed_point || stop.extinction ? 1 : unseen, stop.blow_up);
    between_steps();
    done = universe_->step_count() - start;
    const bool ends = done == steps || blew_up || (stop.extinction && universe_->occupied_cells() == 0) ||
                      (before && universe_->is_same_state(*before));
    const bool is_seen = observations.back().step == universe_->step_count();
    if (!is_seen && (ends || done % observe_every == 0)) {
      observations.push_back({universe_->step_count(), observables()});
    }
    if (ends) break;
  }
  return observations;
}

std::vector<Engine::PartOfStep> Engine::profile(std::int64_t steps, const BetweenSteps& between_steps) {
  require(steps >= 1, "`steps` must be at least 1, got " + std::to_string(steps));
  auto* const profile = law().profile();
  require(profile != nullptr, "`profile` tells the parts of compiled laws apart; this one runs on " +
                                  law().backend() + ": " + law().why());
  require(universe().kind() == "grid",
          "`profile` is of steps on a grid; call set_state(array) or "
          "reset(kind, seed, grid)");
  using Seconds = std::chrono::duration<double>;
  const auto began = std::chrono::steady_clock::now();
  {
    const Profile::Taking taking(*profile);
    step(steps, between_steps);
  }
  const auto all = static_cast<double>(steps);
  auto rest = Seconds(std::chrono::steady_clock::now() - began).count() / all;
  const auto cells = static_cast<double>(universe().evaluated_cells(law()));
  std::vector<PartOfStep> parts;
  for (const auto& part : profile->parts()) {
    if (part.what.empty()) continue;
    const auto seconds = Seconds(part.time).count() / all;
    rest -= seconds;
    parts.push_back({part.what, seconds, cells * part.operations_per_cell});
  }
  parts.push_back({"between the parts: hand-over, waiting", rest, 0});
  return parts;
}

Engine::Snapshot Engine::Snapshot::of(const std::string& kind, const Parts& parts, const Noise& noise,
                                      std::uint64_t seed) {
  noise.check();
  require(parts.step_count >= 0, "the snapshot's `step_count` must not be negative; it is damaged");
  if (kind == "grid") return {Grid::of(parts), noise, seed};
  require(kind == "unbounded", "the snapshot must be of a grid or an unbounded universe, got '" + kind + "'");
  return {Unbounded::of(parts), noise, seed};
}

void Engine::restore(const Snapshot& snapshot) {
  const Computing computing(threads_);
  require(snapshot.universe->suits(law(), d_state(), physics_),
          "the snapshot is of a law with another `d_state`, `stride` or memory; load that law first");
  universe_ = snapshot.universe->moved(device_);
  noise_ = snapshot.noise;
  seed_ = snapshot.seed;
}

std::vector<Observables> Engine::observables() const {
  const Computing computing(threads_);
  return universe().observables(torus());
}

at::Tensor Engine::window(const Window& window, std::int64_t universe) const {
  check_universe(universe);
  const auto [x, y, width, height] = window;
  require(width >= 1 && height >= 1, "`width` and `height` must be at least 1, got " + std::to_string(width) +
                                         " and " + std::to_string(height));
  check_within_reach(x, y);
  require(width <= largest_side && height <= largest_side,
          "`width` and `height` must be at most " + std::to_string(largest_side) + ", got " +
              std::to_string(width) + " and " + std::to_string(height));
  const Computing computing(threads_);
  return universe_->window(window, universe, torus());
}

std::pair<at::Tensor, at::Tensor> Engine::cells(std::int64_t universe, bool before_noise) const {
  check_universe(universe);
  const Computing computing(threads_);
  return universe_->cells(universe, before_noise);
}

Info Engine::info() const {
  auto& law = this->law();
  auto backend = law.backend();
  auto why = law.why();
  const auto kind = universe_ ? universe_->kind() : "";
  const auto radius = law.receptive_radius();
  if (kind == "unbounded" && radius.value_or(0) > largest_worthwhile_radius) {
    why += "; its radius of " + std::to_string(*radius) +
           " cells is so large that mostly vacuum is evaluated: a grid is faster unless matter is rare";
  }
  if (kind == "grid") {
    const c10::InferenceMode inference;
    if (auto why_not = law.why_not(universe_->psi(false)); !why_not.empty()) {
      backend = "torchscript";
      why = "not compiled: " + why_not;
    }
  }
  return {.backend = backend,
          .why = why,
          .device = device_.str(),
          .precision = precision_ == Precision::bf16 ? "bf16" : "fp32",
          .threads = threads_ > 0 ? threads_ : at::get_num_threads(),
          .d_state = d_state_,
          .stride = law.stride(),
          .has_memory = law.has_memory(),
          .receptive_radius = radius,
          .vacuum_stable = law.vacuum_norm() <= physics_.epsilon,
          .physics = physics_,
          .noise = noise_,
          .universe = kind,
          .evaluated_cells = universe_ ? universe_->evaluated_cells(law) : 0};
}

}  // namespace atheria
