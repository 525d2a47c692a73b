#define ATHERIA_KERNELS avx512_kernels
#define ATHERIA_CPU "AVX-512"
#include "kernels/kernels_of.hpp"
