#include "tiles.hpp"

#include <algorithm>
#include <atomic>
#include <numeric>

namespace atheria {
namespace {

// Murmur's finaliser on both coordinates.
std::uint64_t hash(Place place) {
  auto h = static_cast<std::uint64_t>(place.x) * 0x9E3779B97F4A7C15 +
           static_cast<std::uint64_t>(place.y) * 0xC2B2AE3D27D4EB4F;
  h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCD;
  return h ^ (h >> 33);
}

Around alone(std::size_t tile) {
  Around around;
  around.fill(nobody);
  around[4] = static_cast<std::uint32_t>(tile);
  return around;
}

std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }

}  // namespace

std::int64_t CellSet::count() const {
  return std::accumulate(masks_.begin(), masks_.end(), std::int64_t{0}, [](std::int64_t sum, Mask mask) {
    return sum + static_cast<std::int64_t>(tile::count(mask));
  });
}

std::size_t CellSet::find(Place place) const {
  if (table_.empty()) return none;
  const auto wanted = hash(place);
  for (auto slot = wanted & (table_.size() - 1);; slot = (slot + 1) & (table_.size() - 1)) {
    const auto [tag, tile] = table_[slot];
    if (tile == 0) return none;
    if (tag == tag_of(wanted) && places_[tile - 1] == place) return tile - 1;
  }
}

std::size_t CellSet::insert(Place place) {
  const auto found = find(place);
  if (found != none) return found;
  changed();
  around_.push_back(alone(tiles()));
  places_.push_back(place);
  masks_.push_back(0);
  if (2 * tiles() > table_.size()) {
    rehash(std::max<std::size_t>(16, 2 * table_.size()));
  } else {
    enter(tiles() - 1);
  }
  return tiles() - 1;
}

void CellSet::enter(std::size_t tile) {
  const auto own = hash(places_[tile]);
  auto slot = own & (table_.size() - 1);
  while (table_[slot].tile != 0) slot = (slot + 1) & (table_.size() - 1);
  table_[slot] = {tag_of(own), static_cast<std::uint32_t>(tile + 1)};
}

void CellSet::rehash(std::size_t slots) {
  table_.assign(slots, {0, 0});
  for (std::size_t tile = 0; tile < tiles(); ++tile) enter(tile);
}

void CellSet::changed() {
  static std::atomic<std::uint64_t> last = 0;
  structure_ = ++last;
}

void CellSet::truncate(std::size_t tiles) {
  changed();
  places_.resize(tiles);
  masks_.resize(tiles);
  around_.clear();  // some have moved
  for (std::size_t tile = 0; tile < tiles; ++tile) around_.push_back(alone(tile));
  rehash(std::max<std::size_t>(16, std::bit_ceil(2 * tiles)));
}

// Adds what a tile's cells reach of the tile beside it.
void CellSet::reach(std::size_t tile, std::int64_t dx, std::int64_t dy, Mask cells) {
  if (cells == 0) return;
  const auto direction = static_cast<std::size_t>(4 + 3 * dy + dx);
  std::size_t beside = around_[tile][direction];
  if (beside == nobody) {
    const auto [x, y] = places_[tile];
    beside = insert({x + dx, y + dy});
    around_[tile][direction] = static_cast<std::uint32_t>(beside);
    around_[beside][8 - direction] = static_cast<std::uint32_t>(tile);
  }
  masks_[beside] |= cells;
}

void CellSet::copy_tiles(const CellSet& other) {
  masks_ = other.masks_;
  if (structure_ == other.structure_) return;
  places_ = other.places_;
  around_ = other.around_;
  table_ = other.table_;
  structure_ = other.structure_;
}

void CellSet::dilate_by_one() {
  const auto before = masks_;
  const auto rows = [](Mask mask) { return mask | mask << 8 | mask >> 8; };
  for (std::size_t tile = 0; tile < before.size(); ++tile) {
    const auto mask = before[tile];
    if (mask == 0) continue;
    const auto middle = mask | (mask & ~tile::west) >> 1 | (mask & ~tile::east) << 1;
    masks_[tile] |= rows(middle);
    if ((mask & (tile::west | tile::east | tile::north | tile::south)) == 0) continue;
    const auto left = (mask & tile::west) << 7;
    const auto right = (mask & tile::east) >> 7;
    reach(tile, -1, 0, rows(left));
    reach(tile, 1, 0, rows(right));
    for (const auto& [dx, cells] : {std::pair{-1, left}, {0, middle}, {1, right}}) {
      reach(tile, dx, -1, cells << 56);
      reach(tile, dx, 1, cells >> 56);
    }
  }
}

