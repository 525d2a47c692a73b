#include "device_draws.hpp"

#include <numbers>
#include <vector>

namespace atheria {
namespace {

constexpr std::int64_t mask = 0xFFFFFFFF;

// 0..size-1 along an axis of (B, H, W).
at::Tensor along(std::int64_t axis, std::int64_t size, const at::Device& device) {
  std::array<std::int64_t, 3> shape{1, 1, 1};
  shape[static_cast<std::size_t>(axis)] = size;
  return at::arange(size, at::TensorOptions(at::kLong).device(device)).view(shape);
}

}  // namespace

std::array<at::Tensor, 4> philox(std::array<at::Tensor, 4> counter, std::uint64_t key) {
  auto [c0, c1, c2, c3] = std::move(counter);
  for (auto* word : {&c0, &c1, &c2, &c3}) *word = word->bitwise_and(mask);
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    // Products of int64 wrap modulo 2^64, which keeps all the bits that are wanted.
    const auto p0 = c0 * std::int64_t{0xD2511F53};
    const auto p1 = c2 * std::int64_t{0xCD9E8D57};
    c0 = p1.bitwise_right_shift(32).bitwise_and(mask).bitwise_xor(c1).bitwise_xor(std::int64_t{k0});
    c2 = p0.bitwise_right_shift(32).bitwise_and(mask).bitwise_xor(c3).bitwise_xor(std::int64_t{k1});
    c1 = p1.bitwise_and(mask);
    c3 = p0.bitwise_and(mask);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {c0, c1, c2, c3};
}

DeviceDraws::DeviceDraws(std::uint64_t seed, const Lattice& lattice, at::Tensor step,
                         std::uint32_t first_stream)
    : seed_(seed),
      lattice_(lattice),
      step_(std::move(step)),
      next_word_(4 * static_cast<std::int64_t>(first_stream)) {}

at::Tensor DeviceDraws::stream(std::int64_t index) const {
  const auto device = step_.device();
  const auto universe = along(0, lattice_.universes, device) + lattice_.first;
  const auto drawn = philox({along(2, lattice_.width, device), along(1, lattice_.height, device),
                             step_.view({1, 1, 1}), universe * std::int64_t{stream::count} + index},
                            seed_);
  return at::stack(at::broadcast_tensors({drawn[0], drawn[1], drawn[2], drawn[3]}));
}

at::Tensor DeviceDraws::words(std::int64_t count) {
  std::vector<at::Tensor> drawn;
  const auto first = next_word_ / 4;
  for (auto index = first; 4 * index < next_word_ + count; ++index) drawn.push_back(stream(index));
  const auto before = next_word_ - 4 * first;
  next_word_ += count;
  return at::cat(drawn).narrow(0, before, count);
}

at::Tensor DeviceDraws::uniform(std::int64_t count) {
  return words(count).bitwise_right_shift(8).to(at::kFloat) * 0x1p-24;
}

std::pair<at::Tensor, at::Tensor> DeviceDraws::complex_normal(std::int64_t count) {
  const auto drawn = words(2 * count).to(at::kDouble).unflatten(0, {count, 2});
  const auto radius = ((drawn.select(1, 0) + 0.5) * 0x1p-32).log().mul(-2.0).sqrt();
  const auto angle = drawn.select(1, 1) * (2.0 * std::numbers::pi * 0x1p-32);
  return {radius * angle.cos(), radius * angle.sin()};
}

}  // namespace atheria
