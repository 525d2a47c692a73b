#include "engine.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <thread>

#include "philox.hpp"

namespace atheria {
namespace {

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  throw std::invalid_argument("`device` must be cpu, got '" + name + "'");
}

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

constexpr std::int64_t largest_side = 65536;

bool fits(const Shape& shape, std::int64_t d_state, const Law& law) {
  return shape.d_state == d_state && shape.height % law.stride() == 0 && shape.width % law.stride() == 0;
}

// Cells first..first+count-1 along an axis of `size`: wrapped on a torus, -1 where outside otherwise.
at::Tensor window_index(std::int64_t first, std::int64_t count, std::int64_t size, bool torus) {
  const auto index = at::arange(first, first + count, at::kLong);
  if (torus) return index.remainder(size);
  return at::where((index >= 0).logical_and(index < size), index, at::full_like(index, -1));
}

}  // namespace

Engine::Engine(std::optional<std::int64_t> d_state, const std::string& device, int threads,
               const std::string& precision, const std::string& backend)
    : wanted_d_state_(d_state),
      device_(parse_device(device)),
      precision_(precision == "bf16" ? Precision::bf16 : Precision::fp32),
      backend_(parse_backend(backend)) {
  require(!d_state || (*d_state >= 1 && *d_state <= stream::most_components),
          "`d_state` must be 1 to " + std::to_string(stream::most_components) + ", got " +
              std::to_string(d_state.value_or(0)));
  const auto most_threads = 4 * static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  require(threads >= 0 && threads <= most_threads, "`threads` must be 0 (libtorch's number) to " +
                                                       std::to_string(most_threads) + ", got " +
                                                       std::to_string(threads));
  require(precision == "fp32" || precision == "bf16", "`precision` must be fp32 or bf16, got '" + precision + "'");
  require(precision == "fp32" || kernels().multiply_pairs != nullptr,
          "`precision` bf16 needs a CPU with AVX512_BF16; this one has " + std::string(kernels().name));
  if (threads > 0) at::set_num_threads(threads);
}

void Engine::load_model(const std::string& path, std::optional<std::int64_t> d_state,
                        const Physics& physics) {
  physics.check();
  require(d_state || wanted_d_state_,
          "'" + path + "' does not say its `d_state`; give it: Engine(d_state=...)");
  require(!d_state || !wanted_d_state_ || *d_state == *wanted_d_state_,
          "the law has `d_state`=" + std::to_string(d_state.value_or(0)) + ", the engine was made with " +
              std::to_string(wanted_d_state_.value_or(0)) + "; leave it out: Engine()");
  const auto components = d_state ? *d_state : *wanted_d_state_;
  auto law = load_law(path, components, device_, backend_, precision_);
  const c10::InferenceMode inference;
  std::optional<Grid> grid;
  if (grid_ && fits(grid_->shape(), components, *law)) grid = Grid(grid_->psi(), *law);
  law_ = std::move(law);
  d_state_ = components;
  physics_ = physics;
  grid_ = std::move(grid);
}

Law& Engine::law() const {
  if (!law_)
    throw std::runtime_error("the engine has no law; call load_model(path) or Engine.from_run(run_id)");
  return *law_;
}

const Grid& Engine::grid() const {
  if (!grid_) {
    throw std::runtime_error("the engine has no state; call set_state(array) or reset(kind, seed, grid)");
  }
  return *grid_;
}

std::int64_t Engine::d_state() const {
  law();
  return d_state_;
}

void Engine::set_state(const at::Tensor& psi) {
  const c10::InferenceMode inference;
  require(psi.size(1) == 2 * d_state(), "`state` must have 2*`d_state` = " + std::to_string(2 * d_state_) +
                                            " channels, got " + std::to_string(psi.size(1)));
  require(psi.size(0) > 0, "`state` must hold at least one universe, got an empty batch");
  grid_ = Grid(psi.to(device_), law());
}

void Engine::reset(const InitialState& initial, std::uint64_t seed, std::optional<Size> grid,
                   std::int64_t universes) {
  require(grid.has_value(),
          "`grid` must be (height, width); an unbounded universe (None) needs the `compiled` backend");
  require(universes >= 1, "`universes` must be at least 1, got " + std::to_string(universes));
  require(grid->height >= 1 && grid->width >= 1, "`grid` must be positive");
  const c10::InferenceMode inference;
  const Shape shape{universes, d_state(), grid->height, grid->width};
  require(universes <= stream::most_universes && shape.height <= largest_side && shape.width <= largest_side,
          "`grid` must be at most " + std::to_string(largest_side) + " a side and `universes` at most " +
              std::to_string(stream::most_universes));
  grid_ = Grid(initial.make(shape, seed).to(device_), law());
  seed_ = seed;
}

void Engine::set_noise(Noise noise) {
  noise.check();
  noise_ = std::move(noise);
}

void Engine::check_universe(std::int64_t universe) const {
  const auto universes = grid().shape().universes;
  require(universe >= 0 && universe < universes,
          "`universe` must be 0 to " + std::to_string(universes - 1) + ", got " + std::to_string(universe));
}

