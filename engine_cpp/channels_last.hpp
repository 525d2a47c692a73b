// Instructions that see neighbours, in bfloat16, on values whose channels lie together: products of cells by
// weights, and what passes values from one product to the next.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "planes.hpp"
#include "program.hpp"

namespace atheria {

enum class Precision : std::uint8_t { fp32, bf16 };

// In which forms a value is stored.
struct Forms {
  bool planes = false, channels_last = false;
};

// Of each value that such an instruction makes; planes where others read it.
std::vector<Forms> forms(const Program& program, Precision precision);

// Whether an instruction is a product in bfloat16, which reads either form.
bool multiplies_pairs(const Instruction& instruction, Precision precision);

// Where a value is; a form that it is not stored in is null.
struct Stored {
  Planes planes;
  ChannelsLast channels_last;
};

// What a group norm makes of each channel.
struct ChannelAffines {
  std::vector<float> centre{}, scale{}, shift{};  // padded to whole vectors
  Activation activation;
  float alpha;

  ChannelAffine from(std::int64_t channel) const {
    return {centre.data() + channel, scale.data() + channel, shift.data() + channel, activation, alpha};
  }
};

// Moments of a value's channels, in parts of its cells, one after the other: (parts, channels). The parts are
// the same whoever measures, so that the number of threads changes nothing.
struct PartMoments {
  static constexpr std::int64_t cells = 192;  // of each part but the last one
  std::vector<Moments> parts{};
};

// Memory that is used within one instruction, and what is left to the readers, by value: by group norms, and
// by products that group norms read.
struct PairScratch {
  Scratch floats;
  std::map<std::int64_t, ChannelAffines> left;
  std::map<std::int64_t, PartMoments> moments;
};

// Numbers that begin on a cache line: a tile's row across two takes twice the time.
struct alignas(64) PairLine {
  std::uint32_t words[16];
};

// Channels of a value that a product reads together: 16 at most, one after the other.
struct ChannelRun {
  Plane first;
  std::int64_t count;
};

// An instruction with its weights as the kernels want them.
struct PairStep {
  std::int64_t value;                            // its place in the program
  bool makes_planes = false;                     // too
  std::vector<ChannelRun> inputs{};              // of a product: a run takes half a group
  std::vector<std::vector<PairLine>> weights{};  // of a product; of an upsampling one for each of four cells
  std::vector<float> bias{};                     // empty where it is 0
  bool is_kept = true;                           // false for a group norm that no instruction here reads
  bool in_place = false;                         // a group norm that alone reads its operand
  bool is_left = false;      // a group norm that is applied where its only reader rounds it to bfloat16
  bool is_measured = false;  // a convolution that a group norm reads
};

// readers: how many instructions and outputs read each value.
PairStep prepare_pairs(const Program& program, std::int64_t value, const std::vector<Forms>& forms,
                       const std::vector<std::int64_t>& readers);

void run_pairs(const Program& program, const PairStep& step,
               const std::function<const Stored&(std::int64_t)>& stored, PairScratch& scratch, bool torus,
               bool needs_halo);

}  // namespace atheria
