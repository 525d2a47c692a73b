// What a plan does with one universe's values: its steps, and where these find them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "channels_last.hpp"
#include "program.hpp"
#include "spatial.hpp"
#include "sweep.hpp"

namespace atheria {

using PlanStep = std::variant<Spatial, PairStep, Region>;

// Memory in pieces, which are used again.
class Arena {
 public:
  float* take(std::int64_t floats);
  void give_back(float* piece);

 private:
  std::vector<Floats> memory_;
  std::map<float*, std::int64_t> sizes_;
  std::multimap<std::int64_t, float*> free_;  // by size
};

// What one universe needs while it is stepped.
class Workspace {
 public:
  // last: the region after all steps.
  Workspace(const Program& program, const std::vector<PlanStep>& steps, const Region& last,
            const std::vector<bool>& is_stored, std::int64_t height, std::int64_t width, Profile& profile);

  bool fits(std::int64_t height, std::int64_t width) const { return height == height_ && width == width_; }
  const Stored& value(std::int64_t v) const { return values_[static_cast<std::size_t>(v)]; }
  PairScratch& scratch() { return scratch_; }

  // One of two states on the way from a step to another.
  FieldPlanes state(std::size_t which, std::int64_t channels);

  // One for each thread.
  RegionRun& runner(const Region& region, std::size_t thread);

 private:
  std::int64_t height_, width_;
  Profile& profile_;
  Arena arena_;
  std::vector<Stored> values_;
  PairScratch scratch_;
  std::array<Floats, 2> states_;
  std::mutex mutex_;
  std::map<const Region*, std::vector<std::unique_ptr<RegionRun>>> runners_;
};

}  // namespace atheria
