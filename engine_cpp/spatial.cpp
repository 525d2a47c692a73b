#include "spatial.hpp"

#include <algorithm>
#include <cmath>

#include "integers.hpp"
#include "moments.hpp"
#include "parallel.hpp"
#include "region.hpp"
#include "winograd_weights.hpp"

namespace atheria {
namespace {

constexpr auto tile = WinogradProduct::tile;
constexpr auto elements = WinogradProduct::elements;
constexpr std::int64_t winograd_channels = 8;  // fewer do not pay for the transforms

// Of each 3x3 filter, packed for each of the 36 elements.
std::vector<float> winograd_weights(const Instruction& instruction) {
  const auto inputs = static_cast<std::int64_t>(instruction.a.size());
  const auto outputs = instruction.channels;
  std::vector<double> filters(instruction.weight.begin(), instruction.weight.end());
  std::vector<float> result;
  for (std::int64_t e = 0; e < elements; ++e) {
    std::vector<float> element(at(outputs * inputs));
    for (std::int64_t f = 0; f < outputs * inputs; ++f) {
      element[at(f)] = static_cast<float>(winograd_weight(filters.data() + f * 9, e, accurate_points));
    }
    const auto packed = pack_weights(element, outputs, inputs, kernels().block);
    result.insert(result.end(), packed.begin(), packed.end());
  }
  return result;
}

// Of (inputs, outputs, 2, 2): the product that gives the four cells of each output, one after the other.
std::vector<float> upsampling_matrix(const Instruction& instruction) {
  const auto inputs = static_cast<std::int64_t>(instruction.a.size());
  const auto outputs = 4 * instruction.channels;
  std::vector<float> matrix(at(outputs * inputs));
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t i = 0; i < inputs; ++i)
      matrix[at(o * inputs + i)] = instruction.weight[at(i * outputs + o)];
  }
  return matrix;
}

// One run of an instruction.
class Run {
 public:
  Run(const Instruction& instruction, const Spatial& spatial, const Planes& out,
      const std::function<const Planes&(std::int64_t)>& planes_of, Scratch& scratch, bool torus,
      bool needs_halo)
      : instruction_(instruction),
        spatial_(spatial),
        out_(out),
        scratch_(scratch),
        torus_(torus),
        needs_halo_(needs_halo) {
    for (const auto& plane : instruction.a) {
      const auto& planes = planes_of(plane.value);
      in_layout_ = planes.layout;
      in_.push_back(planes.plane(plane.channel));
    }
  }

  void convolve() {
    const auto& layout = out_.layout;
    if (pays_to_transform()) {
      convolve_winograd();
    } else {
      std::vector<const float*> rows;
      for (const float* plane : in_) {
        for (const auto offset : tap_offsets()) rows.push_back(plane + layout.first() + offset);
      }
      auto out = firsts();
      multiply(Product{rows.data(), spatial_.depth, spatial_.weights.data(), spatial_.bias.data(), out.data(),
                       instruction_.channels, instruction_.activation, instruction_.activation_alpha},
               layout.run());
    }
    finish_planes();
  }

