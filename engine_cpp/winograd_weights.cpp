#include "winograd_weights.hpp"

#include <array>

namespace atheria {
namespace {

// Row `i` of G: 1, p, p^2 at the point p, over its differences to the others; 0, 0, 1 at infinity.
std::array<double, 3> row_of(std::int64_t i, const WinogradPoints& points) {
  const double a = points.a;
  const double b = points.b;
  const auto at = [](double p, double divisor) {
    return std::array{1 / divisor, p / divisor, p * p / divisor};
  };
  const auto difference = a * a - b * b;
  switch (i) {
    case 0:
      return at(0, a * a * b * b);
    case 1:
    case 2:
      return at(i == 1 ? a : -a, 2 * a * a * difference);
    case 3:
    case 4:
      return at(i == 3 ? b : -b, -2 * b * b * difference);
    default:
      return {0, 0, 1};
  }
}

}  // namespace

double winograd_weight(const double* filter, std::int64_t element, const WinogradPoints& points) {
  const auto down = row_of(element / 6, points);
  const auto across = row_of(element % 6, points);
  double sum = 0;
  for (std::size_t y = 0; y < 3; ++y) {
    for (std::size_t x = 0; x < 3; ++x) sum += down[y] * across[x] * filter[y * 3 + x];
  }
  return sum;
}

}  // namespace atheria