void CellSet::dilate(const CellSet& other, std::int64_t radius) {
  if (structure_ == other.structure_ && dilated_.radius == radius && other.is(dilated_.from)) {
    masks_ = dilated_.to;
    return;
  }
  dilated_.radius = -1;  // until it is whole: memory may run out
  copy_tiles(other);
  for (std::int64_t reached = 0; reached < radius; ++reached) dilate_by_one();
  write_state_with(other, dilated_.from);
  dilated_.to = masks_;
  dilated_.radius = radius;
}

void CellSet::write_state_with(const CellSet& other, State& state) const {
  state.structure = structure_;
  state.masks = other.masks_;
  state.masks.resize(tiles());
}

Cell Tiles::row(std::size_t index, std::int64_t y) {
  const auto d_state = width_ / 2;
  auto* const first = tile(index) + static_cast<std::size_t>(y * tile::side) * width_;
  return {first, first + d_state, 1, static_cast<std::int64_t>(d_state), static_cast<std::int64_t>(width_)};
}

const float* Tiles::find(std::int64_t x, std::int64_t y) const {
  const auto found = cells.find({tile::of(x), tile::of(y)});
  const auto cell = tile::index(x, y);
  if (found == CellSet::none || (cells.mask(found) & tile::bit(cell)) == 0) return nullptr;
  return tile(found) + cell * width_;
}

void Tiles::set(std::int64_t x, std::int64_t y, const float* numbers) {
  const bool occupied = Content::of(numbers, width_).occupied;
  if (!occupied && find(x, y) == nullptr) return;
  const auto index = cells.insert({tile::of(x), tile::of(y)});
  if (index >= room()) make_room(index + 1 + index / 2);
  const auto cell = tile::index(x, y);
  std::copy_n(numbers, width_, tile(index) + cell * width_);
  cells.mask(index) |= tile::bit(cell);
  if (occupied) return;
  cells.mask(index) &= ~tile::bit(cell);
  drop_empty();
}

void Tiles::drop_empty() {
  cells.drop_empty(
      [this](std::size_t from, std::size_t to) { std::copy_n(tile(from), tile::cells * width_, tile(to)); });
}

bool Tiles::fill(std::size_t count, const std::int64_t* places, const Mask* masks, const float* numbers) {
  make_room(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (cells.insert({places[2 * i], places[2 * i + 1]}) != i) return false;
    cells.mask(i) = masks[i];
    tile::for_each(masks[i], [&](std::size_t cell) {
      std::copy_n(numbers, width_, tile(i) + cell * width_);
      numbers += width_;
    });
  }
  return true;
}

void Tiles::plan(const Tiles& other, std::int64_t radius) {
  cells.dilate(other.cells, radius);
  const auto needed = cells.tiles();
  constexpr std::size_t few = 64;
  if (room() >= needed && room() <= 4 * needed + few) return;
  numbers_ = {};  // before the new ones: they need not exist together
  make_room(needed + needed / 2);
}

std::size_t Tiles::room() const { return numbers_.size() / (tile::cells * width_); }

void Tiles::make_room(std::size_t tiles) {
  Numbers roomier(tiles * tile::cells * width_);
  std::copy_n(numbers_.data(), numbers_.size(), roomier.data());
  numbers_ = std::move(roomier);
}

bool Tiles::settle(std::size_t index) {
  bool finite = true;
  Mask occupied = 0;
  tile::for_each(cells.mask(index), [&](std::size_t cell) {
    const auto content = Content::of(tile(index) + cell * width_, width_);
    finite &= content.finite;
    if (content.occupied) occupied |= tile::bit(cell);
  });
  cells.mask(index) = occupied;
  return finite;
}

bool Tiles::operator==(const Tiles& other) const {
  if (cells.count() != other.cells.count()) return false;
  for (std::size_t i = 0; i < cells.tiles(); ++i) {
    if (cells.mask(i) == 0) continue;
    const auto same = other.cells.find(cells.place(i));
    if (same == CellSet::none || cells.mask(i) != other.cells.mask(same)) return false;
    bool is_same = true;
    tile::for_each(cells.mask(i), [&](std::size_t cell) {
      const auto* const numbers = tile(i) + cell * width_;
      is_same &= std::equal(numbers, numbers + width_, other.tile(same) + cell * width_);
    });
    if (!is_same) return false;
  }
  return true;
}

}  // namespace atheria
