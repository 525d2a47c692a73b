// Scattered cells, stepped in dense windows: blocks of tiles with a halo as wide as the law looks, aligned to
// its stride in absolute coordinates. The law pads a window in its own way, which the halo keeps from the
// block.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>

#include "integers.hpp"
#include "parallel.hpp"
#include "philox.hpp"
#include "scattered.hpp"
#include "vacuum.hpp"

namespace atheria {
namespace {

constexpr std::int64_t smallest_block = 32;   // a smaller one is mostly halo
constexpr std::int64_t most_cells = 1 << 17;  // of the windows that the law sees at once

std::int64_t floor_divided(std::int64_t value, std::int64_t by) {
  return value / by - (value % by < 0 ? 1 : 0);
}

struct Geometry {
  std::int64_t halo, block;

  Geometry(std::int64_t radius, std::int64_t stride)
      : halo(rounded_up(radius, stride)),
        block(rounded_up(std::max(2 * halo, smallest_block), std::lcm(tile::side, stride))) {}
  std::int64_t window() const { return block + 2 * halo; }
};

// A block, and which of the sorted tiles lie in it.
struct Block {
  std::size_t universe;
  std::int64_t x, y;  // of its first cell
  std::size_t first_tile, end_tile;
};

// The tiles in the order of their blocks, and the blocks.
class Blocks {
 public:
  Blocks(const ScatteredStep& work, std::int64_t side) : side_(side), tiles_(work.evaluation.tiles()) {
    const auto block_of = [&](const TileIndex& index) {
      const auto [x, y] = work.next[index.universe].cells.place(index.tile);
      return std::tuple(index.universe, floor_divided(y * tile::side, side_),
                        floor_divided(x * tile::side, side_));
    };
    std::sort(tiles_.begin(), tiles_.end(),
              [&](const TileIndex& a, const TileIndex& b) { return block_of(a) < block_of(b); });
    for (std::size_t i = 0; i < tiles_.size(); ++i) {
      const auto [universe, y, x] = block_of(tiles_[i]);
      if (i == 0 || block_of(tiles_[i - 1]) != block_of(tiles_[i])) {
        blocks_.push_back({universe, x * side_, y * side_, i, i});
      }
      blocks_.back().end_tile = i + 1;
    }
  }

  std::int64_t size() const { return static_cast<std::int64_t>(blocks_.size()); }
  const Block& operator[](std::int64_t i) const { return blocks_[static_cast<std::size_t>(i)]; }
  TileIndex tile(std::size_t i) const { return tiles_[i]; }

 private:
  std::int64_t side_;
  std::vector<TileIndex> tiles_;
  std::vector<Block> blocks_;
};

// Copies the matter in a window from (x, y) on into its planes.
void gather(const Tiles& now, std::int64_t x, std::int64_t y, std::int64_t side, float* planes) {
  const auto last_x = tile::of(x + side - 1);
  const auto last_y = tile::of(y + side - 1);
  for (auto tile_y = tile::of(y); tile_y <= last_y; ++tile_y) {
    for (auto tile_x = tile::of(x); tile_x <= last_x; ++tile_x) {
      const auto found = now.cells.find({tile_x, tile_y});
      if (found == CellSet::none) continue;
      tile::for_each(now.cells.mask(found), [&](std::size_t cell) {
        const auto column = tile_x * tile::side + tile::x_of(cell) - x;
        const auto row = tile_y * tile::side + tile::y_of(cell) - y;
        if (column < 0 || column >= side || row < 0 || row >= side) return;
        const auto* const numbers = now.tile(found) + cell * now.width();
        for (std::size_t c = 0; c < now.width(); ++c) {
          planes[(static_cast<std::int64_t>(c) * side + row) * side + column] = numbers[c];
        }
      });
    }
  }
}

float energy_of(const float* numbers, std::size_t width) {
  float energy = 0;
  for (std::size_t c = 0; c < width; ++c) energy += numbers[c] * numbers[c];
  return energy;
}

void scale(float* numbers, std::size_t width, float factor) {
  for (std::size_t c = 0; c < width; ++c) numbers[c] *= factor;
}

// As atheria::advance, of one cell. On entry `next` is what the law proposes; psi is null for vacuum.
void advance_cell(const float* psi, bool fires, const Physics& physics, float* next, std::size_t width) {
  const auto kept = static_cast<float>(1 - physics.gamma);
  for (std::size_t c = 0; c < width; ++c) {
    const float before = psi == nullptr ? 0.0F : psi[c];
    next[c] = fires ? kept * before + next[c] : before;
  }
  if (physics.epsilon > 0) {
    const bool is_matter = std::sqrt(energy_of(next, width)) > static_cast<float>(physics.epsilon);
    scale(next, width, is_matter ? 1.0F : 0.0F);
  }
  if (physics.normalise == Normalise::cell) {
    const auto energy = energy_of(next, width);
    const auto factor = std::isinf(energy) ? std::numeric_limits<float>::quiet_NaN() : 1 / std::sqrt(energy);
    scale(next, width, energy > 0 ? factor : 0.0F);
  }
}

class Windows {
 public:
  Windows(Law& law, std::int64_t radius, const ScatteredStep& work)
      : law_(law), work_(work), geometry_(radius, law.stride()), blocks_(work, geometry_.block) {
    if (work.physics.harmonic.level > 0) {
      const auto d_state = static_cast<std::int64_t>(work.next.front().width() / 2);
      vacuum_.emplace(work.physics.harmonic.level, d_state, work.seed, work.step);
    }
  }

