// Scattered cells, stepped by a kernel that takes any cells: a few hundred at a time, each as the sums over
// its surroundings that the law sees. Only matter is summed: vacuum adds nothing.

#include <algorithm>
#include <array>
#include <atomic>
#include <vector>

#include "kernels/kernels.hpp"
#include "parallel.hpp"
#include "philox.hpp"
#include "scattered.hpp"

namespace atheria {
namespace {

constexpr std::int32_t infinity = 0x7F800000;  // its bits
constexpr std::size_t chunk_cells = 240;       // whole vectors of every width, five blocks of a product

// A tile and the eight around it, row by row. dx and dy: 0 for the neighbour before, 1 for the cell itself, 2
// for the one behind.
struct Around {
  std::array<const float*, 9> numbers;  // of a tile's first cell, where there is matter
  std::array<Mask, 9> matter;

  // The tile's cells of which that neighbour is matter.
  Mask beside_matter(std::size_t dx, std::size_t dy) const {
    if (dy == 1) return in_row(1, dx);
    return dy == 0 ? in_row(1, dx) << 8 | in_row(0, dx) >> 56 : in_row(1, dx) >> 8 | in_row(2, dx) << 56;
  }

  // The numbers of that neighbour of a cell.
  const float* find(std::size_t cell, std::size_t dx, std::size_t dy, std::size_t width) const {
    const auto x = cell % 8 + dx + 7;  // plus 8, of which a tile's side is beyond an edge or not
    const auto y = cell / 8 + dy + 7;
    return numbers[(y / 8) * 3 + x / 8] + ((y % 8) * 8 + x % 8) * width;
  }

 private:
  Mask in_row(std::size_t tiles, std::size_t dx) const {
    const auto own = matter[3 * tiles + 1];
    if (dx == 1) return own;
    return dx == 0 ? (own & ~tile::east) << 1 | (matter[3 * tiles] & tile::east) >> 7
                   : (own & ~tile::west) >> 1 | (matter[3 * tiles + 2] & tile::west) << 7;
  }
};

// Cells gathered for one call of the kernel, and where its answers go.
class Chunk {
 public:
  Chunk(const CellKernel& kernel, const ScatteredStep& work)
      : kernel_(kernel),
        work_(work),
        width_(work.next.front().width()),
        stride_(kernel.sums().size() * width_),
        sums_(chunk_cells * stride_, 0.0F) {
    for (const auto& sum : kernel.sums()) {
      for (const auto& tap : sum) is_seen_[place_of(tap)] = true;
    }
    for (auto& pairs : pairs_) pairs.reserve(chunk_cells);
  }

  void add(TileIndex index) {
    auto& next = work_.next[index.universe];
    auto& mask = next.cells.mask(index.tile);
    const auto evaluated = mask;
    if (size_ + tile::count(evaluated) > chunk_cells) flush();
    tiles_.push_back({&mask, evaluated});
    auto* const numbers = next.overwrite(index.tile, evaluated);
    const auto place = next.cells.place(index.tile);
    std::array<float*, tile::cells> sums;
    tile::for_each(evaluated, [&](std::size_t cell) {
      sums[cell] = sums_.data() + size_ * stride_;
      answers_[size_] = numbers + cell * width_;
      if (work_.physics.fire_rate < 1) place_at(place, cell, index.universe);
      ++size_;
    });
    const auto around = look_around(index);
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      if (!is_seen_[i]) continue;
      tile::for_each(around.beside_matter(i % 3, i / 3) & evaluated, [&](std::size_t cell) {
        pairs_[i].push_back({around.find(cell, i % 3, i / 3, width_), sums[cell]});
      });
    }
  }

  void flush() {
    if (size_ == 0) return;
    const bool all_fire = work_.physics.fire_rate == 1;
    if (!all_fire) draw_fires();
    add_up();
    kernel_.step(sums_.data(), all_fire ? nullptr : fires_.data(), static_cast<std::int64_t>(size_),
                 work_.physics, answers_.data(), largest_.data());
    const auto* of_cell = largest_.data();
    for (const auto& [mask, evaluated] : tiles_) {
      Mask matter = 0;
      tile::for_each(evaluated, [&](std::size_t cell) {
        matter |= Mask{*of_cell > 0} << cell;
        finite_ &= *of_cell < infinity;
        ++of_cell;
      });
      *mask = matter;
    }
    std::fill_n(sums_.begin(), size_ * stride_, 0.0F);
    for (auto& pairs : pairs_) pairs.clear();
    tiles_.clear();
    size_ = 0;
  }

  bool is_finite() const { return finite_; }

 private:
  struct Evaluated {
    Mask* mask;  // becomes that of matter
    Mask cells;
  };

  static std::size_t place_of(const NeighbourTap& tap) {
    return static_cast<std::size_t>(3 * (tap.dy + 1) + tap.dx + 1);
  }

  Around look_around(TileIndex index) const {
    const auto& now = work_.now[index.universe];
    const auto& next = work_.next[index.universe].cells;
    Around around;
    const auto put = [&](std::size_t i, std::size_t tile) {  // planning kept the indices
      around.numbers[i] = now.tile(tile);
      around.matter[i] = now.cells.mask(tile);
    };
    for (std::size_t i = 0; i < around.matter.size(); ++i) {
      around.matter[i] = 0;
      if (kernel_.radius() == 0) continue;
      if (const auto tile = next.reaching(index.tile)[i]; tile != nobody) put(i, tile);
    }
    if (index.tile < now.cells.tiles()) put(4, index.tile);
    return around;
  }

  void add_up() {
    std::int64_t offset = 0;
    for (const auto& sum : kernel_.sums()) {
      for (const auto& tap : sum) {
        const auto& pairs = pairs_[place_of(tap)];
        kernels().add_cells(pairs.data(), static_cast<std::int64_t>(pairs.size()), tap.factor,
                            static_cast<std::int64_t>(width_), offset);
      }
      offset += static_cast<std::int64_t>(width_);
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
  std::size_t stride_;  // numbers of all sums of a cell
  std::size_t size_ = 0;
  bool finite_ = true;
  std::array<bool, 9> is_seen_{};
  std::array<std::vector<CellPair>, 9> pairs_;  // matter and the sums that it is part of, by its place there
  std::vector<float> sums_;                     // 0 where nothing is added yet
  std::vector<Evaluated> tiles_;
  std::array<float*, chunk_cells> answers_;  // where they go
  std::array<std::int32_t, chunk_cells> largest_;
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
