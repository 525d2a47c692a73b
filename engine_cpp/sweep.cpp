#include "sweep.hpp"

#include <algorithm>
#include <array>
#include <memory>

#include "integers.hpp"
#include "parallel.hpp"
#include "wavefront.hpp"

namespace atheria {
namespace {

constexpr std::int64_t unit = 48;  // cells that a kernel takes at once, at most

std::int64_t whole_vectors(std::int64_t cells) { return rounded_up(cells, widest_vector); }

// How a grid is cut: rows of it where they are short, parts of rows where they are long, or blocks of tiles.
struct Cut {
  std::int64_t height, width;  // of the grid
  std::int64_t rows = 1, columns;
  bool is_filtered = false;  // whether into blocks of tiles

  static Cut into_tiles(std::int64_t height, std::int64_t width) {
    const auto across = kernels().winograd_width;
    Cut cut(height, width, across);
    cut.columns = std::min(width, most_across * across);
    cut.rows = WinogradProduct::tile * (width > across ? 1 : WinogradProduct::at_once);
    cut.is_filtered = true;
    return cut;
  }

  Cut(std::int64_t grid_height, std::int64_t grid_width, std::int64_t capacity)
      : height(grid_height), width(grid_width), columns(std::min(grid_width, capacity)) {
    if (width > capacity) {
      const auto parts = ceil_div(width, capacity);
      columns = whole_vectors(ceil_div(width, parts));
      return;
    }
    double best = 0;
    for (std::int64_t r = 1; r <= std::min(height, capacity / width); ++r) {
      const auto cells = r * width;
      const auto filled = static_cast<double>(cells) / static_cast<double>(rounded_up(cells, unit));
      if (filled >= best) {
        best = filled;
        rows = r;
      }
    }
  }

  std::int64_t down() const { return ceil_div(height, rows); }
  std::int64_t count() const { return down() * ceil_div(width, columns); }
  // One below the other, so that they share the rows between them.
  Chunk chunk(std::int64_t i) const {
    const auto y = i % down() * rows;
    const auto x = i / down() * columns;
    return {y, x, std::min(rows, height - y), std::min(columns, width - x)};
  }
};

bool all_have_halo(const std::vector<SourcePlane>& sources, bool wanted) {
  return std::all_of(sources.begin(), sources.end(),
                     [&](const SourcePlane& place) { return place.has_halo == wanted; });
}

// Of a grid whose sources all lie bare, or not.
Cut cut_of(const Region& region, std::int64_t height, std::int64_t width, bool is_bare) {
  const bool is_filtered = is_bare && region.filtered_chunk() > 0 && height % WinogradProduct::tile == 0 &&
                           width % kernels().winograd_width == 0;
  return is_filtered ? Cut::into_tiles(height, width) : Cut(height, width, region.chunk());
}

// Which sources are read one cell after the other, all through a chunk. Blocks of tiles are stepped row by
// row, where the field is.
std::vector<bool> read_cells(const Region& region, const Finish& to, bool is_filtered) {
  std::vector<bool> result(region.sources.size());
  const auto look = [&](const std::vector<Operand>& operands) {
    for (const auto& operand : operands) {
      if (!operand.is_local) result[at(operand.row)] = true;
    }
  };
  for (const auto& op : region.operators) {
    const bool sees_neighbours = region.reach > 0 && op.instruction.op == Op::stencil;
    if (sees_neighbours || (is_filtered && op.filtered)) continue;
    look(op.a);
    look(op.b);
  }
  if (to.out != nullptr && !is_filtered) {
    look(*to.psi);
    look(*to.delta);
  }
  return result;
}

// Whether the region's last operator and the step around the law run as one.
bool finishes_product(const Region& region, const Finish& to) {
  return to.out != nullptr && to.physics != nullptr && kernels().advance_product != nullptr &&
         static_cast<std::int64_t>(to.delta->size()) == Kernels::channels_of_product &&
         region.ends_in_product(*to.delta) &&
         std::none_of(to.psi->begin(), to.psi->end(),
                      [](const Operand& operand) { return operand.is_local; });
}

// Runs the region and deals with what it makes; of one thread.
class Worker {
 public:
  Worker(const Region& region, const std::vector<SourcePlane>& sources, const std::vector<Target>& targets,
         const Layout& grid, bool torus, const Finish& finish, RegionRun& runner, const Cut& cut,
         std::vector<Tally>& tallies)
      : region_(region),
        sources_(sources),
        targets_(targets),
        grid_(grid),
        finish_(finish),
        runner_(runner),
        cut_(cut),
        tallies_(tallies),
        cells_(sources.size()),
        is_read_(read_cells(region, finish, cut.is_filtered)),
        product_(finishes_product(region, finish) ? &region.operators.back() : nullptr),
        rows_(product_ != nullptr ? product_->a.size() : 0),
        neighbours_(region, sources, grid.height, grid.width, torus, cut.rows, cut.columns, cut.is_filtered),
        packed_size_(whole_vectors(std::max(region.chunk(), region.filtered_chunk()))) {
    const auto copies = static_cast<std::int64_t>(sources.size()) * packed_size_;
    const auto channels = finish.out == nullptr ? 0 : static_cast<std::int64_t>(finish.psi->size());
    const auto plane = apart_in_cache(packed_size_);
    packed_ = runner.copies(copies + neighbours_.size() + channels * plane);
    neighbours_.work_in(packed_ + copies);
    psi_.resize(at(channels));
    delta_.resize(at(channels));
    out_.resize(at(channels));
    if (finish.steps == 1) return;
    state_ = {packed_ + copies + neighbours_.size(), plane};
    in_state_ = sources_in(state_);
    for (std::size_t i = 0; i < in_between_.size(); ++i) in_between_[i] = sources_in(finish.between[i]);
  }

