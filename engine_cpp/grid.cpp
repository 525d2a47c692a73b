#include "grid.hpp"

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "philox.hpp"
#include "recorded_step.hpp"
#include "vacuum.hpp"

namespace atheria {
namespace {

void check_finite(const at::Tensor& psi) {
  const auto bad = at::isfinite(psi).logical_not();
  const auto count = bad.sum().item<std::int64_t>();
  if (count == 0) return;
  const auto first = bad.nonzero()[0];
  throw std::invalid_argument("`state` must be finite; " + std::to_string(count) +
                              " of its values are NaN or infinite, the first in universe " +
                              std::to_string(first[0].item<std::int64_t>()) + ", channel " +
                              std::to_string(first[1].item<std::int64_t>()) +
                              ", cell (x=" + std::to_string(first[3].item<std::int64_t>()) +
                              ", y=" + std::to_string(first[2].item<std::int64_t>()) + ")");
}

void check_stride(const Shape& shape, std::int64_t stride) {
  if (shape.height > 0 && shape.width > 0 && shape.height % stride == 0 && shape.width % stride == 0) {
    return;
  }
  throw std::invalid_argument("`grid` must be positive multiples of the law's stride " +
                              std::to_string(stride) + ", got " + std::to_string(shape.height) + " x " +
                              std::to_string(shape.width));
}

// Cells first..first+count-1 along an axis of `size`: wrapped on a torus, -1 where outside otherwise.
at::Tensor window_index(std::int64_t first, std::int64_t count, std::int64_t size, bool torus) {
  const auto index = at::arange(first, first + count, at::kLong);
  if (torus) return index.remainder(size);
  return at::where((index >= 0).logical_and(index < size), index, at::full_like(index, -1));
}

Law::Advanced advance_in_vacuum(Law& law, const at::Tensor& psi, const Law::Step& step) {
  const auto vacuum = vacuum_field(step.physics.harmonic.level, Shape::of(psi), step.seed, step.step);
  const auto delta = law.forward(with_vacuum(psi, vacuum), {}).delta;
  check_delta(delta, psi);
  return finished(psi, {where_near_matter(delta, psi, step.physics), {}}, step);
}

}  // namespace

Grid::Grid(at::Tensor psi, Law& law) {
  check_stride(Shape::of(psi), law.stride());
  edit(std::move(psi));
  const auto shape = this->shape();
  if (shape.universes > stream::most_universes) {
    throw std::invalid_argument("there can be at most " + std::to_string(stream::most_universes) +
                                " universes, got " + std::to_string(shape.universes));
  }
  memory_ = law.initial_memory(shape.universes, shape.height, shape.width);
}

std::unique_ptr<Grid> Grid::of(const Parts& parts) {
  std::unique_ptr<Grid> grid(new Grid);
  grid->psi_ = parts.get("psi", at::kFloat, 4);
  grid->reference_energy_ = parts.get("reference_energy", at::kFloat, 4);
  const auto before_noise = parts.find("before_noise");
  grid->before_noise_ = before_noise.defined() ? parts.get("before_noise", at::kFloat, 4) : grid->psi_;
  if (parts.find("memory").defined()) grid->memory_ = parts.get("memory", at::kFloat, 4);
  grid->step_count_ = parts.step_count;
  check_finite(grid->psi_);
  const auto universes = grid->psi_.size(0);
  if (grid->psi_.numel() == 0 || grid->psi_.size(1) % 2 != 0 || universes > stream::most_universes ||
      grid->before_noise_.sizes() != grid->psi_.sizes() ||
      grid->reference_energy_.sizes() != at::IntArrayRef{universes, 1, 1, 1}) {
    throw std::invalid_argument("the snapshot's arrays do not fit each other; it is damaged");
  }
  return grid;
}

Parts Grid::parts() const {
  Parts parts{step_count_, {{"psi", psi_}, {"reference_energy", reference_energy_}}};
  if (!before_noise_.is_same(psi_)) parts.arrays.emplace_back("before_noise", before_noise_);
  if (memory_.defined()) parts.arrays.emplace_back("memory", memory_);
  for (auto& [name, array] : parts.arrays) array = array.to(at::kCPU);
  return parts;
}

void Grid::edit(at::Tensor psi) {
  check_finite(psi);
  psi_ = before_noise_ = std::move(psi);
  reference_energy_ = total_energy(psi_);
  occupied_.reset();
}

void Grid::step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed, std::int64_t most) {
  if (auto* const recorded = law.recorded()) return step_recorded(law, *recorded, physics, noise, seed);
  const bool is_law_alone = noise.is_off() && physics.fire_rate == 1 && physics.harmonic.level == 0 &&
                            physics.normalise != Normalise::global;
  const Law::Step wanted{physics, reference_energy_, seed, step_count_, is_law_alone ? most : 1};
  auto [quiet, memory, steps, tally] =
      physics.harmonic.level > 0 ? advance_in_vacuum(law, psi_, wanted) : law.advance(psi_, memory_, wanted);
  const auto next = noise.apply(quiet, seed, step_count_);
  // A NaN or an infinity anywhere makes the sum so (inf - inf is NaN); no finite float32 field does.
  const bool is_known = tally && next.is_same(quiet);
  if (!(is_known && std::isfinite(tally->energy)) && !std::isfinite(next.sum(at::kDouble).item<double>())) {
    if (steps > 1) return step(law, physics, noise, seed, 1);  // up to the one that is not finite
    throw_not_finite(step_count_ + 1, physics.normalise);
  }
  psi_ = next;
  before_noise_ = std::move(quiet);
  memory_ = std::move(memory);
  occupied_ = is_known ? std::optional(tally->occupied) : std::nullopt;
  step_count_ += steps;
}

