// Memory that a step walks through from end to end: in large pages where it fills some, because a look-up of
// each small one takes longer than the arithmetic on it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace atheria {

struct FreePages {
  void operator()(float* data) const { std::free(data); }
};
using Pages = std::unique_ptr<float, FreePages>;

// Room for so many floats, on a cache line.
Pages take_pages(std::size_t floats);

}  // namespace atheria