  void upsample() {
    const auto& layout = in_layout_;
    const auto outputs = 4 * instruction_.channels;
    const auto inputs = static_cast<std::int64_t>(in_.size());
    // Cells that are multiplied together: some rows, as many for each thread, or a part of a row.
    constexpr std::int64_t most = 128;
    const auto columns = std::min(layout.width, most);
    const auto across = ceil_div(layout.width, columns);
    const auto parts = rounded_up(ceil_div(layout.height * columns, most), most_threads());
    const auto rows = ceil_div(layout.height, parts);
    const auto capacity = rounded_up(rows * columns, widest_vector);
    const auto size = (inputs + outputs) * capacity;
    float* const scratch = scratch_.take(size * most_threads());
    parallel_for(ceil_div(layout.height, rows) * across, [&](std::int64_t begin, std::int64_t end) {
      float* const packed = scratch + thread_index() * size;
      std::vector<const float*> from;
      for (std::int64_t k = 0; k < inputs; ++k) from.push_back(packed + k * capacity);
      std::vector<float*> out;
      for (std::int64_t o = 0; o < outputs; ++o) out.push_back(packed + (inputs + o) * capacity);
      for (auto i = begin; i < end; ++i) {
        const auto y = i / across * rows;
        const auto x = i % across * columns;
        const auto height = std::min(rows, layout.height - y);
        const auto width = std::min(columns, layout.width - x);
        // Out of as many pages as there are planes, into a few.
        for (std::int64_t k = 0; k < inputs; ++k) {
          const float* row = in_[at(k)] + layout.first() + y * layout.stride() + x;
          for (std::int64_t r = 0; r < height; ++r, row += layout.stride()) {
            std::copy(row, row + width, packed + k * capacity + r * width);
          }
        }
        const Product product{from.data(), inputs,  spatial_.weights.data(), spatial_.bias.data(),
                              out.data(),  outputs, Activation::none,        0};
        const auto at_once = cells_at_once(inputs);
        for (std::int64_t cell = 0; cell < height * width; cell += at_once) {
          kernels().multiply(product, cell, std::min(at_once, height * width - cell));
        }
        for (std::int64_t r = 0; r < height; ++r) interleave(out, r * width, y + r, x, width);
      }
    });
    finish_planes();
  }

  void pool() {
    const auto& to = out_.layout;
    for_planes([&](std::int64_t c) {
      for (std::int64_t y = 0; y < to.height; ++y) {
        const float* const upper = in_[at(c)] + in_layout_.first() + 2 * y * in_layout_.stride();
        kernels().max_of_pairs(upper, upper + in_layout_.stride(), row_of(c, y), to.width);
      }
    });
    finish_planes();
  }

  void group_norm() {
    const auto each = instruction_.channels / instruction_.groups;
    parallel_for(instruction_.groups, [&](std::int64_t begin, std::int64_t end) {
      for (auto g = begin; g < end; ++g) normalise(g * each, each);
    });
  }

 private:
  float* row_of(std::int64_t channel, std::int64_t y) const {
    return out_.plane(channel) + out_.layout.first() + y * out_.layout.stride();
  }

  std::vector<float*> firsts() const {
    std::vector<float*> result;
    for (std::int64_t c = 0; c < instruction_.channels; ++c) result.push_back(row_of(c, 0));
    return result;
  }

  std::vector<std::int64_t> tap_offsets() const {
    std::vector<std::int64_t> offsets;
    const auto half = instruction_.kernel / 2;
    for (auto y = -half; y <= half; ++y) {
      for (auto x = -half; x <= half; ++x)
        offsets.push_back((y * in_layout_.stride() + x) * instruction_.dilation);
    }
    return offsets;
  }

  template <class Work>
  void for_planes(const Work& work) const {
    parallel_for(instruction_.channels, [&](std::int64_t begin, std::int64_t end) {
      for (auto c = begin; c < end; ++c) work(c);
    });
  }

  void finish_planes() const {
    if (needs_halo_) for_planes([&](std::int64_t c) { fill_halo(out_.plane(c), out_.layout, torus_); });
  }

  // Cells whose inputs stay in the nearest cache while all outputs are made of them.
  static std::int64_t cells_at_once(std::int64_t depth) {
    constexpr std::int64_t unit = 48;  // a whole number of vectors of every width
    constexpr std::int64_t cache = 40 * 1024 / static_cast<std::int64_t>(sizeof(float));
    if (depth == 0) return 4 * unit;  // of nothing, a bias
    return std::clamp(cache / depth / unit * unit, unit, 4 * unit);
  }

