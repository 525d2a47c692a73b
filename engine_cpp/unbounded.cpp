#include "unbounded.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "parallel.hpp"
#include "philox.hpp"
#include "text.hpp"

namespace atheria {
namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

// Calls visit(i) for i below count, on all cores; returns whether every answer was true.
template <typename Visit>
bool all_of(std::size_t count, Visit visit) {
  std::atomic<bool> all = true;
  const auto end_of_all = static_cast<std::int64_t>(count);
  parallel_for(end_of_all, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      if (!visit(static_cast<std::size_t>(i))) all = false;
    }
  });
  return all;
}

// From one coordinate to another, which may be 2^63 - 2 apart.
double distance(std::int64_t from, std::int64_t to) { return static_cast<double>(to - from); }

std::vector<float> numbers_of(const std::vector<std::complex<float>>& amplitudes) {
  std::vector<float> numbers;
  for (const auto& amplitude : amplitudes) numbers.push_back(amplitude.real());
  for (const auto& amplitude : amplitudes) numbers.push_back(amplitude.imag());
  return numbers;
}

double energy_of(const float* numbers, std::size_t width) {
  double energy = 0;
  for (std::size_t c = 0; c < width; ++c) energy += static_cast<double>(numbers[c]) * numbers[c];
  return energy;
}

double energy_of(const Tiles& tiles, std::size_t index) {
  double energy = 0;
  tile::for_each(tiles.cells.mask(index), [&](std::size_t cell) {
    energy += energy_of(tiles.tile(index) + cell * tiles.width(), tiles.width());
  });
  return energy;
}

double energy_of(const Tiles& tiles) {
  double energy = 0;
  for (std::size_t index = 0; index < tiles.cells.tiles(); ++index) energy += energy_of(tiles, index);
  return energy;
}

Observables observe_one(const Tiles& tiles) {
  Observables seen;
  seen.occupancy = static_cast<double>(tiles.cells.count());
  if (tiles.cells.tiles() == 0) return seen;
  // Distances are taken from a tile, not from the origin, which may be too far away for them to count.
  const auto [tile_x, tile_y] = tiles.cells.place(0);
  const auto origin_x = tile_x * tile::side;
  const auto origin_y = tile_y * tile::side;
  double sum_x = 0;
  double sum_y = 0;
  const auto each = [&](auto visit) {
    tiles.for_each([&](std::int64_t x, std::int64_t y, const float* numbers) {
      visit(distance(origin_x, x), distance(origin_y, y), energy_of(numbers, tiles.width()));
    });
  };
  each([&](double x, double y, double rho) {
    seen.energy += rho;
    sum_x += rho * x;
    sum_y += rho * y;
  });
  if (seen.energy == 0) return seen;
  const double mean_x = sum_x / seen.energy;
  const double mean_y = sum_y / seen.energy;
  double moment = 0;
  each([&](double x, double y, double rho) {
    const double p = rho / seen.energy;
    if (p > 0) seen.position_entropy -= p * std::log(p);
    seen.ipr += p * p;
    moment += p * ((x - mean_x) * (x - mean_x) + (y - mean_y) * (y - mean_y));
  });
  seen.centre_x = static_cast<double>(origin_x) + mean_x;
  seen.centre_y = static_cast<double>(origin_y) + mean_y;
  seen.radius_of_gyration = std::sqrt(moment);
  return seen;
}

// Tiles of all universes in arrays, in their order: empty ones have their places, too.
void write_parts(const std::vector<Tiles>& universes, const std::string& prefix, Parts& parts) {
  std::vector<std::int64_t> counts;
  std::vector<std::int64_t> places;
  std::vector<std::int64_t> masks;
  std::vector<float> numbers;
  for (const auto& tiles : universes) {
    const auto& cells = tiles.cells;
    counts.push_back(static_cast<std::int64_t>(cells.tiles()));
    for (std::size_t i = 0; i < cells.tiles(); ++i) {
      places.insert(places.end(), {cells.place(i).x, cells.place(i).y});
      masks.push_back(static_cast<std::int64_t>(cells.mask(i)));
    }
    tiles.for_each([&](std::int64_t, std::int64_t, const float* own) {
      numbers.insert(numbers.end(), own, own + tiles.width());
    });
  }
  const auto width = static_cast<std::int64_t>(universes.front().width());
  parts.arrays.emplace_back(prefix + "counts", at::tensor(counts));
  parts.arrays.emplace_back(prefix + "places", at::tensor(places).view({-1, 2}));
  parts.arrays.emplace_back(prefix + "masks", at::tensor(masks));
  parts.arrays.emplace_back(prefix + "cells", at::tensor(numbers).view({-1, width}));
}

