#include "law.hpp"

#include <torch/csrc/jit/serialization/pickle.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "compiled_law.hpp"
#include "integers.hpp"
#include "recorded_step.hpp"

namespace atheria {
namespace {

std::string message_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  return torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
}

constexpr std::int64_t largest_stride = 4096;

class TorchScriptLaw final : public Law {
 public:
  TorchScriptLaw(torch::jit::Module module, at::Device device, std::optional<std::int64_t> receptive_radius)
      : module_(std::move(module)),
        device_(device),
        receptive_radius_(receptive_radius),
        has_memory_(module_.find_method("initial_memory").has_value()),
        stride_(module_.hasattr("stride") ? module_.attr("stride").toInt() : 1) {
    if (stride_ < 1 || stride_ > largest_stride) {
      throw std::invalid_argument("the law's `stride` must be from 1 to " + std::to_string(largest_stride) +
                                  ", got " + std::to_string(stride_));
    }
  }

  Output forward(const at::Tensor& psi, const at::Tensor& memory) override {
    if (!has_memory_) return {module_.forward({psi}).toTensor(), {}};
    const auto result = module_.forward({psi, memory}).toTuple();
    return {result->elements().at(0).toTensor(), result->elements().at(1).toTensor()};
  }

  at::Tensor initial_memory(std::int64_t universes, std::int64_t height, std::int64_t width) override {
    if (!has_memory_) return {};
    return module_.get_method("initial_memory")({universes, height, width}).toTensor().to(device_);
  }

  // Throws std::invalid_argument where the module is no law of d_state components.
  void check(std::int64_t d_state) {
    constexpr std::int64_t smallest = 16;  // a plain file does not tell its stride; 16 suits the usual ones
    const auto size = rounded_up(smallest, stride_);
    const auto psi = at::zeros({1, 2 * d_state, size, size}, at::TensorOptions(at::kFloat).device(device_));
    const auto before = attributes();
    vacuum_norm_ = checked_delta(psi).square().sum(1).max().sqrt().item<double>();
    const auto ones = at::ones_like(psi);
    const auto memory = initial_memory(1, size, size);
    const auto memory_before = has_memory_ ? memory.clone() : at::Tensor();
    forward(ones, memory);
    if (!at::equal(ones, at::ones_like(psi)) || (has_memory_ && !at::equal(memory, memory_before))) {
      throw std::invalid_argument(
          "the law changes its arguments in place; forward() must leave them and return what it computes");
    }
    const auto now = attributes();
    const auto changed = std::mismatch(now.begin(), now.end(), before.begin()).first;
    if (changed != now.end()) {
      throw std::invalid_argument("the law changes its attribute `" + changed->first +
                                  "`; forward() must leave the module as it is. For memory, it takes it and "
                                  "returns it: forward(psi, memory) -> (delta, memory)");
    }
  }

  std::optional<std::int64_t> receptive_radius() const override { return receptive_radius_; }
  bool has_memory() const override { return has_memory_; }
  std::int64_t stride() const override { return stride_; }
  double vacuum_norm() const override { return vacuum_norm_; }
  std::string backend() const override { return "torchscript"; }
  std::string why() const override { return recorded_ ? why_ + "; " + recorded_->how() : why_; }
  RecordedStep* recorded() override { return recorded_.get(); }
  void set_why(std::string why) { why_ = std::move(why); }
  const torch::jit::Module& module() const { return module_; }

  // From now on whole steps are recorded. What does not depend on the field is computed once and for all:
  // some of it, as the exponential of a matrix, waits for the device.
  void record_with(Recorder recorder) {
    recorded_ = std::make_unique<RecordedStep>(std::move(recorder));
    std::vector<std::string> kept;
    if (has_memory_) kept.emplace_back("initial_memory");
    module_ = torch::jit::freeze(module_, kept);
  }

