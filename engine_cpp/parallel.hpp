// Loops over all cores. Unlike OpenMP's, a thread that the system holds up does not hold up the others' work,
// and waiting threads soon sleep: on a busy machine a step takes its share of the time, not a hundred times
// it.
#pragma once

#include <cstdint>
#include <functional>

namespace atheria {

// Calls work(begin, end) for parts of 0..count-1, each index once, on the number of threads that is in force;
// in one piece where it is called from within a loop, or another engine is using the threads.
// parts_a_share: the parts of each thread's share: what a slow thread has not begun is left to the others.
// Throws what a call has thrown; then some parts may be left out.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work,
                  std::int64_t parts_a_share = 4);

// Of the calling thread: 0..most_threads()-1, and no other at the same time within one loop.
std::int64_t thread_index();
std::int64_t most_threads();

// Between two looks at what another thread is about to change: after many the system may run that one here.
void pause(int looks);

// While one lives, what the calling thread computes is computed on so many threads; 0 leaves libtorch's
// number. Libtorch has one number for the whole process: where several threads set it at once its own loops
// take the first one's, and what it was before is back when the last is done.
class ThreadNumber {
 public:
  explicit ThreadNumber(int threads);
  ~ThreadNumber();
  ThreadNumber(const ThreadNumber&) = delete;
  ThreadNumber& operator=(const ThreadNumber&) = delete;

 private:
  const int threads_, before_;
};

}  // namespace atheria
