// The arithmetic of compiled laws, on rows of cells. One source, compiled for each kind of CPU; the best
// that this one runs is chosen once.
#pragma once

#include <cstdint>

namespace atheria {

enum class Activation : std::uint8_t { none, elu, relu, leaky_relu, tanh, sigmoid, silu };
enum class Function : std::uint8_t {
  elu,
  relu,
  leaky_relu,
  tanh,
  sigmoid,
  silu,
  exp,
  sin,
  cos,
  sqrt,
  rsqrt,
  square,
  abs,
  negate,
  reciprocal
};
enum class Operation : std::uint8_t { add, subtract, multiply, divide };

// What a matrix of weights makes of rows. Rows may be read, never written, up to `overread` floats beyond
// their last cell.
struct Product {
  const float* const* rows;  // `depth` inputs
  std::int64_t depth;
  const float* weights;  // packed by pack_weights
  const float* bias;     // padded like the outputs
  float* const* out;     // `outputs` rows
  std::int64_t outputs;
  Activation activation;
  float alpha;  // of the activation
};

// Up to 16 cells of a row of packed cells, and where what is made of them goes.
struct PairTile {
  const std::uint32_t* cells;
  float* out;
  std::int64_t count;
};

// What a matrix of weights makes of cells in bfloat16, whose channels lie together: 32 of a cell, a group,
// are 16 words one after the other, the next cell's follow. A cell of the result is a row of whole vectors.
struct PairProduct {
  // `depth` of them, in words: of what is multiplied, seen from a cell of the first group.
  const std::int64_t* offsets;
  std::int64_t depth;            // groups of inputs, of each all taps
  std::int64_t whole;            // of these, from the first on; the others have nothing in their second half
  const std::uint32_t* weights;  // (outputs / 16, depth, 16 pairs of inputs, 16 outputs)
  const float* bias;             // null where it is 0
  std::int64_t outputs;          // a multiple of 16
  std::int64_t stride;           // from one cell of the result to the next
  Activation activation;
  float alpha;
};

struct Term {
  const float* row;
  float factor;
};

// Sums of terms: `height` rows of `width` cells.
struct Sum {
  const Term* terms;
  std::int64_t count;
  float constant;
  float* out;
  std::int64_t height, width;
  std::int64_t stride, out_stride;  // from one row to the next of the terms, and of `out`
};

// A part of planes of rows of whole vectors, and the cells around it.
struct Surroundings {
  static constexpr std::int64_t nothing = INT64_MIN;  // but zeros

  const float* const* planes;  // in the column of the part's first cell
  const std::int64_t* rows;    // from there: one above the first, `height`, and one below the last
  const float* zeros;          // a row of them
  std::int64_t height, width;
  // From a row's first cell to the one on its left, and to the one on the last cell's right.
  std::int64_t to_left, to_right;
};

// Sums over the nearest neighbours.
struct NearestSums {
  struct Column {
    float above = 0, here = 0, below = 0;
    bool operator==(const Column&) const = default;
  };
  // Of the columns beside a cell, times a factor each, and of the one that it is in.
  struct Sum {
    float left = 0, right = 0;
    Column middle;
    float constant = 0;
    bool operator==(const Sum&) const = default;
  };
  // One or two sums that see the same columns beside a cell, of some planes alike. Two see nothing else in
  // the one of them, or in both.
  struct Group {
    Column left, right;
    bool has_sides, is_alike;  // one sum where they are not
    Sum sums[2];
    std::int64_t count,
        middles;  // of sums, and how many of them, the last ones, see the column in the middle
    std::int64_t planes;
    const std::int64_t* sources;  // of each plane
    const std::int64_t* results;  // of each plane's sums, their places in `out`
  };

  Surroundings in;
  const Group* groups;
  std::int64_t group_count;
  float* const* out;  // row after row
};

// Where Winograd's algorithm evaluates polynomials, beside 0 and infinity: a, -a, b and -b.
struct WinogradPoints {
  float a, b;
};
// Of least rounding error, of a few that have few digits.
inline constexpr WinogradPoints accurate_points{0.625F, 1.5F};
// At -1 sums and differences of a cell's neighbours to both sides vanish: less is to be computed.
inline constexpr WinogradPoints symmetric_points{1.0F, 2.0F};

// Some of a plane's tiles, one after the other: a vector of cells has as many of them as fit across.
struct TileRun {
  std::int64_t height, width;  // of the plane, in cells
  std::int64_t stride;         // from one row to the next
  std::int64_t first, count;   // vectors of cells
};

// A convolution of 3 x 3 by Winograd's algorithm, of whole blocks of tiles. Cells that see nothing but zeros
// get what their bias becomes, exactly.
struct WinogradProduct {
  static constexpr std::int64_t elements = 36;  // of a tile's transform
  static constexpr std::int64_t tile = 4;       // cells, a side
  static constexpr std::int64_t at_once = 2;    // blocks of tiles

