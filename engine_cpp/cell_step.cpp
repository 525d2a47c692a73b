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

// A tile with the cells around it, and how many are laid out at once.
constexpr std::size_t field_side = tile::side + 2;
constexpr std::size_t field_cells = field_side * field_side;
constexpr std::size_t fields = 8;

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

// Where a cell of one of the nine tiles around a field's is in it.
std::size_t place_in_field(std::size_t cell, std::size_t around) {
  const auto x = cell % 8 + 8 * (around % 3) - 7;
  const auto y = cell / 8 + 8 * (around / 3) - 7;
  return y * field_side + x;
}

void list(const Batch& batch, const ScatteredStep& work, Listing& listing) {
  listing.is_whole = false;
  listing.cells.clear();
  listing.matter.clear();
  listing.groups.clear();
  const auto tiles = batch.end_tile - batch.first_tile;
  for (std::size_t own = 0; own < tiles; ++own) {
    const auto [universe, tile] = work.tiles[batch.first_tile + own];
    const auto& next = work.next[universe].cells;
    const auto& now = work.now[universe].cells;
    const auto field = own % fields * field_cells;
    const auto placed = [&](std::size_t cell, std::size_t around) {
      return static_cast<std::uint16_t>(field + place_in_field(cell, around));
    };
    const auto own_byte = static_cast<std::uint8_t>(own);
    tile::for_each(next.mask(tile), [&](std::size_t cell) {
      listing.cells.push_back({placed(cell, 4), static_cast<std::uint8_t>(cell), own_byte});
    });
    const auto& around = next.around(tile);
    for (std::size_t i = 0; i < around.size(); ++i) {
      const auto index = around[i];
      if (index >= now.tiles()) continue;  // planning kept the indices
      tile::for_each(now.mask(index) & beside[i], [&](std::size_t cell) {
        listing.matter.push_back({index, placed(cell, i), static_cast<std::uint8_t>(cell), own_byte});
      });
    }
    if (own % fields == fields - 1 || own + 1 == tiles) {
      listing.groups.push_back({listing.cells.size(), listing.matter.size()});
    }
  }
  listing.is_whole = true;
}

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
    places_.fill(fields_.data() + place_in_field(0, 4) * width_);
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
    if (!listing.is_whole) list(batch, work_, listing);
    locate(batch, listing);
    add_up(listing);
    const bool all_fire = work_.physics.fire_rate == 1;
    if (!all_fire) draw_fires(batch, listing);
    const auto count = listing.cells.size();
    kernel_.step(sums_.data(), all_fire ? nullptr : fires_.data(), static_cast<std::int64_t>(count),
                 work_.physics, answers_.data(), largest_.data());
    settle(batch, listing);
    return *std::max_element(largest_.begin(), largest_.begin() + count) < infinity;
  }

 private:
  // Finds in memory what is listed; what is far is fetched meanwhile.
  void locate(const Batch& batch, const Listing& listing) {
    std::array<const float*, most_cells> now;
    std::array<float*, most_cells> next;
    for (auto i = batch.first_tile; i < batch.end_tile; ++i) {
      const auto [universe, tile] = work_.tiles[i];
      now[i - batch.first_tile] = work_.now[universe].tile(0);
      next[i - batch.first_tile] = work_.next[universe].tile(tile);
    }
    auto* answer = answers_.data();
    auto* at = places_.data();
    for (const auto& [place, cell, tile] : listing.cells) {
      *at++ = fields_.data() + place * width_;
      *answer++ = next[tile] + cell * width_;
      __builtin_prefetch(answer[-1], 1);
    }
    matter_.resize(listing.matter.size());
    auto* matter = matter_.data();
    for (const auto& [index, place, cell, tile] : listing.matter) {
      *matter++ = {now[tile] + (index * tile::cells + cell) * width_, fields_.data() + place * width_};
      __builtin_prefetch(matter[-1].numbers);
    }
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

  // Where matter is now.
  void settle(const Batch& batch, const Listing& listing) {
    std::array<Mask, most_cells> matter;
    const auto tiles = batch.end_tile - batch.first_tile;
    std::fill_n(matter.begin(), tiles, 0);
    const auto* size = largest_.data();
    for (const auto& listed : listing.cells) matter[listed.tile] |= Mask{*size++ > 0} << listed.cell;
    for (std::size_t own = 0; own < tiles; ++own) {
      const auto [universe, tile] = work_.tiles[batch.first_tile + own];
      work_.next[universe].cells.mask(tile) = matter[own];
    }
  }

  void draw_fires(const Batch& batch, const Listing& listing) {
    const auto step = static_cast<std::uint32_t>(work_.step);
    const auto rate = static_cast<float>(work_.physics.fire_rate);
    std::array<std::uint32_t, most_cells> x, y, streams;
    const auto count = listing.cells.size();
    for (std::size_t i = 0; i < count; ++i) {
      const auto& listed = listing.cells[i];
      const auto [universe, tile] = work_.tiles[batch.first_tile + listed.tile];
      const auto place = work_.next[universe].cells.place(tile);
      x[i] = static_cast<std::uint32_t>(place.x * tile::side) + listed.cell % 8;
      y[i] = static_cast<std::uint32_t>(place.y * tile::side) + listed.cell / 8;
      streams[i] = static_cast<std::uint32_t>(universe) * stream::count + stream::fire;
    }
    for (std::size_t i = 0; i < count; ++i) {
      fires_[i] = uniform(philox({x[i], y[i], step, streams[i]}, work_.seed)[0]) < rate;
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
      static_cast<std::int64_t>(work.batches.size()),
      [&](std::int64_t begin, std::int64_t end) {
        auto& stepper = steppers[static_cast<std::size_t>(thread_index())];
        if (!stepper) stepper.emplace(kernel, work);
        for (auto i = begin; i < end; ++i) {
          const auto batch = static_cast<std::size_t>(i);
          if (!stepper->step(work.batches[batch], work.listings[batch])) finite = false;
        }
      },
      parts_a_share);
  return finite;
}

}  // namespace atheria
