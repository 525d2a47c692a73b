// Scattered cells of a law that is one region: its sums over neighbours are given, the rest runs on them.
#pragma once

#include <cstdint>
#include <vector>

#include "law.hpp"
#include "plan.hpp"

namespace atheria {

class RegionCells final : public CellKernel {
 public:
  static constexpr std::int64_t furthest = 1;  // cells away that is looked

  // A local plan without memory that looks no further; it outlives this.
  explicit RegionCells(const Plan& plan);

  const std::vector<NeighbourSum>& sums() const override { return sums_; }
  void step(const float* sums, const std::uint8_t* fires, std::int64_t n, const Physics& physics,
            float* const* next, std::int32_t* largest) const override;

 private:
  struct Scratch;

  void read_sums(const Plan& plan, bool of_channels);
  void give_sums(Region::Operator& op, const std::vector<Plane>& sources, bool of_channels);
  std::int64_t place_of(const NeighbourSum& sum);
  void step_chunk(Scratch& scratch, const float* sums, const std::uint8_t* fires, std::int64_t cells,
                  const Physics& physics, float* const* next, std::int32_t* largest) const;

  std::int64_t channels_;
  std::vector<NeighbourSum> sums_;
  Region region_;  // the plan's last one, of which each source is a number of a sum
  std::vector<Operand> psi_, delta_;
  std::int64_t id_;
};

}  // namespace atheria
