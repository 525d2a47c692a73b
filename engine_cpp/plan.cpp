#include "plan.hpp"

#include <algorithm>

#include "integers.hpp"
#include "parallel.hpp"
#include "region_builder.hpp"

namespace atheria {
Plan::Plan(const Program& program, Precision precision, bool winograd, Profile& profile)
    : program_(program), precision_(precision), winograd_(winograd), profile_(profile) {
  assemble();
}

void Plan::free_memory() { workspaces_.clear(); }

double Plan::bf16_operations() const {
  double sum = 0;
  for (const auto& step : steps_) {
    const auto* const pairs = std::get_if<PairStep>(&step);
    if (pairs != nullptr && !pairs->weights.empty()) sum += operations_of(pairs->value);
  }
  return sum;
}

double Plan::winograd_operations() const {
  double sum = 0;
  for (const auto& step : steps_) {
    const auto* const spatial = std::get_if<Spatial>(&step);
    if (spatial != nullptr && !spatial->winograd.empty()) sum += operations_of(spatial->value);
  }
  return sum;
}

double Plan::operations_of(std::int64_t value) const {
  return profile_.parts()[at(value)].operations_per_cell;
}

bool Plan::uses_winograd() const { return width_of_tiles() > 0 || winograd_operations() > 0; }

std::int64_t Plan::width_of_tiles() const {
  const auto is_filtered = [](const Region& region) { return region.filtered_chunk() > 0; };
  const bool is_any =
      is_filtered(last_) || std::any_of(steps_.begin(), steps_.end(), [&](const PlanStep& step) {
        const auto* const region = std::get_if<Region>(&step);
        return region != nullptr && is_filtered(*region);
      });
  return is_any ? kernels().winograd_width : 0;
}

void Plan::assemble() {
  const auto& all = program_.instructions;
  // On whole planes, rounding leaves traces where the sum is exactly 0, and a norm of each cell makes them
  // large: there it serves laws that normalise over the whole grid.
  const bool serves_planes = winograd_ && std::any_of(all.begin(), all.end(), [](const Instruction& i) {
                               return i.op == Op::group_norm;
                             });
  const auto division = Division::of(program_);
  storage_ = Storage::of(program_, division, precision_);
  const auto forms_of = forms(program_, precision_);
  const auto count = readers(program_);
  const bool filters_field = winograd_ && !storage_.is_stored[0];
  const auto built = [&](std::int64_t region) {
    RegionBuilder builder(program_);
    for (const auto value : division.regions[at(region)]) builder.add(value);
    for (const auto value : division.regions[at(region)]) {
      if (storage_.is_stored[at(value)]) builder.store(value);
    }
    return builder;
  };
  for (const auto [is_region, index] : division.parts) {
    if (is_region && index == division.last) break;
    if (is_region) {
      steps_.emplace_back(built(index).finished({}, filters_field));
    } else if (forms_of[at(index)].channels_last) {
      steps_.emplace_back(prepare_pairs(program_, index, forms_of, count));
    } else {
      steps_.emplace_back(prepare(program_, index, serves_planes, count));
    }
  }
  auto builder = division.last >= 0 ? built(division.last) : RegionBuilder(program_);
  for (const auto& plane : program_.delta) delta_.push_back(builder.operand(plane));
  for (std::int64_t c = 0; c < all[0].channels; ++c) psi_.push_back(builder.operand({0, c}));
  last_ = builder.finished({&delta_, &psi_}, filters_field);
}

Tally Plan::run_one(Workspace& workspace, const Universe& universe, const Finish& finish) {
  const bool torus = program_.boundary == Boundary::torus;
  const auto& all = program_.instructions;
  const float* const inputs[] = {universe.psi, universe.memory};
  std::int64_t input = 0;
  for (std::size_t v = 0; v < all.size(); ++v) {
    if (all[v].op != Op::input) continue;
    if (storage_.is_stored[v])
      workspace.value(static_cast<std::int64_t>(v)).planes.fill(inputs[input], all[v].channels, torus);
    ++input;
  }
  Stored field;
  field.planes = {const_cast<float*>(universe.psi), {universe.height, universe.width, 0}};  // read alone
  const auto stored = [&](std::int64_t v) -> const Stored& {
    return v == 0 && !storage_.is_stored[0] ? field : workspace.value(v);
  };
  const auto place = [&](Plane plane) -> SourcePlane {
    if (plane.value == 0 && !storage_.is_stored[0]) {
      return {universe.psi + plane.channel * universe.height * universe.width, universe.width, false};
    }
    const auto& planes = workspace.value(plane.value).planes;
    return {planes.plane(plane.channel) + planes.layout.first(), planes.layout.stride(), true};
  };
  const auto sweep = [&](const Region& region, const Finish& to) {
    std::vector<SourcePlane> sources;
    for (const auto& plane : region.sources) sources.push_back(place(plane));
    std::vector<Target> targets;
    for (const auto& [plane, row] : region.stored) {
      const auto& planes = workspace.value(plane.value).planes;
      targets.push_back({planes.plane(plane.channel), row, storage_.needs_halo[at(plane.value)]});
    }
    const Layout grid{universe.height >> region.level, universe.width >> region.level, program_.halo()};
    return run_region(region, sources, targets, grid, torus, to,
                      [&](std::size_t thread) -> RegionRun& { return workspace.runner(region, thread); });
  };
  for (const auto& step : steps_) {
    if (const auto* const region = std::get_if<Region>(&step)) {
      sweep(*region, {});
    } else if (const auto* const pairs = std::get_if<PairStep>(&step)) {
      const Timed timed(&profile_, at(pairs->value));
      run_pairs(program_, *pairs, stored, workspace.scratch(), torus, storage_.needs_halo[at(pairs->value)]);
    } else {
      const auto& spatial = std::get<Spatial>(step);
      const Timed timed(&profile_, at(spatial.value));
      run_spatial(
          program_, spatial, [&](std::int64_t v) -> const Planes& { return workspace.value(v).planes; },
          workspace.scratch().floats, torus, storage_.needs_halo[at(spatial.value)]);
    }
  }
  auto to = finish;
  to.psi = &psi_;
  to.delta = &delta_;
  to.out = universe.out;
  to.profile = &profile_;
  if (to.steps > 1 && last_.reach > 0) {
    const auto channels = static_cast<std::int64_t>(delta_.size());
    to.between = {workspace.state(0, channels), workspace.state(1, channels)};
  }
  const auto tally = sweep(last_, to);
  const auto size = memory_cells(universe.height, universe.width);
  for (std::size_t c = 0; c < program_.memory.size(); ++c) {
    const auto plane = program_.memory[c];
    float* const cells = universe.next_memory + static_cast<std::int64_t>(c) * size;
    if (plane.value < 0) {
      std::fill(cells, cells + size, 0.0F);
    } else {
      workspace.value(plane.value).planes.copy_out(plane.channel, cells);
    }
  }
  return tally;
}

// Of one channel of the memory, which is the second input.
std::int64_t Plan::memory_cells(std::int64_t height, std::int64_t width) const {
  if (program_.memory.empty()) return 0;
  const auto level = program_.instructions[1].level;
  return (height >> level) * (width >> level);
}

// No more than take some milliseconds, lest Ctrl-C wait.
std::int64_t Plan::steps_at_once(std::int64_t universes, std::int64_t height, std::int64_t width) const {
  if (!is_local() || !program_.memory.empty() || !takes_steps_in_a_row(last_, height, width)) return 1;
  constexpr double operations = 2e9;
  constexpr std::int64_t most = 16;
  double of_cell = 1;
  for (const auto& part : profile_.parts()) of_cell += part.operations_per_cell;
  const auto cells = static_cast<double>(universes * height * width);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(operations / (cells * of_cell)), 1, most);
}

