#include "sweep.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "parallel.hpp"

namespace atheria {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr std::int64_t widest_vector = 16;
constexpr std::int64_t unit = 48;  // cells that a kernel takes at once, at most

// Whole rows of a grid, or a part of one.
struct Chunk {
  std::int64_t y, x, height, width;
  std::int64_t cells() const { return height * width; }
};

// How a grid is cut: rows of it where they are short, parts of rows where they are long.
struct Cut {
  std::int64_t height, width;  // of the grid
  std::int64_t rows = 1, columns;

  Cut(std::int64_t grid_height, std::int64_t grid_width, std::int64_t capacity)
      : height(grid_height), width(grid_width), columns(std::min(grid_width, capacity)) {
    if (width > capacity) return;
    double best = 0;
    for (std::int64_t r = 1; r <= std::min(height, capacity / width); ++r) {
      const auto cells = r * width;
      const auto filled = static_cast<double>(cells) / static_cast<double>((cells + unit - 1) / unit * unit);
      if (filled >= best) {
        best = filled;
        rows = r;
      }
    }
  }

  std::int64_t across() const { return (width + columns - 1) / columns; }
  std::int64_t count() const { return across() * ((height + rows - 1) / rows); }
  Chunk chunk(std::int64_t i) const {
    const auto y = i / across() * rows;
    const auto x = i % across() * columns;
    return {y, x, std::min(rows, height - y), std::min(columns, width - x)};
  }
};

// Runs the region and deals with what it makes; of one thread.
class Worker {
 public:
  Worker(const Region& region, const std::vector<Place>& sources, const std::vector<Target>& targets,
         const Layout& grid, bool torus, const Finish& finish, RegionRun& runner, std::int64_t capacity)
      : region_(region),
        sources_(sources),
        targets_(targets),
        grid_(grid),
        torus_(torus),
        finish_(finish),
        runner_(runner),
        cells_(sources.size()),
        neighbours_(sources.size()),
        packed_size_((capacity + widest_vector - 1) / widest_vector * widest_vector) {
    // Room for the rows above and below, and for the margins of every row, which are one cell wide at least.
    tile_size_ = (capacity + 2 * region.reach) * (2 * region.reach + 1) + 2 * region.reach * grid.width;
    const auto count = static_cast<std::int64_t>(sources.size());
    packed_ = runner.tile(count * (packed_size_ + tile_size_));
    tiles_ = packed_ + count * packed_size_;
    if (finish.out != nullptr) {
      psi_.resize(finish.psi->size());
      delta_.resize(finish.psi->size());
      out_.resize(finish.psi->size());
    }
  }

  // Planes that are run through from end to end, margins and all.
  void run_whole(std::int64_t first, std::int64_t cells) {
    for (std::size_t s = 0; s < cells_.size(); ++s) cells_[s] = sources_[s].first - grid_.first() + first;
    runner_.run(cells_.data(), nullptr, 0, 1, cells);
    for (const auto& target : targets_) {
      const float* const row = runner_.row(target.row);
      std::copy(row, row + cells, target.plane + first);
    }
  }

  void run(const Chunk& chunk) {
    for (std::size_t s = 0; s < sources_.size(); ++s) cells_[s] = packed(s, chunk);
    const auto stride = chunk.width + 2 * region_.reach;
    if (region_.reach > 0) gather(chunk, stride);
    runner_.run(cells_.data(), neighbours_.data(), stride, chunk.height, chunk.width);
    for (const auto& target : targets_) {
      for (std::int64_t y = 0; y < chunk.height; ++y) {
        const float* const row = runner_.row(target.row) + y * chunk.width;
        std::copy(row, row + chunk.width,
                  target.plane + grid_.first() + (chunk.y + y) * grid_.stride() + chunk.x);
      }
    }
    if (finish_.out != nullptr) finish(chunk);
  }

  const Tally& tally() const { return tally_; }

 private:
  // A source's cells one after the other: where they are, if nothing is read beyond the last one.
  const float* packed(std::size_t source, const Chunk& chunk) const {
    const auto& from = sources_[source];
    const float* const first = from.first + chunk.y * from.stride + chunk.x;
    const bool is_packed = chunk.height == 1 || from.stride == chunk.width;
    if (is_packed && (from.has_halo || chunk.cells() % widest_vector == 0)) return first;
    float* const to = packed_ + static_cast<std::int64_t>(source) * packed_size_;
    for (std::int64_t y = 0; y < chunk.height; ++y) {
      std::copy(first + y * from.stride, first + y * from.stride + chunk.width, to + y * chunk.width);
    }
    return to;
  }

  // Copies each source's cells with their neighbours, `stride` apart.
  void gather(const Chunk& chunk, std::int64_t stride) {
    const auto reach = region_.reach;
    for (auto dy = -reach; dy < chunk.height + reach; ++dy) {
      const auto y = chunk.y + dy;
      const auto inside = torus_ ? wrapped(y, grid_.height) : y;
      for (std::size_t s = 0; s < sources_.size(); ++s) {
        const auto& from = sources_[s];
        float* const to = tiles_ + static_cast<std::int64_t>(s) * tile_size_ + (dy + reach) * stride;
        if (from.has_halo) {
          copy(from.first + y * from.stride + chunk.x - reach, stride, to);
        } else if (inside < 0 || inside >= grid_.height) {
          std::fill(to, to + stride, 0.0F);
        } else {
          copy_bare(from.first + inside * from.stride, chunk.x, chunk.width, to);
        }
      }
    }
    for (std::size_t s = 0; s < sources_.size(); ++s) {
      neighbours_[s] = tiles_ + static_cast<std::int64_t>(s) * tile_size_ + reach * stride + reach;
    }
  }

