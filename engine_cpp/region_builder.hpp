// Makes regions of a program's instructions.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "region.hpp"

namespace atheria {

// Collects pointwise instructions, and sums over neighbours of what they do not make, into a region.
class RegionBuilder {
 public:
  explicit RegionBuilder(const Program& program) : program_(program) {}

  // How the region reads a plane's cell at (x + dx, y + dy).
  Operand operand(Plane plane, std::int64_t dy = 0, std::int64_t dx = 0);

  void add(std::int64_t value);

  // Keeps what an instruction of the region makes.
  void store(std::int64_t value);

  // The region, which leaves the builder. outputs: what is read of it in the end beside what it stores; that
  // moves with its rows. winograd: whether filters of the field run by Winograd's algorithm where they can.
  Region finished(const std::vector<std::vector<Operand>*>& outputs, bool winograd);

 private:
  bool makes(std::int64_t value) const { return rows_.contains(value); }
  std::int64_t zeros();  // a row that nothing writes

  const Program& program_;
  Region region_;
  std::map<std::int64_t, std::int64_t> rows_;  // of each value
  std::int64_t zeros_ = -1;
};

}  // namespace atheria
