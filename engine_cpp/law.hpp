// A law proposes how the field changes: forward(psi) -> delta, or with memory
// forward(psi, memory) -> (delta, memory). Backends implement this interface.
#pragma once

#include <ATen/ATen.h>
#include <torch/script.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "channels_last.hpp"
#include "physics.hpp"
#include "profile.hpp"

namespace atheria {

// A weighted sum over a cell's surroundings, of each of its numbers.
struct NeighbourTap {
  std::int64_t dy, dx;
  float factor;
  bool operator==(const NeighbourTap&) const = default;
};
using NeighbourSum = std::vector<NeighbourTap>;

// Steps scattered cells of a local law.
class CellKernel {
 public:
  virtual ~CellKernel() = default;

  // All that the law sees, no further than one cell away: the first one is the cell itself.
  virtual const std::vector<NeighbourSum>& sums() const = 0;

  // The step before noise, of n cells; `global` normalisation is left to the caller. Safe to call from
  // several threads.
  // sums: of each cell all sums, 2d numbers each. fires: n flags, whether a cell updates; null where all do.
  // next: n pointers, each to where the 2d numbers of a cell go. largest: of each cell the bits of the number
  // farthest from 0, without its sign: 0 where it is vacuum.
  virtual void step(const float* sums, const std::uint8_t* fires, std::int64_t n, const Physics& physics,
                    float* const* next, std::int32_t* largest) const = 0;
};

class RecordedStep;

class Law {
 public:
  struct Output {
    at::Tensor delta;
    at::Tensor memory;  // undefined where the law has none
  };
  struct Step {
    const Physics& physics;
    const at::Tensor& reference_energy;  // (B, 1, 1, 1), that `global` normalisation restores
    std::uint64_t seed;
    std::int64_t step;  // how many have been taken, by which chance goes
    // To take at once; several only where chance has no part in them and no total is restored.
    std::int64_t most = 1;
  };
  struct Advanced {
    at::Tensor psi;  // contiguous
    at::Tensor memory;
    std::int64_t steps = 1;        // that were taken
    std::optional<Tally> tally{};  // of psi, where it is known; an energy that is not finite proves nothing
  };

  virtual ~Law() = default;
  virtual Output forward(const at::Tensor& psi, const at::Tensor& memory) = 0;

  // The whole step before noise; see atheria::advance. A backend may fuse it, and steps. A field that has
  // stopped being finite on the way is not finite in the end.
  virtual Advanced advance(const at::Tensor& psi, const at::Tensor& memory, const Step& step);

  // What steps fields on a device as a whole, noise included; null where the caller puts a step together.
  virtual RecordedStep* recorded() { return nullptr; }

  // R where the output at a cell depends on no cell further away; none where it does, or nobody knows.
  virtual std::optional<std::int64_t> receptive_radius() const { return {}; }

  // Of steps on grids; null where the backend has no parts to tell apart.
  virtual Profile* profile() { return nullptr; }

  // Null where the backend has none, as for laws that look further than one cell.
  virtual const CellKernel* cell_kernel() const { return nullptr; }

  virtual at::Tensor initial_memory(std::int64_t universes, std::int64_t height, std::int64_t width) = 0;
  virtual bool has_memory() const = 0;
  virtual std::int64_t stride() const = 0;  // H and W of a grid must be multiples of it
  virtual std::string backend() const = 0;
  virtual std::string why() const = 0;  // why this backend runs

  // Why libtorch steps this field all the same; empty where it does not.
  virtual std::string why_not(const at::Tensor& /*psi*/) { return ""; }

  // Largest ||law(0)|| of a cell: at most epsilon where vacuum stays vacuum.
  virtual double vacuum_norm() const = 0;
};

// Throws std::invalid_argument where a law's answer is not float32 of psi's shape.
void check_delta(const at::Tensor& delta, const at::Tensor& psi);

// The step around what a law has answered, which is checked.
Law::Advanced finished(const at::Tensor& psi, Law::Output output, const Law::Step& step);

// Runs `step` a few times, each time into memory of its own, and keeps what the device did the last time:
// `replay` does that again, in the same memory.
struct Recording {
  std::function<void()> replay;
  std::string how;  // the steps are run
};
using Recorder = std::function<Recording(const std::function<void()>& step)>;

enum class Backend : std::uint8_t { fastest, compiled, torchscript };

// Throws std::invalid_argument for an unknown name.
Backend parse_backend(const std::string& name);

struct LawOptions {
  Backend backend = Backend::fastest;
  Precision precision = Precision::fp32;
  std::optional<std::int64_t> receptive_radius;  // what its description says
  Recorder recorder;                             // of whole steps by libtorch; none: they are not recorded
};

// Reads a TorchScript file and checks, on a small field, that it is a law: it maps (B, 2d, H, W) to its own
// shape and leaves its arguments as they are.
// Throws std::runtime_error for an unreadable file, std::invalid_argument for one that is no law
// of d_state components, or that does not run on the wanted backend.
std::unique_ptr<Law> load_law(const std::string& path, std::int64_t d_state, const at::Device& device,
                              const LawOptions& options);

}  // namespace atheria