 private:
  // What the module holds, by name: what it kept there no snapshot would have, and the first calls had
  // changed.
  std::map<std::string, std::vector<char>> attributes() const {
    std::map<std::string, std::vector<char>> all;
    for (const auto& attribute : module_.named_attributes()) {
      if (!attribute.value.isObject()) all[attribute.name] = torch::jit::pickle_save(attribute.value);
    }
    return all;
  }

  at::Tensor checked_delta(const at::Tensor& psi) {
    at::Tensor delta;
    try {
      delta = forward(psi, initial_memory(1, psi.size(2), psi.size(3))).delta;
    } catch (const std::exception& error) {
      const auto channels = std::to_string(psi.size(1));
      throw std::invalid_argument(
          "the law does not take a field with `d_state`=" + std::to_string(psi.size(1) / 2) + " (" +
          channels + " channels); is `d_state` right? libtorch says: " + message_of(error));
    }
    check_delta(delta, psi);
    return delta;
  }

  torch::jit::Module module_;
  at::Device device_;
  std::optional<std::int64_t> receptive_radius_;
  bool has_memory_;
  std::int64_t stride_;
  double vacuum_norm_ = 0;
  std::string why_;
  std::unique_ptr<RecordedStep> recorded_;
};

}  // namespace

Law::Advanced Law::advance(const at::Tensor& psi, const at::Tensor& memory, const Step& step) {
  return finished(psi, forward(psi, memory), step);
}

Law::Advanced finished(const at::Tensor& psi, Law::Output output, const Law::Step& step) {
  check_delta(output.delta, psi);
  const auto fires = fire_mask(Shape::of(psi), step.physics.fire_rate, step.seed, step.step);
  auto next = advance(psi, output.delta, step.physics, step.reference_energy, fires);
  return {next.contiguous(), std::move(output.memory)};
}

void check_delta(const at::Tensor& delta, const at::Tensor& psi) {
  if (delta.sizes() == psi.sizes() && delta.scalar_type() == at::kFloat) return;
  std::ostringstream got;
  got << delta.scalar_type() << ' ' << delta.sizes();
  throw std::invalid_argument(
      "a law must return float32 of its input's shape (B, 2*`d_state`, H, W); is `d_state`=" +
      std::to_string(psi.size(1) / 2) + " right? It returned " + got.str());
}

Backend parse_backend(const std::string& name) {
  if (name == "fastest") return Backend::fastest;
  if (name == "compiled") return Backend::compiled;
  if (name == "torchscript") return Backend::torchscript;
  throw std::invalid_argument("`backend` must be fastest, compiled or torchscript, got '" + name + "'");
}

std::unique_ptr<Law> load_law(const std::string& path, std::int64_t d_state, const at::Device& device,
                              const LawOptions& options) {
  std::unique_ptr<TorchScriptLaw> script;
  try {
    auto module = torch::jit::load(path, device);
    module.eval();
    script = std::make_unique<TorchScriptLaw>(std::move(module), device, options.receptive_radius);
  } catch (const std::invalid_argument&) {
    throw;
  } catch (const std::exception& error) {
    throw std::runtime_error("'" + path + "' cannot be read as TorchScript: " + message_of(error));
  }
  const c10::InferenceMode inference;
  script->check(d_state);
  if (options.recorder) {
    script->set_why("libtorch runs on `device`=" + device.str() +
                    "; the kernels of our own know the CPU alone");
    script->record_with(options.recorder);
    return script;
  }
  if (options.backend == Backend::torchscript) {
    script->set_why("`backend` asks for it");
    return script;
  }
  const auto module = script->module();
  std::unique_ptr<Law> law = std::move(script);
  const bool is_demanded = options.backend == Backend::compiled || options.precision == Precision::bf16;
  auto compilation = compile(law, module, d_state, {options.precision, is_demanded});
  if (compilation.law) return std::move(compilation.law);
  if (is_demanded) throw std::invalid_argument(cannot_compile(compilation.why_not));
  static_cast<TorchScriptLaw&>(*law).set_why("not compiled: " + compilation.why_not);
  return law;
}

}  // namespace atheria