std::vector<Tiles> read_parts(const Parts& parts, const std::string& prefix) {
  const auto fits = [](bool holds) {
    require(holds, "the snapshot's tiles do not fit each other; it is damaged");
  };
  const auto counts = parts.get(prefix + "counts", at::kLong, 1);
  const auto places = parts.get(prefix + "places", at::kLong, 2);
  const auto masks = parts.get(prefix + "masks", at::kLong, 1);
  const auto cells = parts.get(prefix + "cells", at::kFloat, 2);
  const auto* const count_of = counts.data_ptr<std::int64_t>();
  const auto* place = places.data_ptr<std::int64_t>();
  const auto* mask = reinterpret_cast<const Mask*>(masks.data_ptr<std::int64_t>());
  const auto* numbers = cells.data_ptr<float>();
  const auto width = cells.size(1);
  fits(counts.size(0) > 0 && counts.size(0) <= stream::most_universes && width > 0 && width % 2 == 0);
  fits(places.size(1) == 2 && places.size(0) == masks.size(0));
  std::int64_t tiles_left = masks.size(0);
  for (std::int64_t i = 0; i < counts.size(0); ++i) {
    fits(count_of[i] >= 0 && count_of[i] <= tiles_left);
    tiles_left -= count_of[i];
  }
  fits(tiles_left == 0);
  std::int64_t cell_count = 0;
  for (std::int64_t i = 0; i < masks.size(0); ++i)
    cell_count += static_cast<std::int64_t>(tile::count(mask[i]));
  fits(cell_count == cells.size(0));
  for (std::int64_t i = 0; i < 2 * masks.size(0); ++i) {
    fits(place[i] >= tile::of(-furthest) && place[i] <= tile::of(furthest));
  }
  for (std::int64_t i = 0; i < cell_count; ++i) {
    const auto content = Content::of(numbers + i * width, static_cast<std::size_t>(width));
    fits(content.occupied && content.finite);
  }
  std::vector<Tiles> universes;
  for (std::int64_t i = 0; i < counts.size(0); ++i) {
    auto& tiles = universes.emplace_back(width / 2);
    const auto count = static_cast<std::size_t>(count_of[i]);
    fits(tiles.fill(count, place, mask, numbers));
    place += 2 * count;
    mask += count;
    numbers += tiles.cells.count() * width;
  }
  return universes;
}

}  // namespace

void check_unbounded(const at::Device& device) {
  require(device.is_cpu(), "unbounded universes run on the CPU alone, got `device`=" + device.str() +
                               "; give a grid, or leave `device` cpu");
}

void check_unbounded(const Law& law, const Physics& physics) {
  const std::string refused = "this law cannot run in an unbounded universe: ";
  require(!law.has_memory(),
          refused + "it has a memory, which every cell of an endless vacuum would have to keep; give a grid");
  require(law.receptive_radius().has_value(),
          refused +
              "it is not known to be local. A GroupNorm looks at the whole grid: train with "
              "model.norm=pixel; a plain TorchScript file does not say how far it looks: export it with "
              "python -m atheria.export; or give a grid");
  const auto norm = law.vacuum_norm();
  require(norm <= physics.epsilon,
          refused + "it makes matter of vacuum, of norm " + short_number(norm) + " where `epsilon` is " +
              short_number(physics.epsilon) +
              "; export one with model.bias=false model.norm=pixel, raise `physics.epsilon`, or give a grid");
}

Unbounded::Unbounded(std::int64_t universes, std::int64_t d_state)
    : d_state_(d_state),
      now_(static_cast<std::size_t>(universes), Tiles(d_state)),
      next_(now_),
      reference_energy_(now_.size(), 0.0F) {}

