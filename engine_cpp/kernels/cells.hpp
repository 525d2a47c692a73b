// Cells whose channels lie together, for products in bfloat16. Included by kernels_of.hpp, inside its
// namespace.

// Calls use(change), change(x) being what is made of a cell's channels `first` to `first` + 15, the first
// `count` of them.
template <class Use>
inline void with_change(const ChannelAffine& of, std::int64_t first, std::int64_t count, Use use) {
  const Vector centre = load(of.centre + first, count);
  const Vector scale = load(of.scale + first, count);
  const Vector shift = load(of.shift + first, count);
  if (of.activation == Activation::elu && of.alpha == 1.0F) {
    use([=](Vector x) { return elu((x - centre) * scale + shift); });
  } else {
    use([=, activation = of.activation, alpha = of.alpha](Vector x) {
      return activate(activation, alpha, (x - centre) * scale + shift);
    });
  }
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

// In two passes over cells in the cache, as `moments`.
void moments_of_cells(const float* cells, std::int64_t stride, std::int64_t count, Moments* of_channels) {
  const auto n = static_cast<float>(count);
  for (std::int64_t c = 0; c < stride; c += lanes) {
    Vector sum{};
    for (std::int64_t i = 0; i < count; ++i) sum += load(cells + i * stride + c);
    const Vector mean = sum / n;
    Vector difference{};
    Vector spread{};
    for (std::int64_t i = 0; i < count; ++i) {
      const Vector x = load(cells + i * stride + c) - mean;
      difference += x;
      spread += x * x;
    }
    const Vector off = difference / n;  // by which the mean was rounded
    for (std::int64_t i = 0; i < lanes; ++i) {
      of_channels[c + i] = {static_cast<double>(mean[i]) + static_cast<double>(off[i]),
                            static_cast<double>(spread[i] - off[i] * difference[i])};
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
