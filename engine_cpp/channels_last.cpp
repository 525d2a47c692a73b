#include "channels_last.hpp"

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <array>

#include "integers.hpp"
#include "moments.hpp"
#include "parallel.hpp"

namespace atheria {
namespace {

constexpr std::int64_t run_channels = 16;  // of a run, at most
constexpr std::int64_t words = 16;         // of a cell of a group: two runs of bfloat16
constexpr std::int64_t tile_cells = 16;    // of a PairTile, at most
constexpr std::int64_t piece = 12;         // tiles that a thread takes at once

std::int64_t groups_of(const std::vector<ChannelRun>& runs) {
  return (static_cast<std::int64_t>(runs.size()) + 1) / 2;
}

std::vector<ChannelRun> runs_of(const std::vector<Plane>& planes) {
  std::vector<ChannelRun> runs;
  for (const auto& plane : planes) {
    if (!runs.empty() && runs.back().count < run_channels) {
      auto& [first, count] = runs.back();
      const bool goes_on =
          plane == Plane{first.value, first.channel + count} || (plane.value < 0 && first.value < 0);
      if (goes_on) {
        ++count;
        continue;
      }
    }
    runs.push_back({plane, 1});
  }
  return runs;
}

std::uint32_t pair(float low, float high) {
  return static_cast<std::uint32_t>(c10::BFloat16(low).x) | static_cast<std::uint32_t>(c10::BFloat16(high).x)
                                                                << 16;
}

// weight(output, input, tap) as (outputs / 16, groups, taps, 16 pairs of inputs, 16 outputs).
template <class Weight>
std::vector<PairLine> pack_pairs(const std::vector<ChannelRun>& runs, std::int64_t outputs, std::int64_t taps,
                                 const Weight& weight) {
  const auto groups = groups_of(runs);
  std::vector<std::int64_t> input_of(at(groups * 2 * run_channels), -1);
  std::int64_t input = 0;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (std::int64_t c = 0; c < runs[r].count; ++c) input_of[r * run_channels + at(c)] = input++;
  }
  std::vector<PairLine> packed(at(rounded_up(outputs, widest_vector) * groups * taps), PairLine{});
  const auto value = [&](std::int64_t output, std::int64_t place, std::int64_t tap) {
    const auto i = input_of[at(place)];
    return i < 0 ? 0.0F : weight(output, i, tap);
  };
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t g = 0; g < groups; ++g) {
      for (std::int64_t t = 0; t < taps; ++t) {
        for (std::int64_t p = 0; p < words; ++p) {
          const auto line = ((o / widest_vector * groups + g) * taps + t) * words + p;
          const auto place = 2 * (g * words + p);
          packed[at(line)].words[o % widest_vector] = pair(value(o, place, t), value(o, place + 1, t));
        }
      }
    }
  }
  return packed;
}

// Cells in bfloat16, with a margin: all of a group's, then the next one's.
struct Packed {
  Layout layout;
  std::uint32_t* data;

  // Tiles are read beyond the last cell.
  std::int64_t group() const { return (layout.size() + tile_cells) * words; }
  std::uint32_t* cell(std::int64_t y, std::int64_t x) const {
    return data + (layout.first() + y * layout.stride() + x) * words;
  }
};

// One run of an instruction.
class Run {
 public:
  Run(const Instruction& instruction, const PairStep& step,
      const std::function<const Stored&(std::int64_t)>& stored, PairScratch& scratch, bool torus,
      bool needs_halo)
      : instruction_(instruction),
        step_(step),
        stored_(stored),
        scratch_(scratch),
        torus_(torus),
        needs_halo_(needs_halo),
        out_(stored(step.value).channels_last) {}

  void convolve() {
    const auto half = instruction_.kernel / 2;
    const auto packed = pack({out_.height, out_.width, half * instruction_.dilation});
    std::vector<std::int64_t> taps;
    for (auto y = -half; y <= half; ++y) {
      for (auto x = -half; x <= half; ++x)
        taps.push_back((y * packed.layout.stride() + x) * instruction_.dilation * words);
    }
    auto* const moments = step_.is_measured ? &scratch_.moments[step_.value] : nullptr;
    multiply(
        packed, taps, step_.weights[0], out_.stride(),
        [&](std::int64_t y, std::int64_t x) { return out_.cell(y, x); }, moments);
    if (step_.makes_planes) make_planes(out_, nullptr);
  }

  void upsample() {
    const auto packed = pack({out_.height / 2, out_.width / 2, 0});
    for (std::int64_t i = 0; i < 4; ++i) {
      multiply(packed, {0}, step_.weights[at(i)], 2 * out_.stride(),
               [&](std::int64_t y, std::int64_t x) { return out_.cell(2 * y + i / 2, 2 * x + i % 2); });
    }
    if (step_.makes_planes) make_planes(out_, nullptr);
  }

