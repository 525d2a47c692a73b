#define ATHERIA_KERNELS portable_kernels
#define ATHERIA_CPU "portable"
#include "kernels/kernels_of.hpp"
