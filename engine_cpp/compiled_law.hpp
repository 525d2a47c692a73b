// The backend of our own kernels: a TorchScript law lowered to a program, checked against libtorch.
#pragma once

#include <torch/script.h>

#include <cstdint>
#include <memory>
#include <string>

#include "channels_last.hpp"
#include "law.hpp"

namespace atheria {

// A law that runs compiled, or why there is none.
struct Compilation {
  std::unique_ptr<Law> law;
  std::string why_not;
};

struct CompileOptions {
  Precision precision = Precision::fp32;
  bool is_demanded = false;  // libtorch may not stand in for grids that the program does not suit
};

// What a user is told who demands it.
std::string cannot_compile(const std::string& why_not);

// Lowers `module` and compares what comes out with `script` on random fields: in fp32 within 1e-5 of the
// largest number, or of 1. `script` serves grids that the program does not suit; it must outlive nothing, the
// law takes it where there is one.
Compilation compile(std::unique_ptr<Law>& script, const torch::jit::Module& module, std::int64_t d_state,
                    CompileOptions options);

}  // namespace atheria
