// Pointwise instructions, and sums over neighbours of stored planes, that run together: a few cells at a
// time, so that what passes between them stays in the cache.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "planes.hpp"
#include "profile.hpp"
#include "program.hpp"

namespace atheria {

// Blocks of Winograd's tiles in a row that are run together, at most.
inline constexpr std::int64_t most_across = 4;

// A row that an instruction reads: of the region itself, or of a plane from outside, `dy`, `dx` away.
struct Operand {
  bool is_local;
  std::int64_t row;  // local row, or place among the region's sources
  std::int64_t dy = 0, dx = 0;
};

struct Region {
  // A sum down a column of a source: `factor` times the cell `dy` below.
  struct Column {
    struct Tap {
      std::int64_t dy;
      float factor;
      bool operator==(const Tap&) const = default;
    };
    std::int64_t source;
    std::vector<Tap> taps;
    bool operator==(const Column&) const = default;
  };

  // A sum over neighbours, by columns, which sums share: `factor` times the one `dx` to the right.
  struct SumOfColumns {
    struct Tap {
      std::int64_t column, dx;
      float factor;
    };
    std::vector<Tap> taps;
    float constant;
  };

  // Sums over nearest neighbours that are alike in some sources, and which of an operator's results they are.
  struct Nearest {
    NearestSums::Group group;
    std::vector<std::int64_t> sources, results;
  };

  // A convolution of filters of sources, by Winograd's algorithm: as WinogradProduct says.
  struct Filtered {
    std::vector<std::int64_t> sources{};
    std::vector<float> weights{};
    std::int64_t weights_of_block = 0;
    std::array<bool, WinogradProduct::elements> has_weights{};
  };

  struct Operator {
    Instruction instruction;
    std::int64_t value = 0;              // its place in the program
    std::vector<Operand> a, b;           // stencils: all taps, one after the other
    std::vector<float> weights, bias;    // of a convolution, as the kernels want them
    std::vector<Column> columns;         // of stencils
    std::vector<SumOfColumns> sums;      // of stencils, one each
    std::vector<Nearest> nearest;        // the same; none where some see more than that
    std::int64_t first_row = 0;          // of the result
    std::optional<Filtered> filtered{};  // of a convolution
    bool is_filter = false;              // of stencils that a `filtered` alone reads
  };

  std::vector<Operator> operators;
  std::vector<Plane> sources;
  std::int64_t level = 0;
  std::int64_t rows = 0;  // local ones
  std::int64_t reach = 0;
  std::vector<std::pair<Plane, std::int64_t>> stored;  // planes to keep, and their local rows

  // Whether the last operator is a product of the cell alone that makes just these, for nobody else.
  bool ends_in_product(const std::vector<Operand>& outputs) const;

  // Cells that are run together.
  std::int64_t chunk() const;
  // The same, where some operator is `filtered`; none where none is.
  std::int64_t filtered_chunk() const;
};

// Takes an operator's stencils apart.
void separate(Region::Operator& op);

// Packs weights (outputs, depth) by blocks of outputs.
std::vector<float> pack_weights(const std::vector<float>& weight, std::int64_t outputs, std::int64_t depth,
                                std::int64_t block);
std::vector<float> pad_bias(const std::vector<float>& bias, std::int64_t outputs, std::int64_t block);

// Runs a region on one run of cells after the other; of one thread.
class RegionRun {
 public:
  // profile: null where nobody asks.
  explicit RegionRun(const Region& region, Profile* profile = nullptr);

  // Sees to an operator that reads neighbours, or leaves it alone and returns false. A row for each result.
  using RunNeighbours = std::function<bool(const Region::Operator& op, float* const* out)>;

  // The first `operators` of the region, on `count` cells. cells: each source's.
  void run(const float* const* cells, std::int64_t count, const RunNeighbours& run_neighbours,
           std::size_t operators);

  // A local row's cells of the last run: results take turns in it.
  float* row(std::int64_t local) const { return scratch_.get() + local * row_size_; }

  // Memory for copies of sources.
  float* copies(std::int64_t floats) { return copies_.take(floats); }

 private:
  void run_operator(std::size_t index, const float* const* cells, std::int64_t count);

  const Region& region_;
  Profile* const profile_;
  std::int64_t row_size_;  // from one to the next
  Floats scratch_;
  Scratch copies_;
  std::vector<std::vector<const float*>> a_, b_;
  std::vector<std::vector<float*>> out_;
  std::vector<std::vector<Term>> terms_;
};

}  // namespace atheria
