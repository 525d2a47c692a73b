#include "wavefront.hpp"

#include "integers.hpp"
#include "parallel.hpp"

namespace atheria {
namespace {}  // namespace

// Shares run towards each other and apart: two that are beside each other come to their border at the same
// time, and have the time of a step until they need what is behind it.
Wavefront::Wavefront(std::int64_t chunks, std::int64_t steps, std::int64_t shares)
    : steps_(steps), shares_(at(shares)), chunks_(at(chunks)) {
  for (std::int64_t i = 0; i < shares; ++i) {
    auto& share = shares_[at(i)];
    share.first = chunks * i / shares;
    share.count = chunks * (i + 1) / shares - share.first;
    share.descends = i % 2 == 1;
    for (auto c = share.first; c < share.first + share.count; ++c) chunks_[at(c)].share = &share;
  }
}

void Wavefront::work(std::int64_t own, const Run& run) {
  try {
    for (std::size_t i = 0; i < shares_.size(); ++i) {
      auto& share = shares_[(at(own) + i) % shares_.size()];
      while (take(share, steps_, run)) {
      }
    }
  } catch (...) {
    is_broken_ = true;
    throw;
  }
}

// Runs a share's next chunk, if that is of a step before `end`.
bool Wavefront::take(Share& share, std::int64_t end, const Run& run) {
  auto next = share.next.load();
  do {
    if (next >= share.count * end) return false;
  } while (!share.next.compare_exchange_weak(next, next + 1));
  const auto step = next / share.count;
  const auto place = next % share.count;
  const auto count = static_cast<std::int64_t>(chunks_.size());
  const auto chunk = share.first + (share.descends ? share.count - 1 - place : place);
  for (const auto seen : {chunk + count - 1, chunk, chunk + 1}) await(chunks_[at(seen % count)], step, run);
  run(chunk, step);
  chunks_[at(chunk)].steps = step + 1;
  return true;
}

// Helps with earlier steps alone: what those wait for is never what the caller is about to run.
void Wavefront::await(Chunk& chunk, std::int64_t steps, const Run& run) {
  for (int looks = 0; chunk.steps < steps && !is_broken_; ++looks) {
    if (!take(*chunk.share, steps, run)) pause(looks);
  }
}

}  // namespace atheria
