// What a process has one of. A forked child has none of its parent's threads, who would let go of the locks
// that they hold: it begins with its own.
#pragma once

#include <unistd.h>

#include <atomic>

namespace atheria {

// Never destroyed: at exit there may be threads that use it.
template <class T>
T& of_process() {
  struct Owned {
    const pid_t process;
    T own;
  };
  static std::atomic<Owned*> latest = nullptr;
  auto* found = latest.load();
  const auto process = getpid();
  if (found != nullptr && found->process == process) return found->own;
  auto* const made = new Owned{process, {}};
  if (latest.compare_exchange_strong(found, made)) return made->own;
  delete made;  // another thread has been faster
  return found->own;
}

}  // namespace atheria