void Engine::add_particle(std::int64_t x, std::int64_t y, const std::vector<std::complex<float>>& amplitudes,
                          std::int64_t universe) {
  check_universe(universe);
  const auto shape = grid_->shape();
  require(x >= 0 && x < shape.width && y >= 0 && y < shape.height,
          "`x`, `y` must lie on the grid of " + std::to_string(shape.height) + " x " +
              std::to_string(shape.width) + ", got x=" + std::to_string(x) + ", y=" + std::to_string(y));
  require(static_cast<std::int64_t>(amplitudes.size()) == shape.d_state,
          "`amplitudes` must have `d_state` = " + std::to_string(shape.d_state) + " components, got " +
              std::to_string(amplitudes.size()));
  const c10::InferenceMode inference;
  auto psi = grid_->psi().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const auto cell = Cell::at(psi.data_ptr<float>(), shape, universe, y, x);
  for (std::int64_t i = 0; i < shape.d_state; ++i) {
    cell.set(i, amplitudes[static_cast<std::size_t>(i)]);
  }
  grid_->edit(psi.to(device_));
}

std::int64_t Engine::step(std::int64_t steps, const BetweenSteps& between_steps) {
  require(steps >= 0, "`steps` must be at least 0, got " + std::to_string(steps));
  const c10::InferenceMode inference;
  grid();
  for (std::int64_t i = 0; i < steps; ++i) {
    grid_->step(law(), physics_, noise_, seed_);
    between_steps();
  }
  return grid_->occupied_cells();
}

std::vector<Observation> Engine::rollout(std::int64_t steps, std::int64_t observe_every, const Stop& stop,
                                         const BetweenSteps& between_steps) {
  require(steps >= 0, "`steps` must be at least 0, got " + std::to_string(steps));
  require(observe_every >= 1, "`observe_every` must be at least 1, got " + std::to_string(observe_every));
  require(!stop.fixed_point || (physics_.fire_rate == 1 && (noise_.name == "none" || noise_.level == 0)),
          "`stop` fixed_point needs a step without chance: `fire_rate` 1 and no noise");
  const c10::InferenceMode inference;
  std::vector<Observation> observations{{grid().step_count(), observables()}};
  for (std::int64_t i = 1; i <= steps; ++i) {
    const auto before = *grid_;
    grid_->step(law(), physics_, noise_, seed_);
    between_steps();
    const bool ends = i == steps || (stop.extinction && grid_->occupied_cells() == 0) ||
                      (stop.fixed_point && grid_->is_same_state(before));
    if (ends || i % observe_every == 0) observations.push_back({grid_->step_count(), observables()});
    if (ends) break;
  }
  return observations;
}

void Engine::restore(const Snapshot& snapshot) {
  const auto shape = snapshot.grid.shape();
  const c10::InferenceMode inference;
  const auto memory = law().initial_memory(shape.universes, shape.height, shape.width);
  const bool same_memory = memory.defined() == snapshot.grid.memory().defined() &&
                           (!memory.defined() || memory.sizes() == snapshot.grid.memory().sizes());
  require(fits(shape, d_state(), law()) && same_memory,
          "the snapshot is of a law with another `d_state`, `stride` or memory; load that law first");
  grid_ = snapshot.grid;
  noise_ = snapshot.noise;
  seed_ = snapshot.seed;
}

std::vector<Observables> Engine::observables() const {
  const c10::InferenceMode inference;
  return observe(grid().before_noise(), torus());
}

at::Tensor Engine::window(std::int64_t x, std::int64_t y, std::int64_t width, std::int64_t height,
                          std::int64_t universe) const {
  check_universe(universe);
  require(width >= 1 && height >= 1, "`width` and `height` must be at least 1, got " + std::to_string(width) +
                                         " and " + std::to_string(height));
  constexpr auto furthest = std::int64_t{1} << 62;
  require(x > -furthest && x < furthest && y > -furthest && y < furthest,
          "`x` and `y` must lie within 2^62 of the origin");
  require(width <= largest_side && height <= largest_side,
          "`width` and `height` must be at most " + std::to_string(largest_side));
  const c10::InferenceMode inference;
  const auto psi = grid().psi()[universe].to(at::kCPU);
  const auto rows = window_index(y, height, psi.size(1), torus());
  const auto columns = window_index(x, width, psi.size(2), torus());
  const auto inside = (rows >= 0).unsqueeze(1).logical_and((columns >= 0).unsqueeze(0));
  return psi.index_select(1, rows.clamp_min(0)).index_select(2, columns.clamp_min(0)) * inside;
}

std::pair<at::Tensor, at::Tensor> Engine::cells(std::int64_t universe) const {
  check_universe(universe);
  const c10::InferenceMode inference;
  const auto psi = grid().psi()[universe].to(at::kCPU);
  const auto where = (psi != 0).any(0).nonzero();
  const auto flat = where.select(1, 0) * psi.size(2) + where.select(1, 1);
  return {where.flip(1), psi.flatten(1).index_select(1, flat)};
}

Info Engine::info() const {
  const auto& law = this->law();
  const auto evaluated = grid_ ? grid_->shape().universes * grid_->shape().cells() : 0;
  return {.backend = law.backend(),
          .why = law.why(),
          .device = device_.str(),
          .precision = precision_ == Precision::bf16 ? "bf16" : "fp32",
          .threads = at::get_num_threads(),
          .d_state = d_state_,
          .stride = law.stride(),
          .has_memory = law.has_memory(),
          .vacuum_stable = law.vacuum_norm() <= physics_.epsilon,
          .physics = physics_,
          .noise = noise_,
          .evaluated_cells = evaluated};
}

}  // namespace atheria