  void pool() {
    const auto& in = operand();
    for_rows(out_.height, [&](std::int64_t y) {
      kernels().max_of_cells(in.cell(2 * y, 0), in.cell(2 * y + 1, 0), in.stride(), out_.cell(y, 0),
                             out_.width);
    });
    if (step_.makes_planes) make_planes(out_, nullptr);
  }

  void group_norm() {
    const auto& in = operand();
    auto& moments = scratch_.moments[instruction_.a[0].value];
    if (moments.parts.empty()) measure(in, moments);
    const auto affines = affines_of(moments_of_channels(moments.parts, PartMoments::cells, in.cells()));
    moments.parts.clear();
    if (step_.is_kept && !step_.is_left) {
      for_rows(in.height, [&](std::int64_t y) {
        kernels().change_cells(in.cell(y, 0), in.stride(), affines.from(0), out_.cell(y, 0), in.width);
      });
    }
    if (step_.makes_planes) make_planes(in, step_.is_kept ? nullptr : &affines);
    if (step_.is_left) scratch_.left.insert_or_assign(step_.value, affines);
  }

 private:
  // Of an instruction that reads one value as it is.
  const ChannelsLast& operand() const { return stored_(instruction_.a[0].value).channels_last; }

  template <class Work>
  static void for_rows(std::int64_t rows, const Work& work) {
    parallel_for(rows, [&](std::int64_t begin, std::int64_t end) {
      for (auto y = begin; y < end; ++y) work(y);
    });
  }

  Packed pack(const Layout& layout) {
    const auto groups = groups_of(step_.inputs);
    Packed packed{layout, nullptr};
    packed.data = reinterpret_cast<std::uint32_t*>(scratch_.floats.take(groups * packed.group()));
    for_rows(layout.height, [&](std::int64_t y) {
      for (std::int64_t i = 0; i < 2 * groups; ++i) {
        auto* const to = packed.cell(y, 0) + i / 2 * packed.group() + i % 2 * (words / 2);
        pack_row(i < static_cast<std::int64_t>(step_.inputs.size()) ? step_.inputs[at(i)] : ChannelRun{{}, 0},
                 y, to, layout.width);
      }
    });
    if (layout.halo > 0) {
      for_rows(groups, [&](std::int64_t g) {
        fill_halo<words>(reinterpret_cast<float*>(packed.data + g * packed.group()), layout, torus_);
      });
    }
    return packed;
  }

  void pack_row(const ChannelRun& run, std::int64_t y, std::uint32_t* to, std::int64_t width) const {
    const auto [first, count] = run;
    if (first.value < 0) {
      const float zero = 0;
      return kernels().pack_cells(&zero, 0, 0, nullptr, to, width);
    }
    const auto& [planes, cells] = stored_(first.value);
    if (cells.data != nullptr) {
      const auto left = scratch_.left.find(first.value);
      const auto* const from = cells.cell(y, 0) + first.channel;
      if (left == scratch_.left.end())
        return kernels().pack_cells(from, cells.stride(), count, nullptr, to, width);
      const auto of = left->second.from(first.channel);
      return kernels().pack_cells(from, cells.stride(), count, &of, to, width);
    }
    constexpr std::int64_t some = 64;
    std::array<float, some * run_channels> turned;
    std::array<float*, some> places;
    for (std::size_t i = 0; i < places.size(); ++i) places[i] = &turned[i * run_channels];
    const auto& layout = planes.layout;
    const auto* const row = planes.plane(first.channel) + layout.first() + y * layout.stride();
    for (std::int64_t x = 0; x < width; x += some) {
      const auto n = std::min(some, width - x);
      kernels().to_cells(row + x, layout.size(), n, count, places.data());
      kernels().pack_cells(turned.data(), run_channels, count, nullptr, to + x * words, n);
    }
  }

