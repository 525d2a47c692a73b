#include "plan.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "filters.hpp"
#include "integers.hpp"
#include "parallel.hpp"

namespace atheria {
namespace {

// Collects pointwise instructions into a region.
class RegionBuilder {
 public:
  explicit RegionBuilder(const Program& program) : program_(program) {}

  bool is_empty() const { return region_.operators.empty(); }
  bool makes(std::int64_t value) const { return rows_.contains(value); }
  std::int64_t level() const { return region_.level; }

  Operand operand(Plane plane, std::int64_t dy = 0, std::int64_t dx = 0) {
    if (makes(plane.value)) return {true, rows_.at(plane.value) + plane.channel};
    if (plane.value < 0) return {true, zeros()};
    const auto found = std::find(region_.sources.begin(), region_.sources.end(), plane);
    const auto place = found - region_.sources.begin();
    if (found == region_.sources.end()) region_.sources.push_back(plane);
    region_.reach = std::max({region_.reach, std::abs(dy), std::abs(dx)});
    return {false, place, dy, dx};
  }

  void add(std::int64_t value) {
    Region::Operator op;
    op.instruction = program_.instructions[at(value)];
    op.value = value;
    auto& instruction = op.instruction;
    region_.level = instruction.level;
    for (const auto& plane : instruction.a) op.a.push_back(operand(plane));
    for (const auto& plane : instruction.b) op.b.push_back(operand(plane));
    for (const auto& stencil : instruction.stencils) {
      for (const auto& tap : stencil.taps) op.a.push_back(operand(tap.plane, tap.dy, tap.dx));
    }
    separate(op);
    if (instruction.op == Op::convolve) {
      const auto block = kernels().block;
      op.weights = pack_weights(instruction.weight, instruction.channels,
                                static_cast<std::int64_t>(instruction.a.size()), block);
      op.bias = pad_bias(instruction.bias, instruction.channels, block);
    }
    op.first_row = region_.rows;
    rows_[value] = region_.rows;
    region_.rows += instruction.channels;
    region_.operators.push_back(std::move(op));
  }

  void store(std::int64_t value) {
    for (std::int64_t c = 0; c < program_.instructions[at(value)].channels; ++c) {
      region_.stored.emplace_back(Plane{value, c}, rows_.at(value) + c);
    }
  }

  const std::map<std::int64_t, std::int64_t>& made() const { return rows_; }

  Region take() {
    rows_.clear();
    zeros_ = -1;
    return std::exchange(region_, {});
  }

 private:
  // A row that nothing writes.
  std::int64_t zeros() {
    if (zeros_ < 0) zeros_ = region_.rows++;
    return zeros_;
  }

