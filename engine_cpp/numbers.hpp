// Memory of scattered cells. What universes give back is kept for the next ones, since fresh pages cost more
// than a step.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace atheria {

// So many numbers or some more, whatever they are, from a cache line on.
class Numbers {
 public:
  struct Free {
    void operator()(float* data) const { ::operator delete(data, line); }
  };
  static constexpr std::align_val_t line{64};
  using Memory = std::unique_ptr<float, Free>;

  Numbers() = default;
  explicit Numbers(std::size_t count);
  Numbers(const Numbers& other);
  Numbers(Numbers&& other) noexcept { swap(other); }
  Numbers& operator=(Numbers other) noexcept {
    swap(other);
    return *this;
  }
  ~Numbers();

  std::size_t size() const { return size_; }
  float* data() { return memory_.get(); }
  const float* data() const { return memory_.get(); }

 private:
  void swap(Numbers& other) noexcept {
    memory_.swap(other.memory_);
    std::swap(size_, other.size_);
  }

  Memory memory_;
  std::size_t size_ = 0;
};

}  // namespace atheria