std::vector<Tally> Plan::run(const float* psi, const float* memory, float* out, float* next_memory,
                             std::int64_t universes, std::int64_t height, std::int64_t width,
                             const Finish& finish) {
  const auto field_size = static_cast<std::int64_t>(program_.delta.size()) * height * width;
  const auto memory_size = static_cast<std::int64_t>(program_.memory.size()) * memory_cells(height, width);
  const auto run_universe = [&](std::int64_t b, Workspace& workspace) {
    auto of_universe = finish;
    if (finish.fires != nullptr) of_universe.fires = finish.fires + b * height * width;
    return run_one(
        workspace,
        {psi + b * field_size, memory == nullptr ? nullptr : memory + b * memory_size, out + b * field_size,
         next_memory == nullptr ? nullptr : next_memory + b * memory_size, height, width},
        of_universe);
  };
  // Many universes: each thread steps its own. Few: the threads share each.
  const auto threads = most_threads();
  const bool apart = universes >= 2 * threads || (universes >= threads && universes % threads == 0);
  const auto wanted = apart ? threads : 1;
  std::erase_if(workspaces_, [&](const auto& workspace) { return !workspace->fits(height, width); });
  while (static_cast<std::int64_t>(workspaces_.size()) < wanted) {
    workspaces_.push_back(
        std::make_unique<Workspace>(program_, steps_, last_, storage_.is_stored, height, width, profile_));
  }
  std::vector<Tally> tallies(at(universes));
  if (!apart) {
    for (std::int64_t b = 0; b < universes; ++b) tallies[at(b)] = run_universe(b, *workspaces_[0]);
    return tallies;
  }
  parallel_for(universes, [&](std::int64_t begin, std::int64_t end) {
    auto& workspace = *workspaces_[at(thread_index())];
    for (auto b = begin; b < end; ++b) tallies[at(b)] = run_universe(b, workspace);
  });
  return tallies;
}

}  // namespace atheria
