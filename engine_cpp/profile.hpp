// Where the time of a step goes: its parts, and a clock for each.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "parallel.hpp"
#include "program.hpp"

namespace atheria {

struct Part {
  std::string what;            // nothing where nothing is to be done: an input
  double operations_per_cell;  // of the grid: multiplications and additions
  std::chrono::nanoseconds time{};
};

// The parts are a program's instructions, in their order, and last the step around the law. Their times are
// those of the thread that steps, while the others are at their shares of the same parts.
class Profile {
 public:
  explicit Profile(const Program& program);

  // Times are taken while one lives, from 0 on.
  class Taking {
   public:
    explicit Taking(Profile& profile);
    ~Taking() { profile_.is_taken_ = false; }
    Taking(const Taking&) = delete;
    Taking& operator=(const Taking&) = delete;

   private:
    Profile& profile_;
  };

  const std::vector<Part>& parts() const { return parts_; }
  std::size_t around_law() const { return parts_.size() - 1; }

 private:
  friend class Timed;

  std::vector<Part> parts_;
  bool is_taken_ = false;
};

// What happens while one lives counts as the part's time, where it is taken.
class Timed {
 public:
  Timed(Profile* profile, std::size_t part)
      : part_(profile != nullptr && profile->is_taken_ && thread_index() == 0 ? &profile->parts_[part]
                                                                              : nullptr) {
    if (part_ != nullptr) began_ = std::chrono::steady_clock::now();
  }
  ~Timed() {
    if (part_ != nullptr) part_->time += std::chrono::steady_clock::now() - began_;
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  Part* const part_;
  std::chrono::steady_clock::time_point began_;
};

}  // namespace atheria
