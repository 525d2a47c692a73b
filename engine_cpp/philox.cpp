#include "philox.hpp"

#include <ATen/Parallel.h>

#include <algorithm>

namespace atheria {

at::Tensor words(std::uint64_t seed, const Lattice& lattice, std::int64_t step, std::int64_t first_word,
                 std::int64_t count) {
  const auto width = lattice.width;
  const auto rows = lattice.universes * lattice.height;
  auto result = at::empty({count, lattice.universes, lattice.height, width}, at::kLong);
  auto* const data = result.data_ptr<std::int64_t>();
  constexpr std::int64_t rows_worth_a_thread = 32;
  at::parallel_for(0, rows, rows_worth_a_thread, [&](std::int64_t begin, std::int64_t end) {
    Row drawn(width);
    for (std::int64_t row = begin; row < end; ++row) {
      for (auto stream = first_word / 4; 4 * stream < first_word + count; ++stream) {
        drawn.draw(seed, row % lattice.height, step, lattice.first + row / lattice.height,
                   static_cast<std::uint32_t>(stream));
        for (std::int64_t lane = 0; lane < 4; ++lane) {
          const auto word = 4 * stream + lane - first_word;
          if (word < 0 || word >= count) continue;
          std::copy_n(drawn.lane(static_cast<std::size_t>(lane)), width, data + (word * rows + row) * width);
        }
      }
    }
  });
  return result;
}

}  // namespace atheria
