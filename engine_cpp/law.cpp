#include "law.hpp"

#include <stdexcept>
#include <utility>

namespace atheria {
namespace {

std::string message_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  return torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
}

class TorchScriptLaw final : public Law {
 public:
  TorchScriptLaw(torch::jit::Module module, at::Device device)
      : module_(std::move(module)),
        device_(device),
        has_memory_(module_.find_method("initial_memory").has_value()),
        stride_(module_.hasattr("stride") ? module_.attr("stride").toInt() : 1) {}

  Output forward(const at::Tensor& psi, const at::Tensor& memory) override {
    if (!has_memory_) return {module_.forward({psi}).toTensor(), {}};
    const auto result = module_.forward({psi, memory}).toTuple();
    return {result->elements().at(0).toTensor(), result->elements().at(1).toTensor()};
  }

  at::Tensor initial_memory(std::int64_t universes, std::int64_t height, std::int64_t width) override {
    if (!has_memory_) return {};
    return module_.get_method("initial_memory")({universes, height, width}).toTensor().to(device_);
  }

  bool has_memory() const override { return has_memory_; }
  std::int64_t stride() const override { return stride_; }
  std::string backend() const override { return "torchscript"; }
  std::string why() const override { return "every law runs on libtorch"; }

 private:
  torch::jit::Module module_;
  at::Device device_;
  bool has_memory_;
  std::int64_t stride_;
};

void check_is_law(Law& law, std::int64_t d_state, const at::Device& device) {
  constexpr std::int64_t smallest = 16;  // a plain file does not tell its stride; 16 suits the usual ones
  const auto size = law.stride() * ((smallest + law.stride() - 1) / law.stride());
  const auto vacuum = at::zeros({1, 2 * d_state, size, size}, at::TensorOptions(at::kFloat).device(device));
  at::Tensor delta;
  try {
    delta = law.forward(vacuum, law.initial_memory(1, size, size)).delta;
  } catch (const std::exception& error) {
    throw std::invalid_argument("the law does not take a field with `d_state`=" + std::to_string(d_state) +
                                " (" + std::to_string(2 * d_state) +
                                " channels); is `d_state` right? libtorch says: " + message_of(error));
  }
  if (delta.sizes() != vacuum.sizes()) {
    throw std::invalid_argument(
        "a law must return a tensor of its input's shape (B, 2*`d_state`, H, W); with `d_state`=" +
        std::to_string(d_state) + " it returned another: is `d_state` right?");
  }
}

}  // namespace

std::unique_ptr<Law> load_torchscript_law(const std::string& path, std::int64_t d_state,
                                          const at::Device& device) {
  std::unique_ptr<TorchScriptLaw> law;
  try {
    auto module = torch::jit::load(path, device);
    module.eval();
    law = std::make_unique<TorchScriptLaw>(std::move(module), device);
  } catch (const std::exception& error) {
    throw std::runtime_error("'" + path + "' cannot be read as TorchScript: " + message_of(error));
  }
  const c10::InferenceMode inference;
  check_is_law(*law, d_state, device);
  return law;
}

}  // namespace atheria
