// A law proposes how the field changes: forward(psi) -> delta, or with memory
// forward(psi, memory) -> (delta, memory). Backends implement this interface.
#pragma once

#include <ATen/ATen.h>
#include <torch/script.h>

#include <cstdint>
#include <memory>
#include <string>

namespace atheria {

class Law {
 public:
  struct Output {
    at::Tensor delta;
    at::Tensor memory;  // undefined where the law has none
  };

  virtual ~Law() = default;
  virtual Output forward(const at::Tensor& psi, const at::Tensor& memory) = 0;
  virtual at::Tensor initial_memory(std::int64_t universes, std::int64_t height, std::int64_t width) = 0;
  virtual bool has_memory() const = 0;
  virtual std::int64_t stride() const = 0;  // H and W of a grid must be multiples of it
  virtual std::string backend() const = 0;
  virtual std::string why() const = 0;  // why this backend runs

  // Largest ||law(0)|| of a cell: at most epsilon where vacuum stays vacuum.
  virtual double vacuum_norm() const = 0;
};

// Throws std::invalid_argument where a law's answer is not float32 of psi's shape.
void check_delta(const at::Tensor& delta, const at::Tensor& psi);

// Reads a TorchScript file and checks, on a small field, that it is a law: it maps (B, 2d, H, W) to its own
// shape and leaves its arguments as they are.
// Throws std::runtime_error for an unreadable file, std::invalid_argument for one that is no law
// of d_state components.
std::unique_ptr<Law> load_torchscript_law(const std::string& path, std::int64_t d_state,
                                          const at::Device& device);

}  // namespace atheria