  // Cells first..last-1 of planes that are run through from end to end, margins and all.
  void run_whole(std::int64_t first, std::int64_t last) {
    for (const auto capacity = region_.chunk(); first < last; first += capacity) {
      run_part(first, std::min(capacity, last - first));
    }
  }

  // Chunks begin..end-1 of the cut, each all steps that are to be taken.
  void run(std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const auto chunk = cut_.chunk(i);
      const Chunk alone{0, 0, 1, chunk.cells()};
      const auto steps = finish_.steps;
      for (std::int64_t step = 0; step < steps; ++step) {
        const bool is_first = step == 0;
        const bool is_last = step + 1 == steps;
        tallies_[at(i)] = run(is_first ? chunk : alone, is_first ? sources_ : in_state_,  //
                              is_last ? chunk : alone, is_last ? out() : state_);
      }
    }
  }

  // A chunk of the cut, one step of several.
  void run_step(std::int64_t i, std::int64_t step) {
    const auto chunk = cut_.chunk(i);
    const bool is_last = step + 1 == finish_.steps;
    tallies_[at(i)] = run(chunk, step == 0 ? sources_ : in_between_[at((step - 1) % 2)],  //
                          chunk, is_last ? out() : finish_.between[at(step % 2)]);
  }

 private:
  void run_part(std::int64_t first, std::int64_t cells) {
    for (std::size_t s = 0; s < cells_.size(); ++s) cells_[s] = sources_[s].first - grid_.first() + first;
    runner_.run(cells_.data(), cells, {}, region_.operators.size());
    for (const auto& target : targets_) {
      const float* const row = runner_.row(target.row);
      std::copy(row, row + cells, target.plane + first);
    }
  }

  FieldPlanes out() const { return {finish_.out, grid_.height * grid_.width}; }

  // Writes the targets and, where there is `to`, the field that comes out: to the chunk `there`.
  Tally run(const Chunk& chunk, const std::vector<SourcePlane>& sources, const Chunk& there,
            const FieldPlanes& to) {
    for (std::size_t s = 0; s < sources.size(); ++s) {
      cells_[s] = is_read_[s] ? packed(sources[s], s, chunk) : first_of(chunk, sources[s]);
    }
    runner_.run(
        cells_.data(), chunk.cells(),
        [&](const Region::Operator& op, float* const* out) {
          return neighbours_.run(op, sources, chunk, out);
        },
        region_.operators.size() - (product_ != nullptr ? 1 : 0));
    for (const auto& target : targets_) {
      for (std::int64_t y = 0; y < chunk.height; ++y) {
        const float* const row = runner_.row(target.row) + y * chunk.width;
        std::copy(row, row + chunk.width,
                  target.plane + grid_.first() + (chunk.y + y) * grid_.stride() + chunk.x);
      }
    }
    return to.first != nullptr ? finish(chunk, sources, there, to) : Tally{};
  }

