#include "winograd_weights.hpp"

namespace atheria {

double winograd_weight(const double* filter, std::int64_t element) {
  static constexpr double g[6][3] = {{1.0 / 4, 0, 0},
                                     {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                     {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                     {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                     {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                     {0, 0, 1}};
  const auto& down = g[element / 6];
  const auto& across = g[element % 6];
  double sum = 0;
  for (std::int64_t y = 0; y < 3; ++y) {
    for (std::int64_t x = 0; x < 3; ++x) sum += down[y] * across[x] * filter[y * 3 + x];
  }
  return sum;
}

}  // namespace atheria
