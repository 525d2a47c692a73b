#define ATHERIA_KERNELS avx512bf16_kernels
#define ATHERIA_CPU "AVX-512 with bfloat16"
#include "kernels/kernels_of.hpp"