std::unique_ptr<Unbounded> Unbounded::of(const Parts& parts) {
  auto now = read_parts(parts, "");
  const auto energy = parts.get("reference_energy", at::kFloat, 1);
  const auto universes = static_cast<std::int64_t>(now.size());
  auto universe = std::make_unique<Unbounded>(universes, static_cast<std::int64_t>(now.front().width() / 2));
  require(energy.size(0) == universes, "the snapshot's energies do not fit its tiles; it is damaged");
  const auto* const energies = energy.data_ptr<float>();
  universe->reference_energy_.assign(energies, energies + universes);
  universe->now_ = std::move(now);
  if (parts.find("before_noise_counts").defined()) {
    universe->before_noise_ = read_parts(parts, "before_noise_");
    require(universe->before_noise_.size() == universe->now_.size() &&
                universe->before_noise_.front().width() == universe->now_.front().width(),
            "the snapshot's tiles before noise do not fit the others; it is damaged");
  }
  universe->step_count_ = parts.step_count;
  const auto evaluated = parts.find("evaluated_cells");
  if (evaluated.defined())
    universe->evaluated_cells_ = parts.get("evaluated_cells", at::kLong, 1).item<std::int64_t>();
  return universe;
}

Parts Unbounded::parts() const {
  Parts parts{step_count_, {{"reference_energy", at::tensor(reference_energy_)}}};
  write_parts(now_, "", parts);
  if (!before_noise_.empty()) write_parts(before_noise_, "before_noise_", parts);
  if (evaluated_cells_)
    parts.arrays.emplace_back("evaluated_cells", at::tensor(std::vector{*evaluated_cells_}));
  return parts;
}

std::unique_ptr<Universe> Unbounded::moved(const at::Device& device) const {
  check_unbounded(device);
  return copy();
}

std::unique_ptr<Universe> Unbounded::copy() const {
  auto copied = std::make_unique<Unbounded>(universes(), d_state_);
  copied->now_ = now_;
  copied->before_noise_ = before_noise_;
  copied->reference_energy_ = reference_energy_;
  copied->step_count_ = step_count_;
  copied->evaluated_cells_ = evaluated_cells_;
  return copied;
}

void Unbounded::step(Law& law, const Physics& physics, const Noise& noise, std::uint64_t seed,
                     std::int64_t /*most*/) {
  // A kernel for scattered cells would take what a cell reads for what it holds.
  const bool in_vacuum = physics.harmonic.level > 0;
  const auto* const kernel = in_vacuum ? nullptr : law.cell_kernel();
  const auto radius = law.receptive_radius().value();
  evaluation_.plan(now_, next_, in_vacuum ? physics.harmonic.reach : radius);
  const ScatteredStep work{now_, next_, evaluation_, physics, seed, step_count_};
  bool finite = kernel != nullptr ? step_cells(*kernel, work) : step_windows(law, radius, work);
  if (finite && physics.normalise == Normalise::global) finite = restore_energy();
  std::vector<Tiles> quiet;
  if (finite && !noise.is_off()) {
    quiet = next_;
    finite = apply(noise, seed);
  }
  if (!finite) throw_not_finite(step_count_ + 1, physics.normalise);
  drop_far_tiles();
  now_.swap(next_);
  before_noise_ = std::move(quiet);
  evaluated_cells_ = evaluation_.cells();
  ++step_count_;
}

// Empty tiles beside matter stay, where matter stays: every step would make them anew. They go when a quarter
// of a universe's tiles is out of the reach of matter.
void Unbounded::drop_far_tiles() {
  for (std::size_t universe = 0; universe < next_.size(); ++universe) {
    auto& next = next_[universe];
    if (4 * evaluation_.tiles_of(universe) < 3 * next.cells.tiles()) next.drop_empty();
  }
}

// `global` normalisation: the energy of each universe as it was at the start.
bool Unbounded::restore_energy() {
  const auto& evaluated = evaluation_.tiles();
  std::vector<double> by_tile(evaluated.size());
  all_of(evaluated.size(), [&](std::size_t i) {
    by_tile[i] = energy_of(next_[evaluated[i].universe], evaluated[i].tile);
    return true;
  });
  std::vector<double> energies(next_.size());
  for (std::size_t i = 0; i < evaluated.size(); ++i) energies[evaluated[i].universe] += by_tile[i];
  std::vector<float> factors;
  for (std::size_t universe = 0; universe < energies.size(); ++universe) {
    const auto energy = static_cast<float>(energies[universe]);
    // An energy beyond float32 must not pass for vacuum.
    const auto factor = std::isinf(energy) ? std::numeric_limits<float>::quiet_NaN()
                                           : std::sqrt(reference_energy_[universe]) / std::sqrt(energy);
    factors.push_back(energy > 0 ? factor : 0.0F);
  }
  return all_of(evaluated.size(), [&](std::size_t i) {
    const auto [universe, index] = evaluated[i];
    auto& tiles = next_[universe];
    auto* const numbers = tiles.tile(index);
    tile::for_each(tiles.cells.mask(index), [&](std::size_t cell) {
      for (std::size_t c = 0; c < tiles.width(); ++c) numbers[cell * tiles.width() + c] *= factors[universe];
    });
    return tiles.settle(index);
  });
}

