// What filters of 3 x 3 are in the tiles of Winograd's algorithm.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"

namespace atheria {

// Element (i, j), row by row, of G g G^T of a filter g, row by row.
double winograd_weight(const double* filter, std::int64_t element, const WinogradPoints& points);

}  // namespace atheria