void Grid::step_recorded(Law& law, RecordedStep& recorded, const Physics& physics, const Noise& noise,
                         std::uint64_t seed) {
  auto next = recorded.step(law, {psi_, memory_, reference_energy_, step_count_}, {physics, noise, seed});
  if (!std::isfinite(next.sum)) throw_not_finite(step_count_ + 1, physics.normalise);
  psi_ = std::move(next.psi);
  before_noise_ = std::move(next.before_noise);
  memory_ = std::move(next.memory);
  occupied_.reset();
  ++step_count_;
}

bool Grid::is_same_state(const Universe& other) const {
  const auto& grid = dynamic_cast<const Grid&>(other);
  return at::equal(psi_, grid.psi_) && (!memory_.defined() || at::equal(memory_, grid.memory_));
}

std::int64_t Grid::occupied_cells() const {
  return occupied_ ? *occupied_ : occupied(psi_).sum().item<std::int64_t>();
}

std::int64_t Grid::evaluated_cells(const Law& /*law*/) const { return shape().universes * shape().cells(); }

bool Grid::fits(const Law& law, std::int64_t d_state) const {
  const auto shape = this->shape();
  return shape.d_state == d_state && shape.height % law.stride() == 0 && shape.width % law.stride() == 0;
}

bool Grid::suits(Law& law, std::int64_t d_state, const Physics& /*physics*/) const {
  const auto shape = this->shape();
  const auto memory = law.initial_memory(shape.universes, shape.height, shape.width);
  return fits(law, d_state) && memory.defined() == memory_.defined() &&
         (!memory.defined() || memory.sizes() == memory_.sizes());
}

std::unique_ptr<Universe> Grid::moved(const at::Device& device) const {
  auto moved = std::make_unique<Grid>(*this);
  for (auto* tensor : {&moved->psi_, &moved->before_noise_, &moved->memory_, &moved->reference_energy_}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return moved;
}

std::unique_ptr<Universe> Grid::restarted(Law& law, std::int64_t d_state, const Physics& /*physics*/) const {
  return fits(law, d_state) ? std::make_unique<Grid>(psi_, law) : nullptr;
}

at::Tensor Grid::window(const Window& window, std::int64_t universe, bool torus) const {
  const auto psi = psi_[universe].to(at::kCPU);
  const auto rows = window_index(window.y, window.height, psi.size(1), torus);
  const auto columns = window_index(window.x, window.width, psi.size(2), torus);
  const auto inside = (rows >= 0).unsqueeze(1).logical_and((columns >= 0).unsqueeze(0));
  return psi.index_select(1, rows.clamp_min(0)).index_select(2, columns.clamp_min(0)) * inside;
}

std::pair<at::Tensor, at::Tensor> Grid::cells(std::int64_t universe, bool before_noise) const {
  const auto psi = this->psi(before_noise)[universe].to(at::kCPU);
  const auto where = (psi != 0).any(0).nonzero();
  const auto flat = where.select(1, 0) * psi.size(2) + where.select(1, 1);
  return {where.flip(1), psi.flatten(1).index_select(1, flat)};
}

void Grid::put(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) {
  const auto shape = this->shape();
  auto field = psi_.to(at::kCPU, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const auto* places = coordinates.data_ptr<std::int64_t>();
  const auto* numbers = psi.data_ptr<float>();
  for (std::int64_t i = 0; i < coordinates.size(0); ++i, places += 2, numbers += 2 * shape.d_state) {
    const auto x = places[0];
    const auto y = places[1];
    if (x < 0 || x >= shape.width || y < 0 || y >= shape.height) {
      throw std::invalid_argument("`x`, `y` must lie on the grid of " + std::to_string(shape.height) + " x " +
                                  std::to_string(shape.width) + ", got x=" + std::to_string(x) +
                                  ", y=" + std::to_string(y));
    }
    const auto cell = Cell::at(field.data_ptr<float>(), shape, universe, y, x);
    for (std::int64_t c = 0; c < shape.d_state; ++c) cell.set(c, {numbers[c], numbers[shape.d_state + c]});
  }
  edit(field.to(psi_.device()));
}

}  // namespace atheria