bool Unbounded::apply(const Noise& noise, std::uint64_t seed) {
  const auto channel = noise.channel(d_state_);
  std::vector<NoiseUse> uses;
  for (std::int64_t universe = 0; universe < universes(); ++universe) {
    uses.push_back(noise.use(seed, step_count_, universe));
  }
  const auto& evaluated = evaluation_.tiles();
  return all_of(evaluated.size(), [&](std::size_t i) {
    const auto [universe, index] = evaluated[i];
    auto& tiles = next_[universe];
    const auto [x, y] = tiles.cells.place(index);
    thread_local Row words(tile::side);
    for (std::int64_t row = 0; row < tile::side; ++row) {
      if ((tiles.cells.mask(index) & tile::north << 8 * row) == 0) continue;
      words.draw(seed, y * tile::side + row, step_count_, static_cast<std::int64_t>(universe), stream::noise,
                 x * tile::side);
      channel(tiles.row(index, row), words, uses[universe]);
    }
    return tiles.settle(index);
  });
}

std::int64_t Unbounded::occupied_cells() const {
  std::int64_t cells = 0;
  for (const auto& tiles : now_) cells += tiles.cells.count();
  return cells;
}

std::int64_t Unbounded::evaluated_cells(const Law& law) const {
  if (evaluated_cells_) return *evaluated_cells_;
  std::int64_t evaluated = 0;
  for (const auto& tiles : now_) {
    CellSet within;
    within.dilate(tiles.cells, law.receptive_radius().value());
    evaluated += within.count();
  }
  return evaluated;
}

bool Unbounded::is_same_state(const Universe& other) const {
  return now_ == dynamic_cast<const Unbounded&>(other).now_;
}

std::vector<Observables> Unbounded::observables(bool /*torus*/) const {
  std::vector<Observables> seen;
  for (const auto& tiles : measured_tiles()) seen.push_back(observe_one(tiles));
  return seen;
}

bool Unbounded::suits(Law& law, std::int64_t d_state, const Physics& physics) const {
  if (d_state != d_state_) return false;
  check_unbounded(law, physics);
  return true;
}

std::unique_ptr<Universe> Unbounded::restarted(Law& law, std::int64_t d_state, const Physics& physics) const {
  try {
    if (!suits(law, d_state, physics)) return nullptr;
  } catch (const std::invalid_argument&) {
    return nullptr;
  }
  return anew();
}

std::unique_ptr<Unbounded> Unbounded::anew() const {
  auto start = std::make_unique<Unbounded>(universes(), d_state_);
  start->now_ = now_;
  start->changed_by_hand();
  return start;
}

void Unbounded::start(const InitialState& initial, const Shape& extent, std::uint64_t seed,
                      std::int64_t universe) {
  auto& tiles = now_[static_cast<std::size_t>(universe)];
  initial.draw(extent, seed, universe, [&](std::int64_t x, std::int64_t y, const auto& amplitudes) {
    tiles.set(x, y, numbers_of(amplitudes).data());
  });
  reference_energy_[static_cast<std::size_t>(universe)] = static_cast<float>(energy_of(tiles));
}

at::Tensor Unbounded::psi(bool /*before_noise*/) const {
  throw std::runtime_error(
      "an unbounded universe has no array of all its cells; use cells(), or window(x, y, width, height)");
}

