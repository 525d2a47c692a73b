#include "pages.hpp"

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace atheria {

Pages take_pages(std::size_t floats) {
  constexpr std::size_t line = 64, large = std::size_t{1} << 21;  // bytes
  const auto bytes = floats * sizeof(float);
  const auto unit = bytes < 4 * large ? line : large;
  const auto size = (bytes + unit - 1) / unit * unit;
  Pages pages(static_cast<float*>(std::aligned_alloc(unit, size)));
  if (!pages) throw std::bad_alloc();
#if defined(__linux__)
  if (unit == large) {
    madvise(pages.get(), size, MADV_DONTNEED);  // small pages that the allocator has had back and kept
    madvise(pages.get(), size, MADV_HUGEPAGE);  // advice: a kernel that has no large ones gives small ones
  }
#endif
  return pages;
}

}  // namespace atheria