  Surroundings in;
  const std::int64_t* sources;  // of each input, among the planes
  std::int64_t inputs;
  // Of a block of outputs the transformed weights of each element that has any: (inputs, outputs of a block).
  const float* weights;
  std::int64_t weights_of_block;
  const bool* has_weights;  // of each element
  const float* bias;        // padded like the outputs
  float* const* out;        // row after row
  std::int64_t outputs;
  Activation activation;
  float alpha;
  float* scratch;  // of as many floats as winograd_scratch says
};

// Floats that a WinogradProduct of so many inputs works in.
constexpr std::int64_t winograd_scratch(std::int64_t inputs) {
  constexpr std::int64_t most_lanes = 16, most_outputs = 8;
  return WinogradProduct::elements * most_lanes * (WinogradProduct::at_once * (inputs + most_outputs) + 1);
}

// Of a field: twice the components that a cell has at most.
inline constexpr std::int64_t most_channels = 256;

// The step around a law, on one run of cells.
struct Advance {
  const float* const* psi;
  const float* const* delta;
  float* const* out;
  std::int64_t channels;  // at most most_channels
  float keep;             // 1 - gamma
  float epsilon;          // 0: no threshold
  bool normalise;         // each cell
  const float* fires;     // 1 where a cell updates, else 0; null where all do
};

// (x - centre) * scale + shift, activated: where x is `centre`, exactly what the shift becomes.
struct Affine {
  float centre, scale, shift;
  Activation activation;
  float alpha;
};

// An Affine of each channel.
struct ChannelAffine {
  const float *centre, *scale, *shift;
  Activation activation;
  float alpha;
};

// A cell, and its place in a field of cells, one after the other.
struct PlacedCell {
  const float* numbers;
  float* place;
};

// Sums over a cell's surroundings in such a field.
struct FieldSums {
  struct Tap {
    std::int64_t offset;  // of what is added, seen from the cell
    float factor;
  };
  static constexpr std::int64_t at_once = 4;  // cells

  const Tap* taps;                 // of one sum after the other
  const std::int64_t* tap_counts;  // of each sum
  std::int64_t sum_count, channels;
};

// `height` rows of `width` cells.
struct Rows {
  std::int64_t height, width;
  std::int64_t stride;  // from one to the next
};

struct Moments {
  double mean, spread;  // sum of squared differences to the mean
};

// Of a field: its energy, not finite where some number is not, and its occupied cells.
struct Tally {
  double energy = 0;
  std::int64_t occupied = 0;
};

struct Kernels {
  const char* name;
  std::int64_t block;  // outputs that are computed together: what weights are packed by
  void (*multiply)(const Product& product, std::int64_t first, std::int64_t cells);
  // In bfloat16, of cells whose channels lie together; null where the CPU has none. Cells are `stride` floats
  // apart, a multiple of 16.
  void (*multiply_pairs)(const PairProduct& product, const PairTile* tiles, std::int64_t count);
  // Rounds up to 16 channels of `count` cells to halves of groups: as they are, or as what is made of them.
  void (*pack_cells)(const float* cells, std::int64_t stride, std::int64_t channels, const ChannelAffine* of,
                     std::uint32_t* out, std::int64_t count);
  void (*change_cells)(const float* cells, std::int64_t stride, const ChannelAffine& of, float* out,
                       std::int64_t count);
  // Of each channel.
  void (*moments_of_cells)(const float* cells, std::int64_t stride, std::int64_t count, Moments* of_channels);
  // Of each two neighbours in two rows, the largest of the four.
  void (*max_of_cells)(const float* upper, const float* lower, std::int64_t stride, float* out,
                       std::int64_t count);
  void (*affine)(const float* in, float* out, const Rows& rows, const Affine& affine);
  void (*apply)(Function function, float alpha, const float* in, float* out, std::int64_t cells);
  void (*combine)(Operation operation, const float* a, const float* b, float* out, std::int64_t cells);
  void (*sum)(const Sum& sum);
  void (*sum_nearest)(const NearestSums& task);
  Tally (*advance)(const Advance& step, std::int64_t cells);
  // The same where `delta` is what a product without an activation makes of rows, which then need not be
  // written; of fields of so many channels. Null where they do not stay in registers.
  static constexpr std::int64_t channels_of_product = 16;
  Tally (*advance_product)(const Product& product, const Advance& step, std::int64_t cells);
  Moments (*moments)(const float* in, const Rows& rows);  // of some thousand cells
  void (*max_of_pairs)(const float* upper, const float* lower, float* out, std::int64_t cells);
  void (*zip)(const float* even, const float* odd, float* out, std::int64_t cells);  // 2 * cells in `out`
  // Puts cells into a field of zeros, writes all sums of some places of it one after the other, and takes the
  // cells out again. Some are summed at once: more places are read, and more sums written, to a multiple of
  // that.
  void (*sum_around)(const FieldSums& what, const PlacedCell* cells, std::int64_t count,
                     const float* const* places, std::int64_t place_count, float* sums);
  // Cells' numbers, one cell after the other, to rows of cells; and back, to where each cell is.
  void (*to_rows)(const float* cells, std::int64_t count, std::int64_t channels, float* rows,
                  std::int64_t stride);
  void (*to_cells)(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t channels,
                   float* const* cells);
  // Of each cell the bits of the number farthest from 0, without its sign.
  void (*largest)(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t channels,
                  std::int32_t* bits);
  // See winograd.hpp.
  void (*winograd_input)(const float* plane, const TileRun& run, float* out, std::int64_t stride);
  void (*winograd_output)(const float* in, std::int64_t stride, float* plane, const TileRun& run, float bias,
                          Activation activation, float alpha);
  std::int64_t winograd_tiles;  // that take the least time together
  void (*winograd_product)(const WinogradProduct& product);
  std::int64_t winograd_width;  // of a block of its tiles, in cells
};

constexpr std::int64_t overread = 64;  // floats

const Kernels& kernels();

// Up to how many cells products of pairs of bfloat16 take less time on this CPU than convolutions in float32
// by Winograd's algorithm. Kernels that were chosen by hand are taken at their word.
std::int64_t pairs_pay_up_to();

}  // namespace atheria