at::Tensor Unbounded::window(const Window& window, std::int64_t universe, bool /*torus*/) const {
  const auto& tiles = now_[static_cast<std::size_t>(universe)];
  auto field = at::zeros({2 * d_state_, window.height, window.width}, at::kFloat);
  auto* const planes = field.data_ptr<float>();
  const auto put = [&](std::size_t tile) {
    const auto [tile_x, tile_y] = tiles.cells.place(tile);
    tile::for_each(tiles.cells.mask(tile), [&](std::size_t cell) {
      const auto column = tile_x * tile::side + tile::x_of(cell) - window.x;
      const auto row = tile_y * tile::side + tile::y_of(cell) - window.y;
      if (column < 0 || column >= window.width || row < 0 || row >= window.height) return;
      for (std::int64_t c = 0; c < 2 * d_state_; ++c) {
        planes[(c * window.height + row) * window.width + column] =
            tiles.tile(tile)[cell * tiles.width() + static_cast<std::size_t>(c)];
      }
    });
  };
  const auto end_x = tile::of(window.x + window.width - 1);
  const auto end_y = tile::of(window.y + window.height - 1);
  const auto tiles_shown = (end_x - tile::of(window.x) + 1) * (end_y - tile::of(window.y) + 1);
  if (tiles_shown > static_cast<std::int64_t>(tiles.cells.tiles())) {
    for (std::size_t tile = 0; tile < tiles.cells.tiles(); ++tile) put(tile);
    return field;
  }
  for (auto y = tile::of(window.y); y <= end_y; ++y) {
    for (auto x = tile::of(window.x); x <= end_x; ++x) {
      const auto found = tiles.cells.find({x, y});
      if (found != CellSet::none) put(found);
    }
  }
  return field;
}

std::pair<at::Tensor, at::Tensor> Unbounded::cells(std::int64_t universe, bool before_noise) const {
  struct Found {
    std::int64_t x, y;
    const float* numbers;
  };
  std::vector<Found> found;
  const auto& tiles = (before_noise ? measured_tiles() : now_)[static_cast<std::size_t>(universe)];
  tiles.for_each(
      [&](std::int64_t x, std::int64_t y, const float* numbers) { found.push_back({x, y, numbers}); });
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.y != b.y ? a.y < b.y : a.x < b.x; });
  const auto count = static_cast<std::int64_t>(found.size());
  auto coordinates = at::empty({count, 2}, at::kLong);
  auto field = at::empty({count, 2 * d_state_}, at::kFloat);
  auto* places = coordinates.data_ptr<std::int64_t>();
  auto* numbers = field.data_ptr<float>();
  for (const auto& cell : found) {
    *places++ = cell.x;
    *places++ = cell.y;
    numbers = std::copy_n(cell.numbers, 2 * d_state_, numbers);
  }
  return {coordinates, field.t()};
}

void Unbounded::put(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) {
  const auto* const places = coordinates.data_ptr<std::int64_t>();
  const auto* const numbers = psi.data_ptr<float>();
  const auto count = coordinates.size(0);
  for (std::int64_t i = 0; i < count; ++i) check_within_reach(places[2 * i], places[2 * i + 1]);
  auto& tiles = now_[static_cast<std::size_t>(universe)];
  for (std::int64_t i = 0; i < count; ++i) {
    tiles.set(places[2 * i], places[2 * i + 1], numbers + i * 2 * d_state_);
  }
  changed_by_hand();
}

void Unbounded::set_cells(const at::Tensor& coordinates, const at::Tensor& psi, std::int64_t universe) {
  Tiles tiles(d_state_);
  const auto* const places = coordinates.data_ptr<std::int64_t>();
  const auto* const numbers = psi.data_ptr<float>();
  std::vector<std::pair<std::int64_t, std::int64_t>> given;
  for (std::int64_t i = 0; i < coordinates.size(0); ++i) {
    const auto x = places[2 * i];
    const auto y = places[2 * i + 1];
    check_within_reach(x, y);
    given.emplace_back(y, x);
    const auto* const own = numbers + i * 2 * d_state_;
    require(Content::of(own, tiles.width()).finite,
            "`amplitudes` must be finite; those of cell (x=" + std::to_string(x) +
                ", y=" + std::to_string(y) + ") are not");
    tiles.set(x, y, own);
  }
  std::sort(given.begin(), given.end());
  const auto twice = std::adjacent_find(given.begin(), given.end());
  if (twice != given.end()) {
    require(false, "`coordinates` must name each cell once; (x=" + std::to_string(twice->second) +
                       ", y=" + std::to_string(twice->first) + ") is there twice");
  }
  now_[static_cast<std::size_t>(universe)] = std::move(tiles);
  changed_by_hand();
}

void Unbounded::changed_by_hand() {
  before_noise_.clear();
  evaluated_cells_.reset();
  for (std::size_t i = 0; i < now_.size(); ++i) {
    reference_energy_[i] = static_cast<float>(energy_of(now_[i]));
  }
}

}  // namespace atheria
