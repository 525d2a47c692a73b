#include "kernels/kernels.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace atheria {

extern const Kernels portable_kernels;
#if defined(ATHERIA_X86)
extern const Kernels avx512bf16_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx2_kernels;
#endif

namespace {

// What this CPU can run, the best first.
std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found;
#if defined(ATHERIA_X86)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(&avx512bf16_kernels);
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

}  // namespace atheria