  // A product over `cells`, in pieces of cells and of blocks of outputs.
  static void multiply(const Product& task, std::int64_t cells) {
    const auto piece = cells_at_once(task.depth);
    const auto block = kernels().block;
    const auto blocks = ceil_div(task.outputs, block);
    const auto pieces = ceil_div(cells, piece);
    const auto wanted = 8 * most_threads();
    const auto parts = std::min(blocks, std::max<std::int64_t>(1, wanted / pieces));
    parallel_for(pieces * parts, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i) {
        const auto part = i % parts;
        const auto first = blocks * part / parts * block;
        const auto last = std::min(task.outputs, blocks * (part + 1) / parts * block);
        auto some = task;
        some.weights += first * task.depth;
        some.bias += first;
        some.out += first;
        some.outputs = last - first;
        const auto cell = i / parts * piece;
        kernels().multiply(some, cell, std::min(piece, cells - cell));
      }
    });
  }

  static std::int64_t lanes() { return kernels().winograd_width / tile; }

  // All tiles of a plane.
  TileRun all_tiles() const {
    const auto& layout = out_.layout;
    return {layout.height, layout.width, layout.stride(), 0,
            ceil_div(layout.height, tile) * ceil_div(layout.width, lanes())};
  }

  // Whether the transform takes clearly fewer products of vectors than the sums over nine cells.
  bool pays_to_transform() const {
    if (spatial_.winograd.empty()) return false;
    const auto transformed = elements * ceil_div(all_tiles().count, tile);
    return 5 * transformed < 4 * 9 * ceil_div(out_.layout.run(), lanes());
  }

  void convolve_winograd() {
    const auto inputs = static_cast<std::int64_t>(in_.size());
    const auto all = all_tiles();
    // Blocks of tiles whose transforms stay in the cache.
    const auto most = std::min(all.count, kernels().winograd_tiles / lanes() * tile);
    const auto blocks = ceil_div(all.count, most);
    const auto stride = ceil_div(most, tile) * lanes();
    const auto size = elements * (element_size(inputs, stride) + element_size(instruction_.channels, stride));
    const auto block = [&](std::int64_t b, float* scratch) {
      auto run = all;
      run.first = b * most;
      run.count = std::min(most, all.count - run.first);
      winograd_block(run, stride, scratch);
    };
    const auto threads = most_threads();
    if (blocks >= 2 * threads) {
      float* const scratch = scratch_.take(size * threads);
      parallel_for(blocks, [&](std::int64_t begin, std::int64_t end) {
        for (auto b = begin; b < end; ++b) block(b, scratch + thread_index() * size);
      });
    } else {
      float* const scratch = scratch_.take(size);
      for (std::int64_t b = 0; b < blocks; ++b) block(b, scratch);
    }
  }

  // Of one element of so many channels: one line more, lest elements share the few places that a cache has
  // for addresses far apart.
  static std::int64_t element_size(std::int64_t channels, std::int64_t stride) {
    return channels * stride + widest_vector;
  }

  // Three phases, each over all channels or elements before the next begins.
  void winograd_block(const TileRun& run, std::int64_t stride, float* scratch) {
    const auto inputs = static_cast<std::int64_t>(in_.size());
    const auto outputs = instruction_.channels;
    float* const forward = scratch;
    const auto from_input = element_size(inputs, stride);
    const auto from_output = element_size(outputs, stride);
    float* const products = forward + elements * from_input;
    const auto start = out_.layout.first();
    const auto block = kernels().block;
    parallel_for(inputs, [&](std::int64_t begin, std::int64_t end) {
      for (auto c = begin; c < end; ++c) {
        kernels().winograd_input(in_[at(c)] + start - run.stride - 1, run, forward + c * stride, from_input);
      }
    });
    parallel_for(elements, [&](std::int64_t begin, std::int64_t end) {
      std::vector<const float*> from(at(inputs));
      std::vector<float*> to(at(outputs));
      const std::vector<float> no_bias(at(rounded_up(outputs, block)), 0.0F);
      for (auto e = begin; e < end; ++e) {
        for (std::int64_t c = 0; c < inputs; ++c) from[at(c)] = forward + e * from_input + c * stride;
        for (std::int64_t c = 0; c < outputs; ++c) to[at(c)] = products + e * from_output + c * stride;
        kernels().multiply(
            {from.data(), inputs, spatial_.winograd.data() + e * rounded_up(outputs, block) * inputs,
             no_bias.data(), to.data(), outputs, Activation::none, 0},
            0, ceil_div(run.count, tile) * lanes());
      }
    });
    parallel_for(outputs, [&](std::int64_t begin, std::int64_t end) {
      for (auto c = begin; c < end; ++c) {
        kernels().winograd_output(products + c * stride, from_output, out_.plane(c) + start, run,
                                  spatial_.bias[at(c)], instruction_.activation,
                                  instruction_.activation_alpha);
      }
    });
  }

  // Four rows of `width` cells from `first` on, which lie at (y, x), into the two rows that they make.
  void interleave(const std::vector<float*>& rows, std::int64_t first, std::int64_t y, std::int64_t x,
                  std::int64_t width) const {
    for (std::int64_t c = 0; c < instruction_.channels; ++c) {
      for (std::int64_t dy = 0; dy < 2; ++dy) {
        const auto k = at(4 * c + 2 * dy);
        kernels().zip(rows[k] + first, rows[k + 1] + first, row_of(c, 2 * y + dy) + 2 * x, width);
      }
    }
  }

  void normalise(std::int64_t first, std::int64_t each) const {
    const auto& layout = out_.layout;
    RunningMoments all;
    constexpr std::int64_t cache = 4096;  // floats
    const auto columns = std::min(layout.width, cache);
    const auto rows = cache / rounded_up(columns, widest_vector);
    for (auto c = first; c < first + each; ++c) {
      for (std::int64_t y = 0; y < layout.height; y += rows) {
        for (std::int64_t x = 0; x < layout.width; x += columns) {
          const auto height = std::min(rows, layout.height - y);
          const auto width = std::min(columns, layout.width - x);
          const auto some = kernels().moments(in_[at(c)] + layout.first() + y * layout.stride() + x,
                                              {height, width, layout.stride()});
          all.add({some, height * width});
        }
      }
    }
    for (auto c = first; c < first + each; ++c) {
      const auto affine = group_norm_of(instruction_, c, all);
      kernels().affine(in_[at(c)] + layout.first(), row_of(c, 0),
                       {layout.height, layout.width, layout.stride()}, affine);
      if (needs_halo_) fill_halo(out_.plane(c), layout, torus_);
    }
  }

  const Instruction& instruction_;
  const Spatial& spatial_;
  const Planes& out_;
  Scratch& scratch_;
  bool torus_, needs_halo_;
  Layout in_layout_;
  std::vector<const float*> in_;
};

}  // namespace