  // place(y, x): where the result of a cell goes; results are `stride` floats apart along a row.
  // moments: of results that lie one after the other, where they are wanted and one thread has all channels.
  template <class Place>
  void multiply(const Packed& packed, const std::vector<std::int64_t>& taps,
                const std::vector<PairLine>& weights, std::int64_t stride, const Place& place,
                PartMoments* moments = nullptr) const {
    std::vector<std::int64_t> offsets;
    for (std::int64_t g = 0; g < groups_of(step_.inputs); ++g) {
      for (const auto tap : taps) offsets.push_back(g * packed.group() + tap);
    }
    const auto depth = static_cast<std::int64_t>(offsets.size());
    const auto halves = step_.inputs.size() % 2 == 0 ? 0 : static_cast<std::int64_t>(taps.size());
    const auto& layout = packed.layout;
    const auto tiles_a_row = ceil_div(layout.width, tile_cells);
    const auto tiles = layout.height * tiles_a_row;
    constexpr auto block = 2 * widest_vector;  // of outputs
    const auto outputs = rounded_up(instruction_.channels, widest_vector);
    const auto blocks = ceil_div(outputs, block);
    const auto pieces = ceil_div(tiles, piece);
    const auto parts = std::min(blocks, std::max<std::int64_t>(1, 8 * most_threads() / pieces));
    const bool is_measured = moments != nullptr && parts == 1 && layout.width % tile_cells == 0;
    static_assert(piece * tile_cells == PartMoments::cells);
    if (is_measured) moments->parts.resize(at(pieces * stride));
    constexpr std::int64_t cache = 32768;  // floats of results that are measured while they are in it
    const auto most = is_measured ? std::max<std::int64_t>(1, cache / (PartMoments::cells * stride)) : pieces;
    parallel_for(pieces * parts, [&](std::int64_t begin, std::int64_t end) {
      std::vector<PairTile> some;
      // Each time what is left of a part of the outputs: setting up tiles takes time.
      for (auto i = begin; i < end;) {
        const auto part = i / pieces;
        const auto next = std::min({end, (part + 1) * pieces, i + most});
        const auto first = blocks * part / parts * block;
        const auto last = std::min(outputs, blocks * (part + 1) / parts * block);
        some.clear();
        for (auto t = (i - part * pieces) * piece; t < std::min(tiles, (next - part * pieces) * piece); ++t) {
          const auto y = t / tiles_a_row;
          const auto x = t % tiles_a_row * tile_cells;
          some.push_back({packed.cell(y, x), place(y, x) + first, std::min(tile_cells, layout.width - x)});
        }
        kernels().multiply_pairs({offsets.data(), depth, depth - halves, weights[at(first * depth)].words,
                                  step_.bias.empty() ? nullptr : step_.bias.data() + first, last - first,
                                  stride, instruction_.activation, instruction_.activation_alpha},
                                 some.data(), static_cast<std::int64_t>(some.size()));
        for (auto measured = i; is_measured && measured < next; ++measured) {
          const auto own = (measured - i) * piece;
          const auto count = std::min(piece, static_cast<std::int64_t>(some.size()) - own);
          kernels().moments_of_cells(some[at(own)].out, stride, count * tile_cells,
                                     &moments->parts[at(measured * stride)]);
        }
        i = next;
      }
    });
  }

  static void measure(const ChannelsLast& in, PartMoments& moments) {
    const auto parts = ceil_div(in.cells(), PartMoments::cells);
    moments.parts.resize(at(parts * in.stride()));
    for_rows(parts, [&](std::int64_t i) {
      const auto first = i * PartMoments::cells;
      kernels().moments_of_cells(in.data + first * in.stride(), in.stride(),
                                 std::min(PartMoments::cells, in.cells() - first),
                                 &moments.parts[at(i * in.stride())]);
    });
  }

  ChannelAffines affines_of(const std::vector<RunningMoments>& channels) const {
    ChannelAffines result{.activation = instruction_.activation, .alpha = instruction_.activation_alpha};
    for (auto* const numbers : {&result.centre, &result.scale, &result.shift})
      numbers->resize(channels.size());
    const auto each = instruction_.channels / instruction_.groups;
    for (std::int64_t first = 0; first < instruction_.channels; first += each) {
      RunningMoments group;
      for (auto c = first; c < first + each; ++c) group.add(channels[at(c)]);
      for (auto c = first; c < first + each; ++c) {
        const auto affine = group_norm_of(instruction_, c, group);
        result.centre[at(c)] = affine.centre;
        result.scale[at(c)] = affine.scale;
        result.shift[at(c)] = affine.shift;
      }
    }
    return result;
  }

  // affines: what is made of them on the way, if anything.
  void make_planes(const ChannelsLast& from, const ChannelAffines* affines) const {
    constexpr std::int64_t some = 64;
    const auto& planes = stored_(step_.value).planes;
    const auto& layout = planes.layout;
    parallel_for(from.height, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> turned(at(from.stride() * some));
      for (auto y = begin; y < end; ++y) {
        for (std::int64_t x = 0; x < from.width; x += some) {
          const auto n = std::min(some, from.width - x);
          kernels().to_rows(from.cell(y, x), n, from.stride(), turned.data(), some);
          for (std::int64_t c = 0; c < from.channels; ++c) {
            const float* const row = turned.data() + c * some;
            float* const to = planes.plane(c) + layout.first() + y * layout.stride() + x;
            if (affines == nullptr) {
              std::copy(row, row + n, to);
            } else {
              const auto of = affines->from(c);
              kernels().affine(row, to, {1, n, 0},
                               {*of.centre, *of.scale, *of.shift, of.activation, of.alpha});
            }
          }
        }
      }
    });
    if (needs_halo_)
      for_rows(from.channels, [&](std::int64_t c) { fill_halo(planes.plane(c), layout, torus_); });
  }

  const Instruction& instruction_;
  const PairStep& step_;
  const std::function<const Stored&(std::int64_t)>& stored_;
  PairScratch& scratch_;
  bool torus_, needs_halo_;
  const ChannelsLast& out_;
};

