#include "kernels/kernels.hpp"

#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(ATHERIA_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace atheria {

extern const Kernels portable_kernels;
#if defined(ATHERIA_AMX)
extern const Kernels amx_kernels;
#endif
#if defined(ATHERIA_X86)
extern const Kernels avx512bf16_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx2_kernels;
#endif

namespace {

#if defined(ATHERIA_AMX)
// Whether the CPU has tiles, and Linux lets this process use them, which must be asked for once.
bool may_use_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned bfloat16 = 1U << 22, tiles = 1U << 24;
  if ((d & bfloat16) == 0 || (d & tiles) == 0) return false;
  constexpr long ask_for_state = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}
#endif

// What this CPU can run, the best first.
std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found;
#if defined(ATHERIA_X86)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool bfloat16 = avx512 && __builtin_cpu_supports("avx512bf16");
#if defined(ATHERIA_AMX)
  if (bfloat16 && may_use_tiles()) found.push_back(&amx_kernels);
#endif
  if (bfloat16) found.push_back(&avx512bf16_kernels);
  if (avx512) found.push_back(&avx512_kernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2_kernels);
#endif
  found.push_back(&portable_kernels);
  return found;
}

const Kernels& choose() {
  const auto found = runnable();
  const char* const wanted = std::getenv("ATHERIA_CPU");
  if (wanted == nullptr) return *found.front();
  std::string names;
  for (const auto* const kernels : found) {
    if (kernels->name == std::string(wanted)) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument("`ATHERIA_CPU` must be one of what this CPU can run, " + names + "; got '" +
                              wanted + "'");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

std::int64_t pairs_pay_up_to() {
  constexpr auto any = std::numeric_limits<std::int64_t>::max();
  if (kernels().multiply_pairs == nullptr) return 0;
  if (std::getenv("ATHERIA_CPU") != nullptr) return any;
#if defined(ATHERIA_AMX)
  if (&kernels() == &amx_kernels) return any;
#endif
#if defined(ATHERIA_X86)
  // Intel's take pairs at half the rate of float32.
  if (__builtin_cpu_is("intel") != 0) return 0;
#endif
  // AMD's, which are left, take them at twice the rate: on larger grids Winograd's algorithm saves more.
  return 60'000;
}

}  // namespace atheria