  const Program& program_;
  Region region_;
  std::map<std::int64_t, std::int64_t> rows_;
  std::int64_t zeros_ = -1;
};

// Lets results take the rows of earlier ones that nothing reads any more.
void reuse_rows(Region& region, std::vector<std::vector<Operand>*> outputs) {
  const auto count = static_cast<std::int64_t>(region.operators.size());
  std::vector<std::int64_t> last_use(at(region.rows), count);  // of rows that nothing makes: kept
  for (const auto& op : region.operators) {
    std::fill_n(last_use.begin() + op.first_row, op.instruction.channels, std::int64_t{-1});
  }
  const auto use = [&](const std::vector<Operand>& operands, std::int64_t when) {
    for (const auto& operand : operands) {
      if (operand.is_local) last_use[at(operand.row)] = std::max(last_use[at(operand.row)], when);
    }
  };
  for (std::int64_t i = 0; i < count; ++i) {
    use(region.operators[at(i)].a, i);
    use(region.operators[at(i)].b, i);
  }
  for (const auto* operands : outputs) use(*operands, count);
  for (const auto& [plane, row] : region.stored) last_use[at(row)] = count;

  std::vector<std::int64_t> place(at(region.rows), -1);
  std::vector<std::int64_t> taken_until;  // of each new row: the operator that reads it last
  const auto take = [&](std::int64_t first, std::int64_t channels, std::int64_t now) {
    std::int64_t to = 0;
    for (std::int64_t free = 0; free < channels; ++to) {
      const bool is_free = to >= static_cast<std::int64_t>(taken_until.size()) || taken_until[at(to)] < now;
      free = is_free ? free + 1 : 0;
    }
    to -= channels;
    taken_until.resize(std::max(taken_until.size(), at(to + channels)), -1);
    for (std::int64_t c = 0; c < channels; ++c) {
      place[at(first + c)] = to + c;
      // A row that is written but not read is taken while it is written.
      taken_until[at(to + c)] = std::max(last_use[at(first + c)], now);
    }
  };
  for (std::int64_t row = 0; row < region.rows; ++row) {
    if (last_use[at(row)] == count) {
      const bool is_made = std::any_of(region.operators.begin(), region.operators.end(), [&](const auto& op) {
        return row >= op.first_row && row < op.first_row + op.instruction.channels;
      });
      if (!is_made) take(row, 1, -1);
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    auto& op = region.operators[at(i)];
    take(op.first_row, op.instruction.channels, i);
  }
  const auto move = [&](std::vector<Operand>& operands) {
    for (auto& operand : operands) {
      if (operand.is_local) operand.row = place[at(operand.row)];
    }
  };
  for (auto& op : region.operators) {
    op.first_row = place[at(op.first_row)];
    move(op.a);
    move(op.b);
  }
  for (auto* operands : outputs) move(*operands);
  for (auto& [plane, row] : region.stored) row = place[at(row)];
  region.rows = static_cast<std::int64_t>(taken_until.size());
}

void finish(Region& region, const std::vector<std::vector<Operand>*>& outputs, bool winograd) {
  if (winograd) join_filters(region, {outputs.begin(), outputs.end()});
  reuse_rows(region, outputs);
}

bool joins_region(const Instruction& instruction) {
  return is_pointwise(instruction) || instruction.op == Op::stencil;
}

}  // namespace

// What one universe needs while it is stepped.
class Workspace {
 public:
  Workspace(const Program& program, const std::vector<Step>& steps, const Region& last,
            const std::vector<bool>& is_stored, std::int64_t height, std::int64_t width, Profile& profile)
      : height_(height), width_(width), profile_(profile), values_(program.instructions.size()) {
    const auto halo = program.halo();
    std::vector<std::int64_t> last_use(values_.size(), -1);
    const auto uses = [&](const std::vector<Plane>& planes, std::int64_t when) {
      for (const auto& plane : planes) {
        if (plane.value >= 0) last_use[at(plane.value)] = std::max(last_use[at(plane.value)], when);
      }
    };
    const auto count = static_cast<std::int64_t>(steps.size());
    for (std::int64_t s = 0; s < count; ++s) {
      const auto& step = steps[at(s)];
      const auto value = step.spatial ? step.spatial->value : step.pairs ? step.pairs->value : 0;
      uses(step.region ? step.region->sources : operands(program.instructions[at(value)]), s);
    }
    uses(last.sources, count);
    uses(program.memory, count);

    // Memory that no later step reads is used again.
    std::multimap<std::int64_t, float*> free;
    const auto memory = [&](std::int64_t size) {
      const auto found = free.lower_bound(size);
      if (found != free.end() && found->first <= 2 * size) {
        float* const data = found->second;
        sizes_[data] = found->first;
        free.erase(found);
        return data;
      }
      float* const data = memory_.emplace_back(size).get();
      sizes_[data] = size;
      return data;
    };
    const auto reserve = [&](std::int64_t value) {
      const auto& instruction = program.instructions[at(value)];
      auto& planes = values_[at(value)].planes;
      planes.layout = {height >> instruction.level, width >> instruction.level, halo};
      planes.data = memory(planes.layout.size() * instruction.channels);
    };
    const auto reserve_cells = [&](std::int64_t value) {
      const auto& instruction = program.instructions[at(value)];
      auto& cells = values_[at(value)].channels_last;
      cells = {nullptr, height >> instruction.level, width >> instruction.level, instruction.channels};
      cells.data = memory(cells.cells() * cells.stride());
    };
    const auto reserve_stored = [&](const Region& region) {
      std::int64_t before = -1;
      for (const auto& [plane, row] : region.stored) {
        if (plane.value != before) reserve(plane.value);
        before = plane.value;
      }
    };
    const auto release = [&](std::int64_t when) {
      for (std::size_t v = 0; v < values_.size(); ++v) {
        if (last_use[v] != when || is_alias_[v]) continue;
        for (float* const data : {values_[v].planes.data, values_[v].channels_last.data}) {
          if (data != nullptr) free.emplace(sizes_.at(data), data);
        }
      }
    };
    is_alias_.assign(values_.size(), false);
    for (std::size_t v = 0; v < values_.size(); ++v) {
      if (program.instructions[v].op == Op::input && is_stored[v]) reserve(static_cast<std::int64_t>(v));
    }
    for (std::int64_t s = 0; s < count; ++s) {
      const auto& step = steps[at(s)];
      const auto take_over = [&](std::int64_t value) {
        const auto source = program.instructions[at(value)].a[0].value;
        values_[at(value)] = values_[at(source)];
        is_alias_[at(source)] = true;
      };
      if (step.region) {
        reserve_stored(*step.region);
      } else if (step.spatial) {
        step.spatial->in_place ? take_over(step.spatial->value) : reserve(step.spatial->value);
      } else {
        const auto& pairs = *step.pairs;
        if (pairs.in_place) {
          take_over(pairs.value);
        } else if (pairs.is_kept) {
          reserve_cells(pairs.value);
        }
        if (pairs.makes_planes) reserve(pairs.value);
      }
      release(s);
    }
    reserve_stored(last);
  }