  bool step() {
    const auto side = geometry_.window();
    const auto at_once = std::max<std::int64_t>(1, most_cells / (side * side));
    for (std::int64_t first = 0; first < blocks_.size(); first += at_once) {
      step_some(first, std::min(first + at_once, blocks_.size()));
    }
    return finite_;
  }

 private:
  void step_some(std::int64_t first, std::int64_t end) {
    const auto side = geometry_.window();
    const auto numbers = static_cast<std::int64_t>(work_.next.front().width()) * side * side;
    const auto psi = at::zeros({end - first, numbers / (side * side), side, side}, at::kFloat);
    auto* const fields = psi.data_ptr<float>();
    parallel_for(end - first, [&](std::int64_t begin, std::int64_t stop) {
      for (auto i = first + begin; i < first + stop; ++i) {
        const auto& block = blocks_[i];
        const auto x = block.x - geometry_.halo;
        const auto y = block.y - geometry_.halo;
        auto* const field = fields + (i - first) * numbers;
        if (vacuum_) fill_vacuum(x, y, field);
        gather(work_.now[block.universe], x, y, side, field);
      }
    });
    const auto proposed = law_.forward(psi, {}).delta;
    check_delta(proposed, psi);
    const auto delta = proposed.contiguous();
    const auto* const deltas = delta.data_ptr<float>();
    parallel_for(end - first, [&](std::int64_t begin, std::int64_t stop) {
      for (auto i = first + begin; i < first + stop; ++i) scatter(blocks_[i], deltas + (i - first) * numbers);
    });
  }

  void fill_vacuum(std::int64_t x, std::int64_t y, float* field) const {
    const auto side = geometry_.window();
    const auto d_state = static_cast<std::int64_t>(work_.next.front().width() / 2);
    for (std::int64_t i = 0; i < d_state; ++i) {
      vacuum_->fill(i, x, y, side, side, field + i * side * side, field + (d_state + i) * side * side);
    }
  }

  void scatter(const Block& block, const float* delta) {
    for (auto i = block.first_tile; i < block.end_tile; ++i) {
      const auto [universe, index] = blocks_.tile(i);
      auto& next = work_.next[universe];
      const auto& now = work_.now[universe];
      const auto place = next.cells.place(index);
      const auto mask = next.cells.mask(index);
      const auto matter = index < now.cells.tiles() ? now.cells.mask(index) : 0;  // planning kept the indices
      auto* const numbers = next.tile(index);
      tile::for_each(mask, [&](std::size_t cell) {
        const auto x = place.x * tile::side + tile::x_of(cell);
        const auto y = place.y * tile::side + tile::y_of(cell);
        auto* const own = numbers + cell * next.width();
        propose(delta, x - block.x, y - block.y, own, next.width());
        const bool is_matter = (matter & tile::bit(cell)) != 0;
        advance_cell(is_matter ? now.tile(index) + cell * now.width() : nullptr, fires(x, y, universe),
                     work_.physics, own, next.width());
      });
      if (!next.settle(index)) finite_ = false;
    }
  }

  // Copies the law's answer for the cell (x, y) of a block.
  void propose(const float* delta, std::int64_t x, std::int64_t y, float* own, std::size_t width) const {
    const auto side = geometry_.window();
    const auto* const first = delta + (y + geometry_.halo) * side + x + geometry_.halo;
    for (std::size_t c = 0; c < width; ++c) own[c] = first[static_cast<std::int64_t>(c) * side * side];
  }

  bool fires(std::int64_t x, std::int64_t y, std::size_t universe) const {
    if (work_.physics.fire_rate == 1) return true;
    Draws draws(work_.seed, x, y, work_.step, static_cast<std::int64_t>(universe), stream::fire);
    return is_below(draws.next(), work_.physics.fire_rate);
  }

  Law& law_;
  const ScatteredStep& work_;
  Geometry geometry_;
  Blocks blocks_;
  std::optional<HarmonicVacuum> vacuum_;
  std::atomic<bool> finite_ = true;
};

}  // namespace

bool step_windows(Law& law, std::int64_t radius, const ScatteredStep& work) {
  return Windows(law, radius, work).step();
}

}  // namespace atheria
