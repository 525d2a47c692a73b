// Scattered cells, stepped by a kernel that takes any cells: a few hundred at a time, each as the sums over
// its surroundings that the law sees. Only matter is summed: vacuum adds nothing.

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <vector>

#include "kernels/kernels.hpp"
#include "parallel.hpp"
#include "philox.hpp"
#include "scattered.hpp"

namespace atheria {
namespace {

constexpr std::int32_t infinity = 0x7F800000;  // its bits
constexpr auto most_cells = Batch::most_cells;
constexpr auto at_once = static_cast<std::size_t>(FieldSums::at_once);

// A tile with the cells around it.
constexpr std::size_t field_side = tile::side + 2;

// The cells of the tiles around one, row by row, that are beside a cell of it.
constexpr std::array<Mask, 9> beside = {tile::east & tile::south,
                                        tile::south,
                                        tile::west & tile::south,  //
                                        tile::east,
                                        ~Mask{0},
                                        tile::west,  //
                                        tile::east & tile::north,
                                        tile::north,
                                        tile::west & tile::north};

// Steps batches, one after the other.
class Stepper {
 public:
  Stepper(const CellKernel& kernel, const ScatteredStep& work)
      : kernel_(kernel),
        work_(work),
        width_(work.next.front().width()),
        stride_(kernel.sums().size() * width_),
        field_(field_side * field_side * width_),
        sums_((most_cells + at_once) * stride_) {
    places_.fill(place_in_field(0, 4));
    for (const auto& sum : kernel.sums()) {
      tap_counts_.push_back(static_cast<std::int64_t>(sum.size()));
      for (const auto& tap : sum) {
        const auto cells = tap.dy * static_cast<std::int64_t>(field_side) + tap.dx;
        taps_.push_back({cells * static_cast<std::int64_t>(width_), tap.factor});
      }
    }
  }

  // Whether the cells stay finite.
  bool step(const Batch& batch) {
    size_ = 0;
    tiles_.clear();
    matter_.clear();
    for (auto i = batch.first_tile; i < batch.end_tile; ++i) add(work_.tiles[i]);
    add_up();
    const bool all_fire = work_.physics.fire_rate == 1;
    if (!all_fire) draw_fires();
    kernel_.step(sums_.data(), all_fire ? nullptr : fires_.data(), static_cast<std::int64_t>(size_),
                 work_.physics, answers_.data(), largest_.data());
    return settle();
  }

 private:
  struct Added {
    Mask* mask;  // becomes that of matter
    Mask evaluated;
    std::size_t cells, matter;  // evaluated; in it or beside
  };

  // What there is to do for a tile. What is far in memory is fetched meanwhile.
  void add(TileIndex index) {
    auto& next = work_.next[index.universe];
    auto& mask = next.cells.mask(index.tile);
    const auto cells_before = size_;
    const auto matter_before = matter_.size();
    auto* const numbers = next.overwrite(index.tile, mask);
    const auto place = next.cells.place(index.tile);
    tile::for_each(mask, [&](std::size_t cell) {
      places_[size_] = place_in_field(cell, 4);
      answers_[size_] = numbers + cell * width_;
      __builtin_prefetch(answers_[size_], 1);
      if (work_.physics.fire_rate < 1) place_at(place, cell, index.universe);
      ++size_;
    });
    const auto& now = work_.now[index.universe];
    const auto& around = next.cells.around(index.tile);
    for (std::size_t i = 0; i < around.size(); ++i) {
      const std::size_t tile = around[i];
      if (tile >= now.cells.tiles()) continue;  // planning kept the indices
      const auto* const known = now.tile(tile);
      tile::for_each(now.cells.mask(tile) & beside[i], [&](std::size_t cell) {
        matter_.push_back({known + cell * width_, place_in_field(cell, i)});
        __builtin_prefetch(matter_.back().numbers);
      });
    }
    tiles_.push_back({&mask, mask, size_ - cells_before, matter_.size() - matter_before});
  }

  // Where a cell of the nine tiles around the field's is in it.
  float* place_in_field(std::size_t cell, std::size_t tile) {
    const auto x = cell % 8 + 8 * (tile % 3) - 7;
    const auto y = cell / 8 + 8 * (tile / 3) - 7;
    return field_.data() + (y * field_side + x) * width_;
  }

  // The sums of all cells.
  void add_up() {
    const FieldSums what{taps_.data(), tap_counts_.data(), static_cast<std::int64_t>(tap_counts_.size()),
                         static_cast<std::int64_t>(width_)};
    const auto* matter = matter_.data();
    const auto* places = places_.data();
    auto* sums = sums_.data();
    for (const auto& added : tiles_) {
      kernels().sum_around(what, matter, static_cast<std::int64_t>(added.matter), places,
                           static_cast<std::int64_t>(added.cells), sums);
      matter += added.matter;
      places += added.cells;
      sums += added.cells * stride_;
    }
  }

  // Where matter is now.
  bool settle() {
    bool finite = true;
    const auto* of_cell = largest_.data();
    for (const auto& added : tiles_) {
      Mask matter = 0;
      tile::for_each(added.evaluated, [&](std::size_t cell) {
        matter |= Mask{*of_cell > 0} << cell;
        finite &= *of_cell < infinity;
        ++of_cell;
      });
      *added.mask = matter;
    }
    return finite;
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
  std::vector<FieldSums::Tap> taps_;
  std::vector<std::int64_t> tap_counts_;
  std::size_t size_ = 0;            // cells of the batch
  std::vector<Added> tiles_;        // of the batch
  std::vector<PlacedCell> matter_;  // in or beside each of them
  std::vector<float> field_;        // of one of them; 0 but while its sums are written
  std::vector<float> sums_;
  std::array<const float*, most_cells + at_once> places_;  // of the cells, in the field
  std::array<float*, most_cells> answers_;                 // where the cells go
  std::array<std::int32_t, most_cells> largest_;
  std::array<std::uint32_t, most_cells> x_, y_, stream_;
  std::array<std::uint8_t, most_cells> fires_;
};

}  // namespace

bool step_cells(const CellKernel& kernel, const ScatteredStep& work) {
  constexpr std::int64_t parts_a_share = 16;  // batches are few, and long
  std::vector<std::optional<Stepper>> steppers(static_cast<std::size_t>(most_threads()));
  std::atomic<bool> finite = true;
  parallel_for(
      static_cast<std::int64_t>(work.batches.size()),
      [&](std::int64_t begin, std::int64_t end) {
        auto& stepper = steppers[static_cast<std::size_t>(thread_index())];
        if (!stepper) stepper.emplace(kernel, work);
        for (auto i = begin; i < end; ++i) {
          if (!stepper->step(work.batches[static_cast<std::size_t>(i)])) finite = false;
        }
      },
      parts_a_share);
  return finite;
}

}  // namespace atheria
