#include "sweep.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>

namespace atheria {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Cells in rows, one below the other at `stride`; `first` of them is (y, x) of the grid.
struct Rectangle {
  std::int64_t y, x, height, width, stride;
  std::int64_t run() const { return (height - 1) * stride + width; }
};

// Runs the region and deals with what it makes; of one thread.
class Worker {
 public:
  Worker(const Region& region, const std::vector<Place>& sources, const std::vector<Target>& targets,
         const Layout& grid, bool torus, const Finish& finish, RegionRun& runner)
      : region_(region),
        sources_(sources),
        targets_(targets),
        grid_(grid),
        torus_(torus),
        finish_(finish),
        runner_(runner),
        pointers_(sources.size()) {
    if (finish.out != nullptr) {
      psi_.resize(finish.psi->size());
      delta_.resize(finish.psi->size());
      out_.resize(finish.psi->size());
    }
  }

  // Cells that lie alike, one after the other, in all planes.
  void run_flat(std::int64_t first, std::int64_t cells, std::int64_t origin) {
    for (std::size_t s = 0; s < pointers_.size(); ++s) pointers_[s] = sources_[s].first - origin + first;
    runner_.run(pointers_.data(), 0, cells);
    for (const auto& target : targets_) {
      const float* const row = runner_.row(target.row);
      std::copy(row, row + cells, target.plane + first);
    }
    if (finish_.out != nullptr) finish(0, first, cells);
  }

  void run_tile(const Rectangle& r, float* tile, std::int64_t tile_floats) {
    gather(r, tile, tile_floats);
    runner_.run(pointers_.data(), r.stride, r.run());
    for (const auto& target : targets_) {
      for (std::int64_t y = 0; y < r.height; ++y) {
        const float* const row = runner_.row(target.row) + y * r.stride;
        std::copy(row, row + r.width, target.plane + grid_.first() + (r.y + y) * grid_.stride() + r.x);
      }
    }
    if (finish_.out == nullptr) return;
    for (std::int64_t y = 0; y < r.height; ++y) finish(y * r.stride, (r.y + y) * grid_.width + r.x, r.width);
  }

  double energy() const { return energy_; }

 private:
  const float* located(const Operand& operand, std::int64_t offset) const {
    return (operand.is_local ? runner_.row(operand.row) : pointers_[at(operand.row)]) + offset;
  }

  // The step around the law, of cells at `offset` in the rows and at `cell` of the grid.
  void finish(std::int64_t offset, std::int64_t cell, std::int64_t cells) {
    for (std::size_t c = 0; c < out_.size(); ++c) {
      delta_[c] = located((*finish_.delta)[c], offset);
      out_[c] = finish_.out + static_cast<std::int64_t>(c) * grid_.height * grid_.width + cell;
    }
    if (finish_.physics == nullptr) {
      for (std::size_t c = 0; c < out_.size(); ++c) std::copy(delta_[c], delta_[c] + cells, out_[c]);
      return;
    }
    for (std::size_t c = 0; c < out_.size(); ++c) psi_[c] = located((*finish_.psi)[c], offset);
    const auto& physics = *finish_.physics;
    energy_ += kernels().advance(
        {psi_.data(), delta_.data(), out_.data(), static_cast<std::int64_t>(out_.size()),
         static_cast<float>(1 - physics.gamma), static_cast<float>(physics.epsilon),
         physics.normalise == Normalise::cell, finish_.fires == nullptr ? nullptr : finish_.fires + cell},
        0, cells);
  }

  void gather(const Rectangle& r, float* tile, std::int64_t tile_floats) {
    const auto reach = region_.reach;
    for (std::size_t s = 0; s < sources_.size(); ++s) {
      float* const to = tile + static_cast<std::int64_t>(s) * tile_floats;
      for (std::int64_t dy = -reach; dy < r.height + reach; ++dy) {
        copy_row(sources_[s], r.y + dy, r.x, r.width, to + (dy + reach) * r.stride);
      }
      pointers_[s] = to + reach * r.stride + reach;
    }
  }

