#include "evaluation.hpp"

namespace atheria {

void Evaluation::plan(const std::vector<Tiles>& now, std::vector<Tiles>& next, std::int64_t radius) {
  const bool is_as_before = is_for(now, radius);
  for (std::size_t universe = 0; universe < now.size(); ++universe)
    next[universe].plan(now[universe], radius);
  if (is_as_before) return;
  radius_ = -1;  // until it is whole: memory may run out
  cells_ = 0;
  tiles_.clear();
  tiles_of_.clear();
  batches_.clear();
  auto in_batch = Batch::most_cells;
  for (const auto& planned : next) {
    const auto universe = tiles_of_.size();
    const auto first = tiles_.size();
    for (std::size_t tile = 0; tile < planned.cells.tiles(); ++tile) {
      const auto cells = tile::count(planned.cells.mask(tile));
      if (cells == 0) continue;
      if (in_batch + cells > Batch::most_cells) {
        batches_.push_back({tiles_.size(), 0});
        in_batch = 0;
      }
      tiles_.push_back({universe, tile});
      batches_.back().end_tile = tiles_.size();
      in_batch += cells;
      cells_ += static_cast<std::int64_t>(cells);
    }
    tiles_of_.push_back(tiles_.size() - first);
  }
  listings_.resize(batches_.size());
  for (auto& listing : listings_) listing.is_whole = false;
  from_.resize(now.size());
  for (std::size_t universe = 0; universe < now.size(); ++universe) {
    next[universe].cells.write_state_with(now[universe].cells, from_[universe]);
  }
  radius_ = radius;
}

bool Evaluation::is_for(const std::vector<Tiles>& now, std::int64_t radius) const {
  if (from_.size() != now.size() || radius_ != radius) return false;
  for (std::size_t universe = 0; universe < now.size(); ++universe) {
    if (!now[universe].cells.is(from_[universe])) return false;
  }
  return true;
}

}  // namespace atheria