  // What the region reads of a field without margins.
  std::vector<SourcePlane> sources_in(const FieldPlanes& field) const {
    std::vector<SourcePlane> sources;
    for (const auto& [value, channel] : region_.sources) {
      sources.push_back({field.first + channel * field.plane, grid_.width, false});
    }
    return sources;
  }

  static const float* first_of(const Chunk& chunk, const SourcePlane& plane) {
    return plane.first + chunk.y * plane.stride + chunk.x;
  }

  // A source's cells one after the other: where they are, if nothing is read beyond the last one.
  const float* packed(const SourcePlane& from, std::size_t source, const Chunk& chunk) const {
    const float* const first = first_of(chunk, from);
    const bool is_packed = chunk.height == 1 || from.stride == chunk.width;
    if (is_packed && (from.has_halo || chunk.cells() % widest_vector == 0)) return first;
    float* const to = packed_ + static_cast<std::int64_t>(source) * packed_size_;
    for (std::int64_t y = 0; y < chunk.height; ++y) {
      std::copy(first + y * from.stride, first + y * from.stride + chunk.width, to + y * chunk.width);
    }
    return to;
  }

  const float* located(const Operand& operand) const {
    return operand.is_local ? runner_.row(operand.row) : cells_[at(operand.row)];
  }

  // The step around the law, of the chunk `chunk`, to the chunk `there`: at once where its rows lie one after
  // the other, else row by row.
  Tally finish(const Chunk& chunk, const std::vector<SourcePlane>& sources, const Chunk& there,
               const FieldPlanes& to) {
    const Timed timed(finish_.profile,
                      product_ != nullptr ? at(product_->value) : finish_.profile->around_law());
    const auto first = there.y * grid_.width + there.x;
    for (std::size_t i = 0; i < rows_.size(); ++i) rows_[i] = located(product_->a[i]);
    for (std::size_t c = 0; c < out_.size(); ++c) {
      psi_[c] = located((*finish_.psi)[c]);
      delta_[c] = located((*finish_.delta)[c]);
      out_[c] = to.first + static_cast<std::int64_t>(c) * to.plane + first;
    }
    if (there.height == 1 || there.width == grid_.width) return finish_run(first, chunk.cells());
    const auto next_row = [&](const Operand& operand) {
      const bool is_packed = operand.is_local || is_read_[at(operand.row)];
      return is_packed ? chunk.width : sources[at(operand.row)].stride;
    };
    Tally sum;
    for (std::int64_t y = 0; y < chunk.height; ++y) {
      sum += finish_run(first + y * grid_.width, chunk.width);
      for (std::size_t c = 0; c < out_.size(); ++c) {
        psi_[c] += next_row((*finish_.psi)[c]);
        delta_[c] += next_row((*finish_.delta)[c]);
        out_[c] += grid_.width;
      }
      for (std::size_t i = 0; i < rows_.size(); ++i) rows_[i] += next_row(product_->a[i]);
    }
    return sum;
  }

  Tally finish_run(std::int64_t first, std::int64_t cells) {
    if (finish_.physics == nullptr) {
      for (std::size_t c = 0; c < out_.size(); ++c) std::copy(delta_[c], delta_[c] + cells, out_[c]);
      return {};
    }
    const auto& physics = *finish_.physics;
    const auto channels = static_cast<std::int64_t>(out_.size());
    const Advance step{psi_.data(),
                       delta_.data(),
                       out_.data(),
                       channels,
                       static_cast<float>(1 - physics.gamma),
                       static_cast<float>(physics.epsilon),
                       physics.normalise == Normalise::cell,
                       finish_.fires == nullptr ? nullptr : finish_.fires + first};
    if (product_ == nullptr) return kernels().advance(step, cells);
    const Product product{rows_.data(),
                          static_cast<std::int64_t>(rows_.size()),
                          product_->weights.data(),
                          product_->bias.data(),
                          nullptr,
                          channels,
                          Activation::none,
                          0.0F};
    return kernels().advance_product(product, step, cells);
  }

