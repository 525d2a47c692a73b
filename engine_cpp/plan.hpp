// How a program runs: regions of pointwise work, and between them the instructions that see neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "division.hpp"
#include "program.hpp"
#include "workspace.hpp"

namespace atheria {

class Plan {
 public:
  // winograd: whether Winograd's algorithm serves where it takes less time. profile: of the program.
  Plan(const Program& program, Precision precision, bool winograd, Profile& profile);

  bool uses_bf16() const { return bf16_operations() > 0; }
  // Of a cell, in products in bfloat16, and in convolutions of planes by Winograd's algorithm.
  double bf16_operations() const;
  double winograd_operations() const;
  // Cells across a block of tiles, where a convolution runs on those by Winograd's algorithm; else 0.
  std::int64_t width_of_tiles() const;
  bool uses_winograd() const;
  // Whether it is one region on the field alone.
  bool is_local() const { return steps_.empty(); }
  // Steps that `run` may take at once.
  std::int64_t steps_at_once(std::int64_t universes, std::int64_t height, std::int64_t width) const;
  const Region& last() const { return last_; }
  const std::vector<Operand>& delta() const { return delta_; }
  const std::vector<Operand>& psi() const { return psi_; }

  // Gives back the memory that steps need.
  void free_memory();

  // Steps `universes` universes of height x width: psi, memory -> out, next_memory. Without physics it
  // writes delta and tallies nothing.
  std::vector<Tally> run(const float* psi, const float* memory, float* out, float* next_memory,
                         std::int64_t universes, std::int64_t height, std::int64_t width,
                         const Finish& finish);

 private:
  struct Universe {
    const float *psi, *memory;
    float *out, *next_memory;
    std::int64_t height, width;
  };

  void assemble();
  double operations_of(std::int64_t value) const;
  std::int64_t memory_cells(std::int64_t height, std::int64_t width) const;
  Tally run_one(Workspace& workspace, const Universe& universe, const Finish& finish);

  const Program& program_;
  Precision precision_;
  bool winograd_;
  Profile& profile_;
  std::vector<PlanStep> steps_;
  Region last_;                       // the region that ends in delta
  std::vector<Operand> delta_, psi_;  // of the last region
  Storage storage_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

}  // namespace atheria