  static void copy(const float* from, std::int64_t count, float* to) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
  }

  void copy_bare(const float* row, std::int64_t x, std::int64_t width, float* to) const {
    const auto reach = region_.reach;
    const auto left = std::min(reach, x);
    const auto right = std::min(reach, grid_.width - x - width);
    copy(row + x - left, left + width + right, to + reach - left);
    for (auto i = left + 1; i <= reach; ++i) to[reach - i] = torus_ ? row[wrapped(x - i, grid_.width)] : 0.0F;
    for (auto i = right; i < reach; ++i) {
      to[reach + width + i] = torus_ ? row[wrapped(x + width + i, grid_.width)] : 0.0F;
    }
  }

  static std::int64_t wrapped(std::int64_t i, std::int64_t size) {
    while (i < 0) i += size;
    while (i >= size) i -= size;
    return i;
  }

  const float* located(const Operand& operand) const {
    return operand.is_local ? runner_.row(operand.row) : cells_[at(operand.row)];
  }

  // The step around the law. A chunk is contiguous in the bare grid.
  void finish(const Chunk& chunk) {
    const auto first = chunk.y * grid_.width + chunk.x;
    for (std::size_t c = 0; c < out_.size(); ++c) {
      delta_[c] = located((*finish_.delta)[c]);
      out_[c] = finish_.out + static_cast<std::int64_t>(c) * grid_.height * grid_.width + first;
    }
    if (finish_.physics == nullptr) {
      for (std::size_t c = 0; c < out_.size(); ++c) std::copy(delta_[c], delta_[c] + chunk.cells(), out_[c]);
      return;
    }
    for (std::size_t c = 0; c < out_.size(); ++c) psi_[c] = located((*finish_.psi)[c]);
    const auto& physics = *finish_.physics;
    tally_ += kernels().advance(
        {psi_.data(), delta_.data(), out_.data(), static_cast<std::int64_t>(out_.size()),
         static_cast<float>(1 - physics.gamma), static_cast<float>(physics.epsilon),
         physics.normalise == Normalise::cell, finish_.fires == nullptr ? nullptr : finish_.fires + first},
        chunk.cells());
  }

  const Region& region_;
  const std::vector<Place>& sources_;
  const std::vector<Target>& targets_;
  const Layout& grid_;
  bool torus_;
  const Finish& finish_;
  RegionRun& runner_;
  std::vector<const float*> cells_, neighbours_, psi_, delta_;
  std::vector<float*> out_;
  std::int64_t packed_size_, tile_size_;
  float *packed_, *tiles_;
  Tally tally_;
};

bool all_have_halo(const std::vector<Place>& sources, bool wanted) {
  return std::all_of(sources.begin(), sources.end(),
                     [&](const Place& place) { return place.has_halo == wanted; });
}

}  // namespace

Tally run_region(const Region& region, const std::vector<Place>& sources, const std::vector<Target>& targets,
                 const Layout& grid, bool torus, const Finish& finish,
                 const std::function<RegionRun&(std::size_t thread)>& runner) {
  const auto capacity = region.chunk();
  std::vector<std::unique_ptr<Worker>> workers(
      at(most_threads()));  // one for each thread, made where it runs
  const auto in_parallel = [&](std::int64_t count, const auto& work) {
    parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
      const auto thread = at(thread_index());
      auto& worker = workers.at(thread);
      if (!worker) {
        worker =
            std::make_unique<Worker>(region, sources, targets, grid, torus, finish, runner(thread), capacity);
      }
      for (auto i = begin; i < end; ++i) work(*worker, i);
    });
  };
  const bool finishes = finish.out != nullptr;
  if (region.reach == 0 && !finishes && all_have_halo(sources, true)) {
    const auto cells = grid.size();
    in_parallel((cells + capacity - 1) / capacity, [&](Worker& worker, std::int64_t i) {
      worker.run_whole(i * capacity, std::min(capacity, cells - i * capacity));
    });
  } else {
    // Where rows do not matter, the grid is one long row.
    const bool is_one_row = region.reach == 0 && targets.empty() && all_have_halo(sources, false);
    const Cut cut(is_one_row ? 1 : grid.height, is_one_row ? grid.height * grid.width : grid.width, capacity);
    in_parallel(cut.count(), [&](Worker& worker, std::int64_t i) { worker.run(cut.chunk(i)); });
  }
  for (const auto& target : targets) {
    if (target.needs_halo) fill_halo(target.plane, grid, torus);
  }
  Tally sum;
  for (const auto& worker : workers) {
    if (worker) sum += worker->tally();
  }
  return sum;
}

}  // namespace atheria
