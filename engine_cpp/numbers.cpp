#include "numbers.hpp"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "of_process.hpp"

namespace atheria {
namespace {

// What was given back, the latest last. Small memory is left to the allocator, which keeps it itself.
struct Spares {
  static constexpr std::size_t least = 1 << 16, most = 1 << 24;  // floats: of one, of all

  struct Spare {
    Numbers::Memory memory;
    std::size_t size;
  };

  Spares() { kept.reserve(most / least + 1); }  // nothing can fail where memory is given back

  std::mutex mutex{};
  std::vector<Spare> kept{};
  std::size_t total = 0;
};

}  // namespace

Numbers::Numbers(std::size_t count) : size_(count) {
  if (count >= Spares::least) {
    auto& [mutex, kept, total] = of_process<Spares>();
    const std::lock_guard lock(mutex);
    const auto fitting = std::find_if(kept.rbegin(), kept.rend(), [&](const auto& spare) {
      return spare.size >= count && spare.size <= 2 * count;
    });
    if (fitting != kept.rend()) {
      memory_ = std::move(fitting->memory);
      size_ = fitting->size;
      total -= size_;
      kept.erase(std::next(fitting).base());
      return;
    }
  }
  memory_.reset(static_cast<float*>(::operator new(count * sizeof(float), line)));
}

Numbers::Numbers(const Numbers& other) : Numbers(other.size_) {
  std::copy_n(other.data(), other.size_, data());
}

Numbers::~Numbers() {
  if (size_ < Spares::least || size_ > Spares::most) return;
  auto& [mutex, kept, total] = of_process<Spares>();
  const std::lock_guard lock(mutex);
  kept.push_back({std::move(memory_), size_});
  total += size_;
  while (total > Spares::most) {
    total -= kept.front().size;
    kept.erase(kept.begin());
  }
}

}  // namespace atheria
