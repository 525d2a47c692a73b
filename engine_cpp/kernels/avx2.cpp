#define ATHERIA_KERNELS avx2_kernels
#define ATHERIA_CPU "AVX2"
#include "kernels/kernels_of.hpp"
