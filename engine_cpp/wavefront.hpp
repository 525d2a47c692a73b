// Several steps of a grid in a row: a part of it goes on as soon as those beside it are ready, so that no
// thread waits for all the others at the end of every step.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

namespace atheria {

// A ring of chunks, each of which sees itself and the two beside it. Each thread has a share, the same one in
// every step; who waits for a chunk helps with the share that it is in.
class Wavefront {
 public:
  // shares: for so many threads.
  Wavefront(std::int64_t chunks, std::int64_t steps, std::int64_t shares);

  // Called once where all three chunks have taken the steps before.
  using Run = std::function<void(std::int64_t chunk, std::int64_t step)>;

  // Runs until nothing is left to begin with. One thread alone does all; others may come and go, each with an
  // `own` share. Throws what `run` has thrown; then chunks are left out.
  void work(std::int64_t own, const Run& run);

 private:
  struct alignas(64) Share {  // a cache line each
    std::int64_t first = 0, count = 0;
    bool descends = false;
    std::atomic<std::int64_t> next{0};  // of its chunks in the first step, then in the second one, ...
  };
  struct alignas(64) Chunk {
    Share* share = nullptr;
    std::atomic<std::int64_t> steps{0};  // that it has taken
  };

  bool take(Share& share, std::int64_t end, const Run& run);
  void await(Chunk& chunk, std::int64_t steps, const Run& run);

  const std::int64_t steps_;
  std::vector<Share> shares_;
  std::vector<Chunk> chunks_;
  std::atomic<bool> is_broken_{false};
};

}  // namespace atheria
