#include "workspace.hpp"

#include <algorithm>

#include "integers.hpp"

namespace atheria {
namespace {

std::vector<Plane> planes_read(const Program& program, const PlanStep& step) {
  if (const auto* const region = std::get_if<Region>(&step)) return region->sources;
  const auto* const spatial = std::get_if<Spatial>(&step);
  const auto value = spatial != nullptr ? spatial->value : std::get<PairStep>(step).value;
  return operands(program.instructions[at(value)]);
}

// Of each value: the step that reads it last, the last region being one more; -1 for none.
std::vector<std::int64_t> last_uses(const Program& program, const std::vector<PlanStep>& steps,
                                    const Region& last) {
  std::vector<std::int64_t> last_use(program.instructions.size(), -1);
  const auto use = [&](const std::vector<Plane>& planes, std::int64_t when) {
    for (const auto& plane : planes) {
      if (plane.value >= 0) last_use[at(plane.value)] = when;
    }
  };
  const auto count = static_cast<std::int64_t>(steps.size());
  for (std::int64_t s = 0; s < count; ++s) use(planes_read(program, steps[at(s)]), s);
  use(last.sources, count);
  use(program.memory, count);
  return last_use;
}

// Gives values their places.
class Placing {
 public:
  Placing(const Program& program, std::int64_t height, std::int64_t width, Arena& arena)
      : values(program.instructions.size()),
        program_(program),
        height_(height),
        width_(width),
        halo_(program.halo()),
        arena_(arena),
        is_taken_over_(values.size()) {}

  std::vector<Stored> values;

  void on_planes(std::int64_t value) {
    const auto& instruction = program_.instructions[at(value)];
    auto& planes = values[at(value)].planes;
    planes.layout = {height_ >> instruction.level, width_ >> instruction.level, halo_};
    planes.data = arena_.take(planes.layout.size() * instruction.channels);
  }

  void operator()(const Region& region) {
    std::int64_t before = -1;
    for (const auto& [plane, row] : region.stored) {
      if (plane.value != before) on_planes(plane.value);
      before = plane.value;
    }
  }

  void operator()(const Spatial& spatial) {
    spatial.in_place ? take_over(spatial.value) : on_planes(spatial.value);
  }

  void operator()(const PairStep& pairs) {
    if (pairs.in_place) {
      take_over(pairs.value);
    } else if (pairs.is_kept) {
      by_cells(pairs.value);
    }
    if (pairs.makes_planes) on_planes(pairs.value);
  }

  void give_back(std::size_t value) {
    if (is_taken_over_[value]) return;
    for (float* const piece : {values[value].planes.data, values[value].channels_last.data}) {
      if (piece != nullptr) arena_.give_back(piece);
    }
  }

 private:
  void by_cells(std::int64_t value) {
    const auto& instruction = program_.instructions[at(value)];
    auto& cells = values[at(value)].channels_last;
    cells = {nullptr, height_ >> instruction.level, width_ >> instruction.level, instruction.channels};
    cells.data = arena_.take(cells.cells() * cells.stride());
  }

  // The place of the value's operand.
  void take_over(std::int64_t value) {
    const auto source = at(program_.instructions[at(value)].a[0].value);
    values[at(value)] = values[source];
    is_taken_over_[source] = true;
  }

  const Program& program_;
  std::int64_t height_, width_, halo_;
  Arena& arena_;
  std::vector<bool> is_taken_over_;
};

}  // namespace

float* Arena::take(std::int64_t floats) {
  const auto found = free_.lower_bound(floats);
  if (found != free_.end() && found->first <= 2 * floats) {
    float* const piece = found->second;
    free_.erase(found);
    return piece;
  }
  float* const piece = memory_.emplace_back(floats).get();
  sizes_[piece] = floats;
  return piece;
}

void Arena::give_back(float* piece) { free_.emplace(sizes_.at(piece), piece); }

Workspace::Workspace(const Program& program, const std::vector<PlanStep>& steps, const Region& last,
                     const std::vector<bool>& is_stored, std::int64_t height, std::int64_t width,
                     Profile& profile)
    : height_(height), width_(width), profile_(profile) {
  const auto last_use = last_uses(program, steps, last);
  Placing place(program, height, width, arena_);
  for (std::size_t v = 0; v < is_stored.size(); ++v) {
    if (program.instructions[v].op == Op::input && is_stored[v])
      place.on_planes(static_cast<std::int64_t>(v));
  }
  for (std::size_t s = 0; s < steps.size(); ++s) {
    std::visit([&](const auto& step) { place(step); }, steps[s]);
    for (std::size_t v = 0; v < last_use.size(); ++v) {
      if (last_use[v] == static_cast<std::int64_t>(s)) place.give_back(v);
    }
  }
  place(last);
  values_ = std::move(place.values);
}

FieldPlanes Workspace::state(std::size_t which, std::int64_t channels) {
  const auto plane = apart_in_cache(height_ * width_);
  auto& floats = states_.at(which);
  if (floats.get() == nullptr) floats = Floats(channels * plane);
  return {floats.get(), plane};
}

RegionRun& Workspace::runner(const Region& region, std::size_t thread) {
  const std::scoped_lock lock(mutex_);
  auto& all = runners_[&region];
  while (all.size() <= thread) all.push_back(nullptr);
  if (!all[thread]) all[thread] = std::make_unique<RegionRun>(region, &profile_);
  return *all[thread];
}

}  // namespace atheria
