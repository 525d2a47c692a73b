#include "parallel.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "of_process.hpp"

namespace atheria {
namespace {

thread_local std::int64_t own_index = 0;
thread_local std::int64_t threads_of_loop = 0;  // that the calling thread works in; 0 outside
thread_local int threads_wanted = 0;            // by the calling thread; 0 for libtorch's number

// While a thread works in a loop, loops within it run in one piece.
class Inside {
 public:
  explicit Inside(std::int64_t threads) { threads_of_loop = threads; }
  ~Inside() { threads_of_loop = 0; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// What the threads work on. Each has a share, the same one in every loop of that length: what it wrote in the
// last one is in its core's cache. Who is done with its own helps the others with theirs, part by part.
class Loop {
 public:
  using Work = std::function<void(std::int64_t, std::int64_t)>;

  explicit Loop(std::int64_t threads) : shares_(static_cast<std::size_t>(threads)) {}

  void open(std::int64_t count, const Work& work, std::int64_t parts_a_share) {
    const auto threads = static_cast<std::int64_t>(shares_.size());
    work_ = &work;
    part_ = std::max<std::int64_t>(1, count / (parts_a_share * threads));
    fault_ = nullptr;
    for (std::int64_t i = 0; i < threads; ++i) {
      auto& share = shares_[static_cast<std::size_t>(i)];
      share.end = count * (i + 1) / threads;
      share.next = count * i / threads;
    }
  }

  // Works until nothing is left to begin with.
  void run(std::int64_t thread) {
    const Inside inside(static_cast<std::int64_t>(shares_.size()));
    try {
      for (std::size_t i = 0; i < shares_.size(); ++i) {
        finish(shares_[(static_cast<std::size_t>(thread) + i) % shares_.size()]);
      }
    } catch (...) {
      for (auto& share : shares_) share.next = share.end;
      const std::scoped_lock lock(mutex_);
      fault_ = std::current_exception();
    }
  }

  void rethrow_fault() const {
    if (fault_) std::rethrow_exception(fault_);
  }

 private:
  struct alignas(64) Share {  // a cache line each
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };

  void finish(Share& share) {
    for (auto first = share.next.fetch_add(part_); first < share.end; first = share.next.fetch_add(part_)) {
      (*work_)(first, std::min(share.end, first + part_));
    }
  }

  const Work* work_ = nullptr;
  std::int64_t part_ = 1;
  std::vector<Share> shares_;  // of each thread
  std::mutex mutex_;
  std::exception_ptr fault_;
};

class Pool {
 public:
  explicit Pool(std::int64_t threads) : loop_(threads) {
    for (std::int64_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
  }

  ~Pool() {
    ends_ = true;
    announce();
    for (auto& worker : workers_) worker.join();
  }

  std::int64_t threads() const { return static_cast<std::int64_t>(workers_.size()) + 1; }

  void run(std::int64_t count, const Loop::Work& work, std::int64_t parts_a_share) {
    loop_.open(count, work, parts_a_share);
    is_open_ = true;
    announce();
    loop_.run(0);
    is_open_ = false;
    for (int looks = 0; busy_ > 0; ++looks) pause(looks);
    loop_.rethrow_fault();
  }

 private:
  void announce() {
    ++turn_;
    turn_.notify_all();
  }

  void serve(std::int64_t index) {
    own_index = index;
    for (std::uint32_t seen = 0;;) {
      seen = wait_beyond(seen);
      if (ends_) return;
      ++busy_;
      if (is_open_) loop_.run(index);
      --busy_;
    }
  }

  // The next loop of a step follows within microseconds: worth a short wait awake.
  std::uint32_t wait_beyond(std::uint32_t seen) const {
    constexpr int patience = 2000;
    for (int i = 0; i < patience; ++i) {
      if (turn_ != seen) return turn_;
      pause(0);
    }
    turn_.wait(seen);
    return turn_;
  }

  Loop loop_;
  std::atomic<std::uint32_t> turn_{0};
  std::atomic<bool> is_open_{false}, ends_{false};
  std::atomic<int> busy_{0};
  std::vector<std::thread> workers_;
};

struct Threads {
  std::mutex mutex{};
  std::unique_ptr<Pool> pool{};
};

// Libtorch's number of threads while engines have set it.
struct LibtorchsNumber {
  std::mutex mutex{};
  int users = 0, before = 0;
};

}  // namespace

ThreadNumber::ThreadNumber(int threads) : threads_(threads), before_(threads_wanted) {
  if (threads_ == 0) return;
  threads_wanted = threads_;
  auto& number = of_process<LibtorchsNumber>();
  const std::scoped_lock lock(number.mutex);
  if (number.users++ > 0) return;
  number.before = at::get_num_threads();
  at::set_num_threads(threads_);
}

ThreadNumber::~ThreadNumber() {
  if (threads_ == 0) return;
  threads_wanted = before_;
  auto& number = of_process<LibtorchsNumber>();
  const std::scoped_lock lock(number.mutex);
  if (--number.users == 0) at::set_num_threads(number.before);
}

void pause(int looks) {
  constexpr int patience = 500;
  if (looks > patience) return std::this_thread::yield();
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

std::int64_t thread_index() { return own_index; }

std::int64_t most_threads() {
  if (threads_of_loop > 0) return threads_of_loop;
  return threads_wanted > 0 ? threads_wanted : at::get_num_threads();
}

void parallel_for(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work,
                  std::int64_t parts_a_share) {
  if (count <= 0) return;
  const auto wanted = most_threads();
  auto& all = of_process<Threads>();
  if (count == 1 || wanted == 1 || threads_of_loop > 0) return work(0, count);
  const std::unique_lock lock(all.mutex, std::try_to_lock);
  if (!lock) {
    const Inside inside(wanted);
    return work(0, count);
  }
  if (!all.pool || all.pool->threads() != wanted) {
    all.pool.reset();
    all.pool = std::make_unique<Pool>(wanted);
  }
  all.pool->run(count, work, parts_a_share);
}

}  // namespace atheria
