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

// A tile with the cells around it, and how many are laid out at once: no more than make so many cells.
constexpr std::size_t field_side = tile::side + 2;
constexpr std::size_t field_cells = field_side * field_side;
constexpr std::size_t fields = 8;
constexpr std::size_t group_cells = 16;

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

// Where the cells of the nine tiles around a field's are in it; those that are not beside it, anywhere.
constexpr auto places_in_field = [] {
  std::array<std::array<std::uint16_t, tile::cells>, 9> places{};
  for (std::size_t around = 0; around < places.size(); ++around) {
    for (std::size_t cell = 0; cell < tile::cells; ++cell) {
      const auto column = static_cast<std::int64_t>(around % 3), row = static_cast<std::int64_t>(around / 3);
      const auto x = tile::x_of(cell) + tile::side * column - (tile::side - 1);
      const auto y = tile::y_of(cell) + tile::side * row - (tile::side - 1);
      places[around][cell] = static_cast<std::uint16_t>(y * field_side + x);
    }
  }
  return places;
}();

// Steps batches, one after the other.
class Stepper {
 public:
  Stepper(const CellKernel& kernel, const ScatteredStep& work)
      : kernel_(kernel),
        work_(work),
        width_(work.next.front().width()),
        stride_(kernel.sums().size() * width_),
        fields_(fields * field_cells * width_),
        sums_((most_cells + at_once) * stride_) {
    places_.fill(fields_.data() + places_in_field[4][0] * width_);
    for (const auto& sum : kernel.sums()) {
      tap_counts_.push_back(static_cast<std::int64_t>(sum.size()));
      for (const auto& tap : sum) {
        const auto cells = tap.dy * static_cast<std::int64_t>(field_side) + tap.dx;
        taps_.push_back({cells * static_cast<std::int64_t>(width_), tap.factor});
      }
    }
  }

  // Whether the cells stay finite.
  bool step(const Batch& batch, Listing& listing) {
    listing.is_whole ? locate(batch, listing) : list(batch, listing);
    add_up(listing);
    const bool all_fire = work_.physics.fire_rate == 1;
    if (!all_fire) draw_fires(batch, listing);
    const auto count = listing.groups.back().end_cell;
    kernel_.step(sums_.data(), all_fire ? nullptr : fires_.data(), static_cast<std::int64_t>(count),
                 work_.physics, answers_.data(), largest_.data());
    return settle(batch, listing);
  }

 private:
  // Lists what there is to do, and finds it in memory.
  void list(const Batch& batch, Listing& listing) {
    listing.groups.clear();
    std::size_t cells = 0;
    std::size_t matter = 0;
    std::size_t first_cell = 0;  // of the group
    std::size_t first_tile = 0;
    const auto tiles = batch.end_tile - batch.first_tile;
    for (std::size_t own = 0; own < tiles; ++own) {
      const auto [universe, tile] = work_.evaluation.tiles()[batch.first_tile + own];
      const auto& next = work_.next[universe].cells;
      const auto& now = work_.now[universe].cells;
      const auto field = (own - first_tile) * field_cells;
      const auto own_byte = static_cast<std::uint8_t>(own);
      auto* const answers = work_.next[universe].tile(tile);
      tile::for_each(next.mask(tile), [&](std::size_t cell) {
        const auto placed = static_cast<std::uint16_t>(field + places_in_field[4][cell]);
        const Listing::Cell listed{placed, static_cast<std::uint8_t>(cell), own_byte};
        listing.cells[cells] = listed;
        place(cells++, listed, answers);
      });
      make_room(listing, matter + field_cells);
      auto* to_list = listing.matter.data() + matter;
      auto* to_find = matter_.data() + matter;
      const auto* const numbers = work_.now[universe].tile(0);
      const auto& around = next.around(tile);
      for (std::size_t i = 0; i < around.size(); ++i) {
        const auto index = around[i];
        if (index >= now.tiles()) continue;  // planning kept the indices
        tile::for_each(now.mask(index) & beside[i], [&](std::size_t cell) {
          const auto placed = static_cast<std::uint16_t>(field + places_in_field[i][cell]);
          *to_list = {index, placed, static_cast<std::uint8_t>(cell), own_byte};
          *to_find++ = found(*to_list++, numbers);
        });
      }
      matter = static_cast<std::size_t>(to_find - matter_.data());
      if (own + 1 == tiles || own + 1 == first_tile + fields || cells >= first_cell + group_cells) {
        listing.groups.push_back({cells, matter});
        first_cell = cells;
        first_tile = own + 1;
      }
    }
    listing.is_whole = true;
  }

  void make_room(Listing& listing, std::size_t matter) {
    if (listing.matter.size() < matter) listing.matter.resize(2 * matter);
    if (matter_.size() < matter) matter_.resize(2 * matter);
  }

