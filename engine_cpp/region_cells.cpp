#include "region_cells.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "integers.hpp"

namespace atheria {
namespace {

// An address may be another law's after this one is gone.
std::int64_t next_id() {
  static std::atomic<std::int64_t> last = 0;
  return ++last;
}

constexpr std::size_t most_sums = 9;  // as many as there are cells around one

}  // namespace

struct RegionCells::Scratch {
  std::int64_t owner = 0;
  std::unique_ptr<RegionRun> run;
  Floats rows, out, fires;
  std::vector<const float*> sources, psi, delta;
  std::vector<float*> out_rows;

  void prepare(const RegionCells& cells) {
    if (owner == cells.id_) return;
    owner = cells.id_;
    const auto& region = cells.region_;
    const auto chunk = region.chunk();
    const auto count = static_cast<std::int64_t>(region.sources.size());
    run = std::make_unique<RegionRun>(region);
    rows = Floats(count * chunk);
    out = Floats(cells.channels_ * chunk);
    fires = Floats(chunk);
    sources.clear();
    for (std::int64_t source = 0; source < count; ++source) sources.push_back(rows.get() + source * chunk);
    psi.clear();
    delta.clear();
    out_rows.clear();
    const auto located = [&](const Operand& operand) {
      return operand.is_local ? std::as_const(*run).row(operand.row) : sources[at(operand.row)];
    };
    for (std::int64_t c = 0; c < cells.channels_; ++c) {
      psi.push_back(located(cells.psi_[at(c)]));
      delta.push_back(located(cells.delta_[at(c)]));
      out_rows.push_back(out.get() + c * chunk);
    }
  }
};

RegionCells::RegionCells(const Plan& plan)
    : channels_(static_cast<std::int64_t>(plan.delta().size())), id_(next_id()) {
  read_sums(plan, true);
  if (sums_.size() > most_sums) read_sums(plan, false);
}

// What the region reads of neighbours: as sums of channels, which are few where the channels are treated
// alike, or cell by cell.
void RegionCells::read_sums(const Plan& plan, bool of_channels) {
  sums_ = {{{0, 0, 1.0F}}};
  region_ = plan.last();
  psi_ = plan.psi();
  delta_ = plan.delta();
  const auto planes = std::exchange(region_.sources, {});
  const auto centre = [&](std::vector<Operand>& operands) {
    for (auto& operand : operands) {
      if (!operand.is_local) operand.row = planes[at(operand.row)].channel;
    }
  };
  for (auto& op : region_.operators) {
    if (op.instruction.op == Op::stencil) {
      give_sums(op, planes, of_channels);
    } else {
      centre(op.a);
      centre(op.b);
    }
  }
  centre(psi_);
  centre(delta_);
  region_.reach = 0;
  for (std::int64_t sum = 0; sum < static_cast<std::int64_t>(sums_.size()); ++sum) {
    for (std::int64_t c = 0; c < channels_; ++c) region_.sources.push_back({sum, c});
  }
}

void RegionCells::give_sums(Region::Operator& op, const std::vector<Plane>& sources, bool of_channels) {
  auto operand = op.a.begin();
  std::vector<Operand> given;
  for (auto& stencil : op.instruction.stencils) {
    const auto first = operand;
    const auto end = operand += static_cast<std::ptrdiff_t>(stencil.taps.size());
    const auto row_of = [&](const NeighbourSum& sum, const Operand& of) {
      return Operand{false, place_of(sum) * channels_ + sources[at(of.row)].channel};
    };
    const bool is_of_one = std::all_of(first, end, [&](const Operand& tap) { return tap.row == first->row; });
    if (of_channels && first != end && is_of_one) {
      NeighbourSum sum;
      for (const auto& tap : stencil.taps) sum.push_back({tap.dy, tap.dx, tap.factor});
      given.push_back(row_of(sum, *first));
      stencil.taps.resize(1);
      stencil.taps[0].factor = 1.0F;
    } else {
      for (auto tap = first; tap != end; ++tap) given.push_back(row_of({{tap->dy, tap->dx, 1.0F}}, *tap));
    }
  }
  op.a = std::move(given);
}

std::int64_t RegionCells::place_of(const NeighbourSum& sum) {
  const auto found = std::find(sums_.begin(), sums_.end(), sum);
  const auto place = found - sums_.begin();
  if (found == sums_.end()) sums_.push_back(sum);
  return place;
}

void RegionCells::step(const float* sums, const std::uint8_t* fires, std::int64_t n, const Physics& physics,
                       float* const* next, std::int32_t* largest) const {
  thread_local Scratch scratch;
  scratch.prepare(*this);
  const auto chunk = region_.chunk();
  for (std::int64_t first = 0; first < n; first += chunk) {
    step_chunk(scratch, sums + first * static_cast<std::int64_t>(region_.sources.size()),
               fires == nullptr ? nullptr : fires + first, std::min(chunk, n - first), physics, next + first,
               largest + first);
  }
}

void RegionCells::step_chunk(Scratch& scratch, const float* sums, const std::uint8_t* fires,
                             std::int64_t cells, const Physics& physics, float* const* next,
                             std::int32_t* largest) const {
  const auto chunk = region_.chunk();
  kernels().to_rows(sums, cells, static_cast<std::int64_t>(region_.sources.size()), scratch.rows.get(),
                    chunk);
  scratch.run->run(scratch.sources.data(), cells, {}, region_.operators.size());
  if (fires != nullptr) std::copy(fires, fires + cells, scratch.fires.get());
  kernels().advance({scratch.psi.data(), scratch.delta.data(), scratch.out_rows.data(), channels_,
                     static_cast<float>(1 - physics.gamma), static_cast<float>(physics.epsilon),
                     physics.normalise == Normalise::cell, fires == nullptr ? nullptr : scratch.fires.get()},
                    cells);
  kernels().to_cells(scratch.out.get(), chunk, cells, channels_, next);
  kernels().largest(scratch.out.get(), chunk, cells, channels_, largest);
}

}  // namespace atheria