  bool fits(std::int64_t height, std::int64_t width) const { return height == height_ && width == width_; }
  const Stored& value(std::int64_t v) const { return values_[at(v)]; }

  PairScratch& scratch() { return scratch_; }

  // One of two states on the way from a step to another.
  FieldPlanes state(std::size_t which, std::int64_t channels) {
    const auto plane = apart_in_cache(height_ * width_);
    auto& floats = states_.at(which);
    if (floats.get() == nullptr) floats = Floats(channels * plane);
    return {floats.get(), plane};
  }

  // One for each thread.
  RegionRun& runner(const Region& region, std::size_t thread) {
    const std::scoped_lock lock(mutex_);
    auto& all = runners_[&region];
    while (all.size() <= thread) all.push_back(nullptr);
    if (!all[thread]) all[thread] = std::make_unique<RegionRun>(region, &profile_);
    return *all[thread];
  }

 private:
  std::int64_t height_, width_;
  Profile& profile_;
  std::vector<Stored> values_;
  std::vector<bool> is_alias_;
  std::vector<Floats> memory_;
  std::map<float*, std::int64_t> sizes_;
  PairScratch scratch_;
  std::array<Floats, 2> states_;
  std::mutex mutex_;
  std::map<const Region*, std::vector<std::unique_ptr<RegionRun>>> runners_;
};

Plan::Plan(const Program& program, Precision precision, bool winograd, Profile& profile)
    : program_(program),
      precision_(precision),
      winograd_(winograd),
      halo_(program_.halo()),
      profile_(profile) {
  divide();
}

Plan::~Plan() = default;

void Plan::free_memory() { workspaces_.clear(); }

double Plan::bf16_operations() const {
  double sum = 0;
  for (const auto& step : steps_) {
    if (step.pairs && !step.pairs->weights.empty()) sum += operations_of(step.pairs->value);
  }
  return sum;
}

double Plan::winograd_operations() const {
  double sum = 0;
  for (const auto& step : steps_) {
    if (step.spatial && !step.spatial->winograd.empty()) sum += operations_of(step.spatial->value);
  }
  return sum;
}

double Plan::operations_of(std::int64_t value) const {
  return profile_.parts()[at(value)].operations_per_cell;
}

// Whether it reads the field alone, where that lies.
bool Plan::reads_bare_planes(const Region& region) const {
  return !is_stored_[0] && std::all_of(region.sources.begin(), region.sources.end(),
                                       [](const Plane& plane) { return plane.value == 0; });
}

bool Plan::uses_winograd() const { return width_of_tiles() > 0 || winograd_operations() > 0; }

std::int64_t Plan::width_of_tiles() const {
  const auto is_filtered = [](const Region& region) { return region.filtered_chunk() > 0; };
  const bool is_any = is_filtered(last_) || std::any_of(steps_.begin(), steps_.end(), [&](const Step& step) {
                        return step.region && is_filtered(*step.region);
                      });
  return is_any ? kernels().winograd_width : 0;
}

void Plan::divide() {
  const auto& all = program_.instructions;
  // On whole planes, rounding leaves traces where the sum is exactly 0, and a norm of each cell makes them
  // large: there it serves laws that normalise over the whole grid.
  const bool serves_planes = winograd_ && std::any_of(all.begin(), all.end(), [](const Instruction& i) {
                               return i.op == Op::group_norm;
                             });
  is_stored_.assign(all.size(), false);
  needs_halo_.assign(all.size(), false);
  forms_ = forms(program_, precision_);
  const auto count = readers(program_);
  RegionBuilder builder(program_);
  std::vector<std::int64_t> region_of(all.size(), -1);
  std::vector<Region> regions;
  std::vector<std::vector<std::int64_t>> members;
  std::vector<std::int64_t> order;  // value of a spatial instruction, or -1 - region

  // First which instruction goes where.
  std::int64_t open = -1;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto value = static_cast<std::int64_t>(i);
    if (all[i].op == Op::input) continue;
    if (!joins_region(all[i])) {
      open = -1;
      order.push_back(value);
      continue;
    }
    bool fits = open >= 0 && all[at(members[at(open)][0])].level == all[i].level;
    if (fits && all[i].op == Op::stencil) {
      for (const auto& plane : operands(all[i])) {
        fits = fits && (plane.value < 0 || region_of[at(plane.value)] != open);
      }
    }
    if (!fits) {
      open = static_cast<std::int64_t>(members.size());
      members.emplace_back();
      order.push_back(-1 - open);
    }
    members[at(open)].push_back(value);
    region_of[i] = open;
  }
  // The last region ends in delta; what it makes for the memory is stored like any other value.
  const bool ends_in_region = !order.empty() && order.back() < 0 && all[at(members.back()[0])].level == 0;
  const auto last = ends_in_region ? static_cast<std::int64_t>(members.size()) - 1 : -1;