  // Finds in memory what is listed already.
  void locate(const Batch& batch, const Listing& listing) {
    std::array<const float*, most_cells> now;
    std::array<float*, most_cells> next;
    for (auto i = batch.first_tile; i < batch.end_tile; ++i) {
      const auto [universe, tile] = work_.evaluation.tiles()[i];
      now[i - batch.first_tile] = work_.now[universe].tile(0);
      next[i - batch.first_tile] = work_.next[universe].tile(tile);
    }
    const auto [cells, matter] = listing.groups.back();
    for (std::size_t i = 0; i < cells; ++i) place(i, listing.cells[i], next[listing.cells[i].tile]);
    if (matter_.size() < matter) matter_.resize(matter);
    for (std::size_t i = 0; i < matter; ++i) {
      matter_[i] = found(listing.matter[i], now[listing.matter[i].tile]);
    }
  }

  // What is far in memory is fetched meanwhile.
  void place(std::size_t i, const Listing::Cell& listed, float* answers) {
    places_[i] = fields_.data() + listed.place * width_;
    answers_[i] = answers + listed.cell * width_;
    __builtin_prefetch(answers_[i], 1);
  }

  PlacedCell found(const Listing::Matter& listed, const float* numbers) {
    const auto* const own = numbers + (listed.index * tile::cells + listed.cell) * width_;
    __builtin_prefetch(own);
    return {own, fields_.data() + listed.place * width_};
  }

  // The sums of all cells.
  void add_up(const Listing& listing) {
    const FieldSums what{taps_.data(), tap_counts_.data(), static_cast<std::int64_t>(tap_counts_.size()),
                         static_cast<std::int64_t>(width_)};
    std::size_t cell = 0;
    std::size_t matter = 0;
    for (const auto& [end_cell, end_matter] : listing.groups) {
      kernels().sum_around(what, matter_.data() + matter, static_cast<std::int64_t>(end_matter - matter),
                           places_.data() + cell, static_cast<std::int64_t>(end_cell - cell),
                           sums_.data() + cell * stride_);
      cell = end_cell;
      matter = end_matter;
    }
  }

  // Says where matter is now; whether it is finite.
  bool settle(const Batch& batch, const Listing& listing) {
    std::array<Mask, most_cells> matter;
    const auto tiles = batch.end_tile - batch.first_tile;
    std::fill_n(matter.begin(), tiles, 0);
    std::int32_t most = 0;
    for (std::size_t i = 0; i < listing.groups.back().end_cell; ++i) {
      const auto& listed = listing.cells[i];
      matter[listed.tile] |= Mask{largest_[i] > 0} << listed.cell;
      most = std::max(most, largest_[i]);
    }
    for (std::size_t own = 0; own < tiles; ++own) {
      const auto [universe, tile] = work_.evaluation.tiles()[batch.first_tile + own];
      work_.next[universe].cells.mask(tile) = matter[own];
    }
    return most < infinity;
  }

  void draw_fires(const Batch& batch, const Listing& listing) {
    const auto step = static_cast<std::uint32_t>(work_.step);
    std::array<std::uint32_t, most_cells> x, y, streams;
    const auto count = listing.groups.back().end_cell;
    for (std::size_t i = 0; i < count; ++i) {
      const auto& listed = listing.cells[i];
      const auto [universe, tile] = work_.evaluation.tiles()[batch.first_tile + listed.tile];
      const auto place = work_.next[universe].cells.place(tile);
      x[i] = static_cast<std::uint32_t>(place.x * tile::side + tile::x_of(listed.cell));
      y[i] = static_cast<std::uint32_t>(place.y * tile::side + tile::y_of(listed.cell));
      streams[i] = static_cast<std::uint32_t>(universe) * stream::count + stream::fire;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const auto word = philox({x[i], y[i], step, streams[i]}, work_.seed)[0];
      fires_[i] = is_below(word, work_.physics.fire_rate);
    }
  }

  const CellKernel& kernel_;
  const ScatteredStep& work_;
  std::size_t width_;
  std::size_t stride_;  // numbers of all sums of a cell
  std::vector<FieldSums::Tap> taps_;
  std::vector<std::int64_t> tap_counts_;
  std::vector<PlacedCell> matter_;
  std::vector<float> fields_;  // 0 but while sums are written
  std::vector<float> sums_;
  std::array<const float*, most_cells + at_once> places_;  // of the cells, in the fields
  std::array<float*, most_cells> answers_;                 // where the cells go
  std::array<std::int32_t, most_cells> largest_;
  std::array<std::uint8_t, most_cells> fires_;
};

}  // namespace

bool step_cells(const CellKernel& kernel, const ScatteredStep& work) {
  constexpr std::int64_t parts_a_share = 16;  // batches are few, and long
  std::vector<std::optional<Stepper>> steppers(static_cast<std::size_t>(most_threads()));
  std::atomic<bool> finite = true;
  parallel_for(
      static_cast<std::int64_t>(work.evaluation.batches().size()),
      [&](std::int64_t begin, std::int64_t end) {
        auto& stepper = steppers[static_cast<std::size_t>(thread_index())];
        if (!stepper) stepper.emplace(kernel, work);
        for (auto i = begin; i < end; ++i) {
          const auto batch = static_cast<std::size_t>(i);
          if (!stepper->step(work.evaluation.batches()[batch], work.evaluation.listing(batch)))
            finite = false;
        }
      },
      parts_a_share);
  return finite;
}

}  // namespace atheria
