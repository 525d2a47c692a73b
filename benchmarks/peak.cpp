// Prints the GFLOP/s of multiply-adds that the CPU does at most, in float32: independent ones, on registers.
// What a law computes by direct convolution cannot be faster, whoever writes it.
//
//     c++ -O3 -march=native -pthread peak.cpp -o peak && ./peak THREADS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int bytes = 64;
#elif defined(__AVX__)
constexpr int bytes = 32;
#else
constexpr int bytes = 16;
#endif
typedef float Vector __attribute__((vector_size(bytes)));
constexpr int lanes = bytes / sizeof(float);
constexpr int chains = 12;  // more than latency times units, fewer than registers
constexpr long times = 2'000'000;
constexpr int turns = 30;

static void multiply_and_add() {
  Vector sums[chains];
  for (int c = 0; c < chains; ++c) sums[c] = Vector{} + static_cast<float>(c);
  const Vector factor = Vector{} + 0.999F;
  for (long i = 0; i < times; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < chains; ++c) sums[c] = sums[c] * factor + factor;
  }
  for (const auto& sum : sums) asm volatile("" ::"m"(sum));
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  double best = 0;
  for (int turn = 0; turn < turns; ++turn) {
    const auto began = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(multiply_and_add);
    multiply_and_add();
    for (auto& other : others) other.join();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    best = std::max(best, 2.0 * lanes * chains * times * threads / took.count() / 1e9);
  }
  std::printf("%.1f\n", best);
}
