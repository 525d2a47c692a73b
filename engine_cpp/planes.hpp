// Memory of values that instructions pass on: planes with a margin on each side, so that neighbours are at
// fixed offsets and vectors run across rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace atheria {

inline constexpr std::int64_t widest_vector = 16;  // of all kinds of CPU, in floats

inline std::int64_t rounded_up(std::int64_t x, std::int64_t unit) { return (x + unit - 1) / unit * unit; }

// Zeroed floats on a cache line, with room to read beyond the end.
class Floats {
 public:
  Floats() = default;
  explicit Floats(std::int64_t count)
      : data_(static_cast<float*>(
            ::operator new(static_cast<std::size_t>(count + overread) * sizeof(float), alignment))) {
    std::memset(data_.get(), 0, static_cast<std::size_t>(count + overread) * sizeof(float));
  }
  float* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(float* data) const { ::operator delete(data, alignment); }
  };
  std::unique_ptr<float, Free> data_;
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

// Fills the margin of a plane with what the boundary says is there.
inline void fill_halo(float* plane, const Layout& layout, bool torus) {
  const auto stride = layout.stride();
  const auto halo = layout.halo;
  for (std::int64_t y = halo; y < halo + layout.height; ++y) {
    float* const row = plane + y * stride;
    for (std::int64_t i = 0; i < halo; ++i) {
      // A grid narrower than the margin is met again and again.
      row[halo - 1 - i] = torus ? row[halo + layout.width - 1 - i % layout.width] : 0.0F;
      row[halo + layout.width + i] = torus ? row[halo + i % layout.width] : 0.0F;
    }
  }
  const auto bytes = static_cast<std::size_t>(stride) * sizeof(float);
  for (std::int64_t i = 0; i < halo; ++i) {
    float* const above = plane + (halo - 1 - i) * stride;
    float* const below = plane + (halo + layout.height + i) * stride;
    if (torus) {
      std::memcpy(above, plane + (halo + layout.height - 1 - i % layout.height) * stride, bytes);
      std::memcpy(below, plane + (halo + i % layout.height) * stride, bytes);
    } else {
      std::memset(above, 0, bytes);
      std::memset(below, 0, bytes);
    }
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

}  // namespace atheria
