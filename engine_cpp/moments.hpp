// What a group norm needs to know of its group, from parts of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "integers.hpp"
#include "program.hpp"

namespace atheria {

// Mean and variance of numbers that come set by set.
class RunningMoments {
 public:
  RunningMoments() = default;
  RunningMoments(const Moments& some, std::int64_t numbers)
      : mean_(some.mean), spread_(some.spread), count_(static_cast<double>(numbers)) {}

  // Chan, Golub & LeVeque (1983): two sets' moments make those of both.
  void add(const RunningMoments& other) {
    if (other.count_ == 0) return;
    const auto both = count_ + other.count_;
    const auto difference = other.mean_ - mean_;
    spread_ += other.spread_ + difference * difference * count_ * other.count_ / both;
    mean_ += difference * other.count_ / both;
    count_ = both;
  }
  double mean() const { return mean_; }
  double variance() const { return spread_ / count_; }

 private:
  double mean_ = 0, spread_ = 0, count_ = 0;
};

// The moments of each channel, from those of parts of its numbers: of `numbers` in each part, but for the
// last one, which has what is left of `count`. parts: (parts, channels).
inline std::vector<RunningMoments> moments_of_channels(const std::vector<Moments>& parts,
                                                       std::int64_t numbers, std::int64_t count) {
  const auto part_count = at(ceil_div(count, numbers));
  const auto channels = parts.size() / part_count;
  std::vector<Moments> all(channels, Moments{0, 0});
  const auto over_parts = [&](auto add) {
    for (std::size_t p = 0; p < part_count; ++p) {
      const auto own = std::min(numbers, count - static_cast<std::int64_t>(p) * numbers);
      for (std::size_t c = 0; c < channels; ++c)
        add(all[c], parts[p * channels + c], static_cast<double>(own));
    }
  };
  const auto whole = static_cast<double>(count);
  over_parts([=](Moments& of, const Moments& part, double own) { of.mean += part.mean * (own / whole); });
  over_parts([](Moments& of, const Moments& part, double own) {
    of.spread += part.spread + (part.mean - of.mean) * (part.mean - of.mean) * own;
  });
  std::vector<RunningMoments> result;
  for (const auto& moments : all) result.emplace_back(moments, count);
  return result;
}

// What a group norm makes of a channel whose group has these moments.
inline Affine group_norm_of(const Instruction& instruction, std::int64_t channel,
                            const RunningMoments& group) {
  const auto c = static_cast<std::size_t>(channel);
  const auto scale = static_cast<double>(instruction.weight[c]) /
                     std::sqrt(group.variance() + static_cast<double>(instruction.epsilon));
  return {static_cast<float>(group.mean()), static_cast<float>(scale), instruction.bias[c],
          instruction.activation, instruction.activation_alpha};
}

}  // namespace atheria
