// Fixed filters of the nearest neighbours, and the convolution that reads them, as one convolution of 3 x 3.
#pragma once

#include "region.hpp"

namespace atheria {

// Gives convolutions that read several filters of the same planes the weights of both for Winograd's
// algorithm, where that takes clearly fewer multiplications. For sources that lie bare. outputs: what is read
// of the region in the end.
void join_filters(Region& region, const std::vector<const std::vector<Operand>*>& outputs);

}  // namespace atheria
