#include "grid.hpp"

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "philox.hpp"

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

void Grid::edit(at::Tensor psi) {
  check_finite(psi);
  psi_ = before_noise_ = std::move(psi);
  reference_energy_ = total_energy(psi_);
  occupied_.reset();
}

void Grid::step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed) {
  auto [quiet, memory, tally] = law.advance(psi_, memory_, physics, reference_energy_, seed, step_count_);
  const auto next = noise.apply(quiet, seed, step_count_);
  // A NaN or an infinity anywhere makes the sum so (inf - inf is NaN); no finite float32 field does.
  const bool is_known = tally && next.is_same(quiet);
  if (!(is_known && std::isfinite(tally->energy)) && !std::isfinite(next.sum(at::kDouble).item<double>())) {
    throw std::overflow_error("the field stopped being finite at step " + std::to_string(step_count_ + 1) +
                              "; the state before it is kept. Normalise, or raise `gamma`");
  }
  psi_ = next;
  before_noise_ = std::move(quiet);
  memory_ = std::move(memory);
  occupied_ = is_known ? std::optional(tally->occupied) : std::nullopt;
  ++step_count_;
}

bool Grid::is_same_state(const Grid& other) const {
  return at::equal(psi_, other.psi_) && (!memory_.defined() || at::equal(memory_, other.memory_));
}

std::int64_t Grid::occupied_cells() const { return occupied_ ? *occupied_ : occupied(psi_).sum().item<std::int64_t>(); }

}  // namespace atheria