  const Region& region_;
  const std::vector<SourcePlane>& sources_;
  FieldPlanes state_;                                   // of a chunk alone, on the way
  std::vector<SourcePlane> in_state_;                   // the same as `sources_`, there
  std::array<std::vector<SourcePlane>, 2> in_between_;  // and in fields on the way
  const std::vector<Target>& targets_;
  const Layout& grid_;
  const Finish& finish_;
  RegionRun& runner_;
  const Cut& cut_;
  std::vector<Tally>& tallies_;  // of the chunks
  std::vector<const float*> cells_, psi_, delta_;
  std::vector<float*> out_;
  std::vector<bool> is_read_;        // of the sources, cell by cell
  const Region::Operator* product_;  // that runs as one with the step around the law, or null
  std::vector<const float*> rows_;   // its inputs
  Neighbours neighbours_;
  std::int64_t packed_size_;
  float* packed_;
};

}  // namespace

bool takes_steps_in_a_row(const Region& region, std::int64_t height, std::int64_t width) {
  if (region.reach == 0) return true;
  const auto cut = cut_of(region, height, width, /*is_bare=*/true);
  return cut.columns == width && (cut.count() == 1 || region.reach <= cut.chunk(cut.count() - 1).height);
}

Tally run_region(const Region& region, const std::vector<SourcePlane>& sources,
                 const std::vector<Target>& targets, const Layout& grid, bool torus, const Finish& finish,
                 const std::function<RegionRun&(std::size_t thread)>& runner) {
  const auto capacity = region.chunk();
  // Where rows do not matter, the grid is one long row.
  const bool is_one_row = region.reach == 0 && targets.empty() && all_have_halo(sources, false);
  const auto cut = is_one_row ? Cut(1, grid.size(), capacity)
                              : cut_of(region, grid.height, grid.width, all_have_halo(sources, false));
  std::vector<Tally> tallies(at(cut.count()));
  std::vector<std::unique_ptr<Worker>> workers(
      at(most_threads()));  // one for each thread, made where it runs
  const auto in_parallel = [&](std::int64_t count, const auto& work) {
    parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
      const auto thread = at(thread_index());
      auto& worker = workers.at(thread);
      if (!worker) {
        worker = std::make_unique<Worker>(region, sources, targets, grid, torus, finish, runner(thread), cut,
                                          tallies);
      }
      work(*worker, begin, end);
    });
  };
  const bool finishes = finish.out != nullptr;
  if (region.reach == 0 && !finishes && all_have_halo(sources, true)) {
    const auto cells = grid.size();
    in_parallel(ceil_div(cells, capacity), [&](Worker& worker, std::int64_t begin, std::int64_t end) {
      worker.run_whole(begin * capacity, std::min(end * capacity, cells));
    });
  } else if (region.reach > 0 && finish.steps > 1) {
    const auto shares = std::min(most_threads(), cut.count());
    Wavefront wavefront(cut.count(), finish.steps, shares);
    in_parallel(shares, [&](Worker& worker, std::int64_t /*begin*/, std::int64_t /*end*/) {
      wavefront.work(thread_index(),
                     [&](std::int64_t chunk, std::int64_t step) { worker.run_step(chunk, step); });
    });
  } else {
    in_parallel(cut.count(),
                [](Worker& worker, std::int64_t begin, std::int64_t end) { worker.run(begin, end); });
  }
  for (const auto& target : targets) {
    if (target.needs_halo) fill_halo(target.plane, grid, torus);
  }
  Tally sum;  // in the same order whoever ran what
  for (const auto& tally : tallies) sum += tally;
  return sum;
}

}  // namespace atheria
