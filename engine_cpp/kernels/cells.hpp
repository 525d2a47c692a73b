// Cells whose channels lie together, for products in bfloat16. Included by kernels_of.hpp, inside its
// namespace.

// Calls use(change), change(x) being what is made of a cell's channels `first` to `first` + 15, the first
// `count` of them.
template <class Use>
inline void with_change(const ChannelAffine& of, std::int64_t first, std::int64_t count, Use use) {
  const Vector centre = load(of.centre + first, count);
  const Vector scale = load(of.scale + first, count);
  const Vector shift = load(of.shift + first, count);
  with_activation(of.activation, of.alpha, [&](auto activated) {
    use([=](Vector x) { return activated((x - centre) * scale + shift); });
  });
}

void pack_cells(const float* cells, std::int64_t stride, std::int64_t channels, const ChannelAffine* of,
                std::uint32_t* out, std::int64_t count) {
  const auto pack = [=](auto change) {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto rounded = _mm512_cvtneps_pbh(change(load(cells + i * stride, channels)));
      std::memcpy(out + i * lanes, &rounded, sizeof rounded);
    }
  };
  if (of == nullptr) {
    pack([](Vector x) { return x; });
  } else {
    with_change(*of, 0, channels, pack);
  }
}

void change_cells(const float* cells, std::int64_t stride, const ChannelAffine& of, float* out,
                  std::int64_t count) {
  for (std::int64_t c = 0; c < stride; c += lanes) {
    with_change(of, c, lanes, [=](auto change) {
      for (std::int64_t i = 0; i < count; ++i)
        store(out + i * stride + c, change(load(cells + i * stride + c)));
    });
  }
}

// Differences to the mean of an eighth of the cells: the square of what that one is off is at most seven
// times the variance, so that this is not swallowed.
void moments_of_cells(const float* cells, std::int64_t stride, std::int64_t count, Moments* of_channels) {
  constexpr std::int64_t at_once = 4;  // sums are chains of additions
  const auto some = (count + 7) / 8;
  for (std::int64_t c = 0; c < stride; c += lanes) {
    Vector sum{};
    for (std::int64_t i = 0; i < some; ++i) sum += load(cells + i * stride + c);
    const Vector about = sum / static_cast<float>(some);
    Vector sums[at_once]{};
    Vector squares[at_once]{};
    const auto add = [&](std::int64_t i, std::int64_t chain) {
      const Vector x = load(cells + i * stride + c) - about;
      sums[chain] += x;
      squares[chain] += x * x;
    };
    std::int64_t i = 0;
    for (; i + at_once <= count; i += at_once) {
#pragma GCC unroll 4
      for (std::int64_t chain = 0; chain < at_once; ++chain) add(i + chain, chain);
    }
    for (; i < count; ++i) add(i, 0);
    const Vector difference = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    const Vector square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    const Vector off = difference / static_cast<float>(count);
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      of_channels[c + lane] = {static_cast<double>(about[lane]) + static_cast<double>(off[lane]),
                               static_cast<double>(square[lane]) -
                                   static_cast<double>(off[lane]) * static_cast<double>(difference[lane])};
    }
  }
}

void max_of_cells(const float* upper, const float* lower, std::int64_t stride, float* out,
                  std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t c = 0; c < stride; c += lanes) {
      const auto left = 2 * i * stride + c;
      const auto right = left + stride;
      store(out + i * stride + c, larger_or_none(larger_or_none(load(upper + left), load(lower + left)),
                                                 larger_or_none(load(upper + right), load(lower + right))));
    }
  }
}
