// Scattered cells, stepped by a kernel that takes any cells: a few hundred at a time, each as pointers to its
// neighbours.

#include <array>
#include <atomic>
#include <memory>

#include "parallel.hpp"
#include "philox.hpp"
#include "scattered.hpp"

namespace atheria {
namespace {

constexpr std::size_t chunk_cells = 240;  // whole vectors of every width, five blocks of a product

// Cells gathered for one call of the kernel, and where its answers go.
class Chunk {
 public:
  Chunk(const CellKernel& kernel, const ScatteredStep& work)
      : kernel_(kernel),
        work_(work),
        width_(work.next.front().width()),
        seen_(kernel.radius() == 0 ? 1 : 9),
        vacuum_(tile::cells * width_, 0.0F),
        neighbours_(std::make_unique_for_overwrite<const float*[]>(chunk_cells * seen_)),
        answers_(std::make_unique_for_overwrite<float[]>(chunk_cells * width_)) {
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      const auto cells = static_cast<std::ptrdiff_t>(i / 3) * tile::side + static_cast<std::ptrdiff_t>(i % 3);
      offsets_[i] = (cells - tile::side - 1) * static_cast<std::ptrdiff_t>(width_);
    }
  }

  void add(TileIndex index) {
    auto& next = work_.next[index.universe];
    auto& mask = next.cells.mask(index.tile);
    const auto evaluated = mask;
    mask = 0;
    auto* const answers = next.overwrite(index.tile, evaluated);
    const auto around = tiles_around(index, evaluated);
    const auto place = next.cells.place(index.tile);
    tile::for_each(evaluated, [&](std::size_t cell) {
      point(around, cell);
      goals_[size_] = {answers + cell * width_, &mask, cell};
      if (work_.physics.fire_rate < 1) place_at(place, cell, index.universe);
      if (++size_ == chunk_cells) flush();
    });
  }

  void flush() {
    if (size_ == 0) return;
    const bool all_fire = work_.physics.fire_rate == 1;
    if (!all_fire) draw_fires();
    kernel_.step(neighbours_.get(), all_fire ? nullptr : fires_.data(), static_cast<std::int64_t>(size_),
                 work_.physics, answers_.get());
    for (std::size_t i = 0; i < size_; ++i) {
      const auto* const answer = answers_.get() + i * width_;
      const auto& goal = goals_[i];
      std::copy_n(answer, width_, goal.numbers);
      const auto content = Content::of(answer, width_);
      finite_ &= content.finite;
      *goal.mask |= Mask{content.occupied} << goal.cell;
    }
    size_ = 0;
  }

  bool is_finite() const { return finite_; }

 private:
  using Around = std::array<const float*, 9>;  // the first cells of a tile and those around it

  struct Goal {
    float* numbers;
    Mask* mask;
    std::size_t cell;
  };

  // Only tiles that the cells evaluated look into are searched for.
  Around tiles_around(TileIndex index, Mask evaluated) const {
    const auto& now = work_.now[index.universe];
    const auto& cells = work_.next[index.universe].cells;
    const auto numbers = [&](std::size_t tile) {
      return tile < now.cells.tiles() ? now.tile(tile) : vacuum_.data();
    };
    Around around;
    around.fill(vacuum_.data());
    around[4] = numbers(index.tile);  // planning kept the indices
    if (seen_ == 1) return around;
    const auto place = cells.place(index.tile);
    const std::array<Mask, 3> columns = {tile::west, ~Mask{0}, tile::east};
    const std::array<Mask, 3> rows = {tile::north, ~Mask{0}, tile::south};
    for (std::size_t i = 0; i < around.size(); ++i) {
      if (i == 4 || (evaluated & columns[i % 3] & rows[i / 3]) == 0) continue;
      const auto x = place.x + static_cast<std::int64_t>(i % 3) - 1;
      const auto y = place.y + static_cast<std::int64_t>(i / 3) - 1;
      const auto found = cells.find({x, y});
      if (found != CellSet::none) around[i] = numbers(found);
    }
    return around;
  }

  void point(const Around& around, std::size_t cell) {
    auto* const pointers = neighbours_.get() + size_ * seen_;
    const auto* const own = around[4] + cell * width_;
    constexpr Mask edge = tile::west | tile::east | tile::north | tile::south;
    if (seen_ == 1) {
      *pointers = own;
    } else if ((edge & tile::bit(cell)) == 0) {
      for (std::size_t i = 0; i < 9; ++i) pointers[i] = own + offsets_[i];
    } else {
      for (std::size_t i = 0; i < 9; ++i) {
        const auto x = cell % 8 + i % 3 + 7;  // plus 8, of which a tile's side is beyond an edge or not
        const auto y = cell / 8 + i / 3 + 7;
        pointers[i] = around[(y / 8) * 3 + x / 8] + ((y % 8) * 8 + x % 8) * width_;
      }
    }
  }

  void place_at(Place place, std::size_t cell, std::size_t universe) {
    x_[size_] = static_cast<std::uint32_t>(place.x * tile::side) + static_cast<std::uint32_t>(cell % 8);
    y_[size_] = static_cast<std::uint32_t>(place.y * tile::side) + static_cast<std::uint32_t>(cell / 8);
    stream_[size_] = static_cast<std::uint32_t>(universe) * stream::count + stream::fire;
  }

  void draw_fires() {
    const auto step = static_cast<std::uint32_t>(work_.step);
    const auto rate = static_cast<float>(work_.physics.fire_rate);
    for (std::size_t i = 0; i < size_; ++i) {
      fires_[i] = uniform(philox({x_[i], y_[i], step, stream_[i]}, work_.seed)[0]) < rate;
    }
  }

  const CellKernel& kernel_;
  const ScatteredStep& work_;
  std::size_t width_;
  std::size_t seen_;  // cells that one looks at
  std::size_t size_ = 0;
  bool finite_ = true;
  std::vector<float> vacuum_;
  std::unique_ptr<const float*[]> neighbours_;
  std::unique_ptr<float[]> answers_;
  std::array<std::ptrdiff_t, 9> offsets_;
  std::array<Goal, chunk_cells> goals_;
  std::array<std::uint32_t, chunk_cells> x_, y_, stream_;
  std::array<std::uint8_t, chunk_cells> fires_;
};

}  // namespace

bool step_cells(const CellKernel& kernel, const ScatteredStep& work) {
  std::atomic<bool> finite = true;
  const auto tiles = static_cast<std::int64_t>(work.tiles.size());
  parallel_for(tiles, [&](std::int64_t begin, std::int64_t end) {
    Chunk chunk(kernel, work);
    for (auto i = begin; i < end; ++i) chunk.add(work.tiles[static_cast<std::size_t>(i)]);
    chunk.flush();
    if (!chunk.is_finite()) finite = false;
  });
  return finite;
}

}  // namespace atheria
