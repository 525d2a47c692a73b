#define ATHERIA_KERNELS amx_kernels
#define ATHERIA_CPU "AVX-512 with bfloat16 tiles"
#include "kernels/kernels_of.hpp"