  // Then which values are read from elsewhere.
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (const auto& plane : operands(all[i])) {
      if (plane.value < 0) continue;
      const auto from = at(plane.value);
      const bool elsewhere = !joins_region(all[i]) || region_of[from] != region_of[i] || region_of[from] < 0;
      const bool is_field = all[from].op == Op::input && plane.value == 0;
      // The field itself is read where it is, but by what wants a margin around a whole plane.
      const bool wants_margin = !joins_region(all[i]) && !multiplies_pairs(all[i], precision_);
      if (elsewhere && !(is_field && !wants_margin)) is_stored_[from] = true;
      if (reach(all[i]) > 0) needs_halo_[from] = true;
    }
  }
  for (const auto& plane : program_.delta) {
    if (plane.value > 0 && region_of[at(plane.value)] != last) is_stored_[at(plane.value)] = true;
    if (plane.value > 0 && last < 0) is_stored_[at(plane.value)] = true;
  }
  for (const auto& plane : program_.memory) {
    if (plane.value >= 0) is_stored_[at(plane.value)] = true;
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].op == Op::input && i > 0) is_stored_[i] = true;
  }

  for (const auto entry : order) {
    if (entry >= 0) {
      if (forms_[at(entry)].channels_last) {
        steps_.push_back({.pairs = prepare_pairs(program_, entry, forms_, count)});
      } else {
        steps_.push_back({.spatial = prepare(program_, entry, serves_planes, count)});
      }
      continue;
    }
    const auto r = -1 - entry;
    for (const auto value : members[at(r)]) builder.add(value);
    for (const auto value : members[at(r)]) {
      if (is_stored_[at(value)]) builder.store(value);
    }
    if (r == last) break;
    steps_.push_back({.region = builder.take()});
    finish(*steps_.back().region, {}, winograd_ && reads_bare_planes(*steps_.back().region));
  }
  for (const auto& plane : program_.delta) delta_.push_back(builder.operand(plane));
  for (std::int64_t c = 0; c < all[0].channels; ++c) psi_.push_back(builder.operand({0, c}));
  last_ = builder.take();
  finish(last_, {&delta_, &psi_}, winograd_ && reads_bare_planes(last_));
}

Tally Plan::run_one(Workspace& workspace, const Universe& universe, const Finish& finish) {
  const bool torus = program_.boundary == Boundary::torus;
  const auto& all = program_.instructions;
  const float* const inputs[] = {universe.psi, universe.memory};
  std::int64_t input = 0;
  for (std::size_t v = 0; v < all.size(); ++v) {
    if (all[v].op != Op::input) continue;
    if (is_stored_[v])
      workspace.value(static_cast<std::int64_t>(v)).planes.fill(inputs[input], all[v].channels, torus);
    ++input;
  }
  Stored field;
  field.planes = {const_cast<float*>(universe.psi), {universe.height, universe.width, 0}};  // read alone
  const auto stored = [&](std::int64_t v) -> const Stored& {
    return v == 0 && !is_stored_[0] ? field : workspace.value(v);
  };
  const auto place = [&](Plane plane) -> SourcePlane {
    if (plane.value == 0 && !is_stored_[0]) {
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
      targets.push_back({planes.plane(plane.channel), row, needs_halo_[at(plane.value)]});
    }
    const Layout grid{universe.height >> region.level, universe.width >> region.level, halo_};
    return run_region(region, sources, targets, grid, torus, to,
                      [&](std::size_t thread) -> RegionRun& { return workspace.runner(region, thread); });
  };
  for (const auto& step : steps_) {
    if (step.region) {
      sweep(*step.region, {});
    } else if (step.pairs) {
      const Timed timed(&profile_, at(step.pairs->value));
      run_pairs(program_, *step.pairs, stored, workspace.scratch(), torus,
                needs_halo_[at(step.pairs->value)]);
    } else {
      const Timed timed(&profile_, at(step.spatial->value));
      run_spatial(
          program_, *step.spatial, [&](std::int64_t v) -> const Planes& { return workspace.value(v).planes; },
          workspace.scratch().floats, torus, needs_halo_[at(step.spatial->value)]);
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
        std::make_unique<Workspace>(program_, steps_, last_, is_stored_, height, width, profile_));
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
