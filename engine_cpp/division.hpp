// Which of a program's instructions run together, and what passes between them through memory.
#pragma once

#include <cstdint>
#include <vector>

#include "channels_last.hpp"
#include "program.hpp"

namespace atheria {

// Pointwise instructions, and sums over neighbours, one after the other run as a region; each other one by
// itself.
struct Division {
  struct Part {
    bool is_region;
    std::int64_t index;  // of a region, or of an instruction
  };
  std::vector<Part> parts;                         // in the order in which they run
  std::vector<std::vector<std::int64_t>> regions;  // the instructions of each
  std::vector<std::int64_t> region_of;             // each instruction; -1 for none
  std::int64_t last;                               // the region that ends in delta; -1 for none

  static Division of(const Program& program);
};

// Of each value.
struct Storage {
  std::vector<bool> is_stored;   // on planes of the whole grid
  std::vector<bool> needs_halo;  // since something reads neighbours there

  static Storage of(const Program& program, const Division& division, Precision precision);
};

}  // namespace atheria
