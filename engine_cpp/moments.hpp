// What a group norm needs to know of its group, from parts of it.
#pragma once

#include <cmath>
#include <cstdint>

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
