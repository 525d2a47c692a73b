// Memory of values that instructions pass on: planes with a margin on each side, so that neighbours are at
// fixed offsets and vectors run across rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "integers.hpp"
#include "kernels/kernels.hpp"
#include "pages.hpp"

namespace atheria {

inline constexpr std::int64_t widest_vector = 16;  // of all kinds of CPU, in floats

// Where rows of `x` floats begin, so that their columns do not share the few places that a cache has for
// lines a power of two apart: after an odd number of lines.
inline std::int64_t apart_in_cache(std::int64_t x) {
  constexpr std::int64_t line = 16;  // floats
  return (rounded_up(x, line) / line | 1) * line;
}

// Zeroed floats on a cache line, with room to read beyond the end.
class Floats {
 public:
  Floats() = default;
  explicit Floats(std::int64_t count) : data_(take_pages(static_cast<std::size_t>(count + overread))) {
    std::memset(data_.get(), 0, static_cast<std::size_t>(count + overread) * sizeof(float));
  }
  float* get() const { return data_.get(); }

 private:
  Pages data_;
};

// How a plane lies in memory: rows of `stride` floats, `halo` cells around height x width.
struct Layout {
  std::int64_t height = 0, width = 0, halo = 0;

  std::int64_t stride() const { return width + 2 * halo; }
  std::int64_t size() const { return (height + 2 * halo) * stride(); }
  std::int64_t first() const { return halo * stride() + halo; }  // of the cell (0, 0)
  // From the cell (0, 0) to the last one, with the margins in between.
  std::int64_t run() const { return height == 0 ? 0 : (height - 1) * stride() + width; }
};

// Fills the margin of a plane, whose cells are so many floats, with what the boundary says is there.
template <std::int64_t cell = 1>
void fill_halo(float* plane, const Layout& layout, bool torus) {
  const auto stride = layout.stride() * cell;
  const auto halo = layout.halo;
  const auto fill = [&](float* to, const float* from, std::int64_t floats) {
    if (torus) {
      std::copy(from, from + floats, to);
    } else {
      std::fill(to, to + floats, 0.0F);
    }
  };
  for (std::int64_t y = halo; y < halo + layout.height; ++y) {
    float* const row = plane + y * stride;
    for (std::int64_t i = 0; i < halo; ++i) {
      // A grid narrower than the margin is met again and again.
      fill(row + (halo - 1 - i) * cell, row + (halo + layout.width - 1 - i % layout.width) * cell, cell);
      fill(row + (halo + layout.width + i) * cell, row + (halo + i % layout.width) * cell, cell);
    }
  }
  for (std::int64_t i = 0; i < halo; ++i) {
    fill(plane + (halo - 1 - i) * stride, plane + (halo + layout.height - 1 - i % layout.height) * stride,
         stride);
    fill(plane + (halo + layout.height + i) * stride, plane + (halo + i % layout.height) * stride, stride);
  }
}

// The planes of one value.
struct Planes {
  float* data = nullptr;
  Layout layout;

  float* plane(std::int64_t channel) const { return data + channel * layout.size(); }

  // From and to planes without margins.
  void fill(const float* from, std::int64_t channels, bool torus) const {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t y = 0; y < layout.height; ++y) {
        const float* const row = from + (c * layout.height + y) * layout.width;
        std::copy(row, row + layout.width, plane(c) + layout.first() + y * layout.stride());
      }
      fill_halo(plane(c), layout, torus);
    }
  }
  void copy_out(std::int64_t channel, float* to) const {
    for (std::int64_t y = 0; y < layout.height; ++y) {
      const float* const row = plane(channel) + layout.first() + y * layout.stride();
      std::copy(row, row + layout.width, to + y * layout.width);
    }
  }
};

// Memory that is used within one instruction.
class Scratch {
 public:
  float* take(std::int64_t count) {
    if (count > size_) floats_ = Floats(size_ = count);
    return floats_.get();
  }

 private:
  Floats floats_;
  std::int64_t size_ = 0;
};

// A value whose cells are one after the other, each with its channels together.
struct ChannelsLast {
  float* data = nullptr;
  std::int64_t height = 0, width = 0, channels = 0;

  std::int64_t stride() const { return rounded_up(channels, widest_vector); }  // from cell to cell
  std::int64_t cells() const { return height * width; }
  float* cell(std::int64_t y, std::int64_t x) const { return data + (y * width + x) * stride(); }
};

}  // namespace atheria