  void copy_row(const Place& from, std::int64_t y, std::int64_t x, std::int64_t width, float* to) const {
    const auto reach = region_.reach;
    if (!from.has_halo && torus_) y = (y % grid_.height + grid_.height) % grid_.height;
    if (!from.has_halo && (y < 0 || y >= grid_.height)) {
      std::fill(to, to + width + 2 * reach, 0.0F);
      return;
    }
    const float* const row = from.first + y * from.stride;
    if (from.has_halo || (x >= reach && x + width + reach <= grid_.width)) {
      std::copy(row + x - reach, row + x + width + reach, to);
      return;
    }
    std::copy(row + x, row + x + width, to + reach);
    for (std::int64_t i = 1; i <= reach; ++i) {
      to[reach - i] = cell_of(row, x - i);
      to[reach + width - 1 + i] = cell_of(row, x + width - 1 + i);
    }
  }

  float cell_of(const float* row, std::int64_t x) const {
    if (torus_) return row[(x % grid_.width + grid_.width) % grid_.width];
    return x < 0 || x >= grid_.width ? 0.0F : row[x];
  }

  const Region& region_;
  const std::vector<Place>& sources_;
  const std::vector<Target>& targets_;
  const Layout& grid_;
  bool torus_;
  const Finish& finish_;
  RegionRun& runner_;
  std::vector<const float*> pointers_, psi_, delta_;
  std::vector<float*> out_;
  double energy_ = 0;
};

// Whether cells lie alike in all planes, so that they can be run through regardless of rows.
bool is_flat(const Region& region, const std::vector<Place>& sources, const Layout& grid, const Finish& finish) {
  constexpr std::int64_t widest_vector = 16;
  const bool bare = finish.out != nullptr;
  if (region.reach > 0 || (bare && (!region.stored.empty() || grid.height * grid.width % widest_vector != 0))) {
    return false;
  }
  return std::all_of(sources.begin(), sources.end(), [&](const Place& place) { return place.has_halo != bare; });
}

}  // namespace

double run_region(const Region& region, const std::vector<Place>& sources, const std::vector<Target>& targets,
                  const Layout& grid, bool torus, const Finish& finish,
                  const std::function<RegionRun&(std::size_t thread)>& runner) {
  std::vector<double> energies(at(at::get_num_threads()), 0.0);
  const auto with_worker = [&](const auto& work) {
    const auto thread = at(at::get_thread_num());
    auto& of_thread = runner(thread);
    Worker worker(region, sources, targets, grid, torus, finish, of_thread);
    work(worker, of_thread);
    energies[thread % energies.size()] += worker.energy();
  };
  const auto capacity = region.chunk();
  if (is_flat(region, sources, grid, finish)) {
    const bool bare = finish.out != nullptr;
    const auto cells = bare ? grid.height * grid.width : grid.size();
    at::parallel_for(0, (cells + capacity - 1) / capacity, 1, [&](std::int64_t begin, std::int64_t end) {
      with_worker([&](Worker& worker, RegionRun&) {
        for (auto i = begin; i < end; ++i) {
          worker.run_flat(i * capacity, std::min(capacity, cells - i * capacity), bare ? 0 : grid.first());
        }
      });
    });
  } else {
    const auto reach = region.reach;
    const auto width = std::min(grid.width, std::min<std::int64_t>(capacity, 128) - 2 * reach);
    const auto height = std::clamp<std::int64_t>((capacity - width) / (width + 2 * reach) + 1, 1, grid.height);
    const auto columns = (grid.width + width - 1) / width;
    const auto rows = (grid.height + height - 1) / height;
    const auto tile_floats = (height + 2 * reach) * (width + 2 * reach);
    at::parallel_for(0, columns * rows, 1, [&](std::int64_t begin, std::int64_t end) {
      with_worker([&](Worker& worker, RegionRun& of_thread) {
        float* const tile = of_thread.tile(tile_floats * static_cast<std::int64_t>(sources.size()));
        for (auto i = begin; i < end; ++i) {
          const auto y = i / columns * height;
          const auto x = i % columns * width;
          const auto across = std::min(width, grid.width - x);
          worker.run_tile({y, x, std::min(height, grid.height - y), across, across + 2 * reach}, tile, tile_floats);
        }
      });
    });
  }
  for (const auto& target : targets) {
    if (target.needs_halo) fill_halo(target.plane, grid, torus);
  }
  return std::accumulate(energies.begin(), energies.end(), 0.0);
}

}  // namespace atheria