bool reads_one_value(const Program& program, const Instruction& instruction) {
  const auto source = instruction.a[0].value;
  return source >= 0 && program.instructions[at(source)].channels == instruction.channels &&
         is_identity(instruction.a, source, instruction.channels);
}

}  // namespace

bool multiplies_pairs(const Instruction& instruction, Precision precision) {
  if (precision != Precision::bf16 || kernels().multiply_pairs == nullptr) return false;
  return instruction.op == Op::upsample || (instruction.op == Op::convolve && !is_pointwise(instruction));
}

std::vector<Forms> forms(const Program& program, Precision precision) {
  const auto& all = program.instructions;
  std::vector<Forms> result(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool follows = all[i].op == Op::group_norm || all[i].op == Op::pool;
    result[i].channels_last =
        multiplies_pairs(all[i], precision) ||
        (follows && reads_one_value(program, all[i]) && result[at(all[i].a[0].value)].channels_last);
  }
  const auto read_planes = [&](const std::vector<Plane>& planes) {
    for (const auto& plane : planes) {
      if (plane.value >= 0) result[at(plane.value)].planes = true;
    }
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!result[i].channels_last) read_planes(operands(all[i]));
  }
  read_planes(program.delta);
  read_planes(program.memory);
  return result;
}

PairStep prepare_pairs(const Program& program, std::int64_t value, const std::vector<Forms>& forms,
                       const std::vector<std::int64_t>& readers) {
  const auto& instruction = program.instructions[at(value)];
  PairStep result{.value = value, .makes_planes = forms[at(value)].planes};
  const bool is_convolution = instruction.op == Op::convolve;
  if (is_convolution || instruction.op == Op::upsample) {
    const auto inputs = static_cast<std::int64_t>(instruction.a.size());
    const auto outputs = instruction.channels;
    const auto& weight = instruction.weight;
    result.inputs = runs_of(instruction.a);
    if (is_convolution) {
      const auto taps = instruction.kernel * instruction.kernel;
      result.weights.push_back(pack_pairs(result.inputs, outputs, taps, [&](auto o, auto i, auto t) {
        return weight[at((o * inputs + i) * taps + t)];
      }));
    } else {
      for (std::int64_t cell = 0; cell < 4; ++cell) {
        result.weights.push_back(pack_pairs(result.inputs, outputs, 1, [&](auto o, auto i, auto) {
          return weight[at((i * outputs + o) * 4 + cell)];
        }));
      }
    }
    const auto& bias = instruction.bias;
    if (std::any_of(bias.begin(), bias.end(), [](float b) { return b != 0; })) {
      result.bias = bias;
      result.bias.resize(at(rounded_up(outputs, widest_vector)), 0.0F);
    }
  }
  for (std::size_t i = 0; i < forms.size(); ++i) {
    const auto& reader = program.instructions[i];
    if (is_convolution && forms[i].channels_last && reader.op == Op::group_norm) {
      result.is_measured |= reader.a[0].value == value;
    }
  }
  if (instruction.op == Op::group_norm) {
    const auto source = instruction.a[0].value;
    std::int64_t here = 0;
    std::int64_t products = 0;
    for (std::size_t i = 0; i < forms.size(); ++i) {
      const auto read = operands(program.instructions[i]);
      const bool reads =
          forms[i].channels_last &&
          std::any_of(read.begin(), read.end(), [&](const Plane& plane) { return plane.value == value; });
      if (!reads) continue;
      ++here;
      if (program.instructions[i].op != Op::group_norm && program.instructions[i].op != Op::pool) ++products;
    }
    result.is_kept = here > 0;
    result.in_place = result.is_kept && readers[at(source)] == 1;
    result.is_left = result.in_place && readers[at(value)] == 1 && products == 1;
  }
  return result;
}

void run_pairs(const Program& program, const PairStep& step,
               const std::function<const Stored&(std::int64_t)>& stored, PairScratch& scratch, bool torus,
               bool needs_halo) {
  Run run(program.instructions[at(step.value)], step, stored, scratch, torus, needs_halo);
  switch (program.instructions[at(step.value)].op) {
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
