#include "division.hpp"

#include <algorithm>

#include "integers.hpp"

namespace atheria {
namespace {

bool joins_region(const Instruction& instruction) {
  return is_pointwise(instruction) || instruction.op == Op::stencil;
}

}  // namespace

Division Division::of(const Program& program) {
  const auto& all = program.instructions;
  Division division;
  auto& [parts, regions, region_of, last] = division;
  region_of.assign(all.size(), -1);
  // Whether an instruction can run in a region: sums over neighbours want those of all cells at once.
  const auto fits = [&](const Instruction& instruction, std::int64_t region) {
    if (all[at(regions[at(region)].front())].level != instruction.level) return false;
    if (instruction.op != Op::stencil) return true;
    const auto read = operands(instruction);
    return std::none_of(read.begin(), read.end(), [&](const Plane& plane) {
      return plane.value >= 0 && region_of[at(plane.value)] == region;
    });
  };
  std::int64_t open = -1;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto value = static_cast<std::int64_t>(i);
    if (all[i].op == Op::input) continue;
    if (!joins_region(all[i])) {
      open = -1;
      parts.push_back({false, value});
      continue;
    }
    if (open < 0 || !fits(all[i], open)) {
      open = static_cast<std::int64_t>(regions.size());
      regions.emplace_back();
      parts.push_back({true, open});
    }
    regions[at(open)].push_back(value);
    region_of[i] = open;
  }
  const bool ends_in_region =
      !parts.empty() && parts.back().is_region && all[at(regions.back().front())].level == 0;
  last = ends_in_region ? parts.back().index : -1;
  return division;
}

Storage Storage::of(const Program& program, const Division& division, Precision precision) {
  const auto& all = program.instructions;
  const auto& region_of = division.region_of;
  Storage storage{std::vector<bool>(all.size()), std::vector<bool>(all.size())};
  auto& [is_stored, needs_halo] = storage;
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (const auto& plane : operands(all[i])) {
      if (plane.value < 0) continue;
      const auto from = at(plane.value);
      const bool elsewhere = !joins_region(all[i]) || region_of[from] != region_of[i] || region_of[from] < 0;
      const bool is_field = all[from].op == Op::input && plane.value == 0;
      // The field itself is read where it is, but by what wants a margin around a whole plane.
      const bool wants_margin = !joins_region(all[i]) && !multiplies_pairs(all[i], precision);
      if (elsewhere && !(is_field && !wants_margin)) is_stored[from] = true;
      if (reach(all[i]) > 0) needs_halo[from] = true;
    }
  }
  // The last region ends in delta; what it makes for the memory is stored like any other value.
  for (const auto& plane : program.delta) {
    const bool is_made_last =
        plane.value > 0 && division.last >= 0 && region_of[at(plane.value)] == division.last;
    if (plane.value > 0 && !is_made_last) is_stored[at(plane.value)] = true;
  }
  for (const auto& plane : program.memory) {
    if (plane.value >= 0) is_stored[at(plane.value)] = true;
  }
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i].op == Op::input) is_stored[i] = true;
  }
  return storage;
}

}  // namespace atheria