Spatial prepare(const Program& program, std::int64_t value, bool winograd,
                const std::vector<std::int64_t>& readers) {
  const auto& instruction = program.instructions[at(value)];
  Spatial result{.value = value};
  const auto inputs = static_cast<std::int64_t>(instruction.a.size());
  const auto block = kernels().block;
  if (instruction.op == Op::convolve) {
    result.bias = pad_bias(instruction.bias, instruction.channels, block);
    result.depth = inputs * instruction.kernel * instruction.kernel;
    result.weights = pack_weights(instruction.weight, instruction.channels, result.depth, block);
    if (winograd && instruction.kernel == 3 && instruction.dilation == 1 && inputs >= winograd_channels &&
        instruction.channels >= winograd_channels) {
      result.winograd = winograd_weights(instruction);
    }
  }
  if (instruction.op == Op::upsample) {
    std::vector<float> bias;
    for (const auto b : instruction.bias) bias.insert(bias.end(), 4, b);
    result.bias = pad_bias(bias, 4 * instruction.channels, block);
    result.depth = inputs;
    result.weights = pack_weights(upsampling_matrix(instruction), 4 * instruction.channels, inputs, block);
  }
  if (instruction.op == Op::group_norm) {
    const auto source = instruction.a[0].value;
    result.in_place = source > 0 && readers[at(source)] == 1 &&
                      program.instructions[at(source)].op != Op::input &&
                      program.instructions[at(source)].channels == instruction.channels &&
                      is_identity(instruction.a, source, instruction.channels);
  }
  return result;
}

void run_spatial(const Program& program, const Spatial& spatial,
                 const std::function<const Planes&(std::int64_t)>& planes_of, Scratch& scratch, bool torus,
                 bool needs_halo) {
  const auto& instruction = program.instructions[at(spatial.value)];
  Run run(instruction, spatial, planes_of(spatial.value), planes_of, scratch, torus, needs_halo);
  switch (instruction.op) {
    case Op::convolve:
      return run.convolve();
    case Op::upsample:
      return run.upsample();
    case Op::pool:
      return run.pool();
    case Op::group_norm:
      return run.group_norm();
    default:
      return;
  }
}

}  // namespace atheria
