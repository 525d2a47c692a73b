#include "kernels/kernels.hpp"

namespace atheria {

extern const Kernels portable_kernels;
#if defined(ATHERIA_X86)
extern const Kernels avx512bf16_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx2_kernels;
#endif

namespace {

const Kernels& best() {
#if defined(ATHERIA_X86)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return avx512bf16_kernels;
  if (avx512) return avx512_kernels;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_kernels;
#endif
  return portable_kernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = best();
  return chosen;
}

}  // namespace atheria
