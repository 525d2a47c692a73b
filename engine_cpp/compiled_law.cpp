#include "compiled_law.hpp"

#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "integers.hpp"
#include "lowering.hpp"
#include "pages.hpp"
#include "plan.hpp"
#include "region_cells.hpp"
#include "text.hpp"

namespace atheria {
namespace {

// By which a law may differ from libtorch's float32.
double most_error(Precision precision) { return precision == Precision::bf16 ? 0.1 : 1e-5; }

class CompiledLaw final : public Law {
 public:
  CompiledLaw(std::unique_ptr<Law> script, torch::jit::Module frozen, Program program,
              const CompileOptions& options, bool winograd)
      : script_(std::move(script)),
        frozen_(std::move(frozen)),
        is_demanded_(options.is_demanded),
        program_(std::move(program)),
        profile_(program_),
        plan_(program_, options.precision, winograd, profile_),
        radius_(program_.receptive_radius()) {
    if (plan_.is_local() && program_.memory.empty() && plan_.last().reach <= RegionCells::furthest)
      cells_ = std::make_unique<RegionCells>(plan_);
  }

  Output forward(const at::Tensor& psi, const at::Tensor& memory) override {
    if (!suits(psi)) return script_->forward(psi, memory);
    return forward(plan_for(psi), psi, memory);
  }

  Advanced advance(const at::Tensor& psi, const at::Tensor& memory, const Step& step) override {
    if (!suits(psi)) return script_->advance(psi, memory, step);
    const auto& physics = step.physics;
    auto& plan = plan_for(psi);
    const auto steps = has_memory() || step.most == 1
                           ? 1
                           : std::min(step.most, plan.steps_at_once(psi.size(0), psi.size(2), psi.size(3)));
    auto output = empty_outputs(psi, memory);
    const auto fires = fire_mask(Shape::of(psi), physics.fire_rate, step.seed, step.step);
    auto tallies = run(
        plan, psi, memory, output.delta, output.memory,
        {.physics = &physics, .fires = fires.defined() ? fires.data_ptr<float>() : nullptr, .steps = steps});
    if (physics.normalise == Normalise::global) restore_energy(output.delta, tallies, step.reference_energy);
    Tally sum;
    for (const auto& tally : tallies) sum += tally;
    return {std::move(output.delta), std::move(output.memory), steps, sum};
  }

  at::Tensor initial_memory(std::int64_t universes, std::int64_t height, std::int64_t width) override {
    return script_->initial_memory(universes, height, width);
  }
  bool has_memory() const override { return script_->has_memory(); }
  std::int64_t stride() const override {
    return std::lcm(script_->stride(), std::int64_t{1} << program_.levels());
  }
  double vacuum_norm() const override { return script_->vacuum_norm(); }
  std::string backend() const override { return "compiled"; }
  std::string why() const override { return why_; }
  std::string why_not(const at::Tensor& psi) override {
    const auto known = why_not_.find(psi.sizes().vec());
    if (known != why_not_.end()) return known->second;
    if (why_not_.size() >= 256) why_not_.clear();
    return why_not_[psi.sizes().vec()] = why_other(psi);
  }
  std::optional<std::int64_t> receptive_radius() const override { return radius_; }
  Profile* profile() override { return &profile_; }
  const CellKernel* cell_kernel() const override { return cells_.get(); }

  // Makes it ready where it is right; otherwise returns what is wrong with it.
  std::string accept(std::int64_t d_state, Precision precision, const std::string& rounding) {
    const auto error = this->error(plan_, d_state);
    const auto differs = short_number(error, 2);
    if (error > most_error(precision)) return "our kernels differ from libtorch by " + differs;
    if (moves_vacuum(plan_, d_state))
      return "our kernels' rounding moves the vacuum, which libtorch leaves alone";
    add_plan_of_large_grids(d_state);
    why_ = "lowered to " + std::to_string(program_.instructions.size()) + " instructions for " +
           kernels().name + rounding + (plan_.uses_bf16() ? ", convolutions in bfloat16" : "") +
           on_large_grids() + on_tiles() + "; differs from libtorch by " + differs +
           " of the largest number, or of 1";
    return "";
  }

  bool uses_winograd() const { return plan_.uses_winograd(); }
  std::unique_ptr<Law> give_back() { return std::move(script_); }

 private:
  // Where Winograd's algorithm in float32 takes less time than bfloat16.
  void add_plan_of_large_grids(std::int64_t d_state) {
    if (!plan_.uses_bf16() || pairs_pay_up_to() == std::numeric_limits<std::int64_t>::max()) return;
    auto large = std::make_unique<Plan>(program_, Precision::fp32, /*winograd=*/true, profile_);
    // What the algorithm does not serve takes twice the time.
    if (large->winograd_operations() < 0.75 * plan_.bf16_operations()) return;
    if (error(*large, d_state) > most_error(Precision::fp32) || moves_vacuum(*large, d_state)) return;
    large_ = std::move(large);
    most_cells_ = pairs_pay_up_to();
  }

  Plan& plan_for(const at::Tensor& psi) {
    if (!large_) return plan_;
    const bool is_large = psi.size(2) * psi.size(3) > most_cells_;
    (is_large ? plan_ : *large_).free_memory();
    return is_large ? *large_ : plan_;
  }

  std::string on_large_grids() const {
    if (!large_) return "";
    return ", but in float32 on grids of more than " + std::to_string(most_cells_) +
           " cells, where that is faster on this CPU";
  }

  // Whether matter comes out of a vacuum that libtorch leaves alone.
  bool moves_vacuum(Plan& plan, std::int64_t d_state) {
    if (vacuum_norm() > 0) return false;
    const auto size = std::max(16 * stride(), plan.width_of_tiles());
    const auto psi = at::zeros({1, 2 * d_state, size, size}, at::kFloat);
    return forward(plan, psi, initial_memory(1, size, size)).delta.count_nonzero().item<std::int64_t>() > 0;
  }

  // Largest difference to libtorch on random fields, relative to the largest number or to 1.
  double error(Plan& plan, std::int64_t d_state) {
    double worst = 0;
    auto generator = at::detail::createCPUGenerator(0);
    // libtorch pads no further than the grid is wide.
    const auto levels = program_.levels();
    const auto least = ceil_div(program_.halo() << levels, stride());
    const auto compare = [&](std::int64_t universes, std::int64_t rows, std::int64_t columns) {
      const auto psi = at::randn({universes, 2 * d_state, rows * stride(), columns * stride()}, generator);
      if (!why_not(psi).empty()) return false;  // for what it computes and drops
      const auto memory = initial_memory(universes, rows * stride(), columns * stride());
      const auto remembered = memory.defined() ? at::randn(memory.sizes(), generator) : memory;
      Output expected;
      try {
        expected = script_->forward(psi, remembered);
      } catch (const std::exception&) {
        return false;  // what the law computes and drops, and the program leaves out, takes no such grid
      }
      const auto got = forward(plan, psi, remembered);
      worst = std::max(worst, difference(expected.delta, got.delta));
      if (expected.memory.defined()) worst = std::max(worst, difference(expected.memory, got.memory));
      return true;
    };
    bool is_compared = false;
    for (const auto& [universes, rows, columns] : {std::tuple{1, 4, 4}, {2, 3, 5}, {1, 8, 24}}) {
      is_compared |=
          compare(universes, std::max<std::int64_t>(rows, least), std::max<std::int64_t>(columns, least));
    }
    if (const auto width = plan.width_of_tiles(); width > 0) {
      // Blocks of tiles one below the other, and side by side in parts of rows.
      const auto strides = [&](std::int64_t cells) { return std::lcm(cells, stride()) / stride(); };
      for (const auto across : {width, 5 * width})
        is_compared |= compare(1, strides(3 * WinogradProduct::tile), strides(across));
    }
    // A grid that it has taken when it was lowered; what has not been compared at all does not run.
    if (!is_compared && !compare(1, 16, 24)) return std::numeric_limits<double>::infinity();
    return worst;
  }

  static double difference(const at::Tensor& expected, const at::Tensor& got) {
    const auto error = (expected - got).abs().max().item<double>();
    const auto scale = std::max(1.0, expected.abs().max().item<double>());
    return std::isfinite(error) ? error / scale : std::numeric_limits<double>::infinity();
  }

  std::string on_tiles() const {
    const auto width = plan_.width_of_tiles();
    if (width == 0) return "";
    return ", filters by Winograd's algorithm on grids of a multiple of " +
           std::to_string(WinogradProduct::tile) + " x " + std::to_string(width) + " cells";
  }

  // Whether the program is the law's on this grid, too. Throws std::invalid_argument where it is not, and
  // libtorch may not stand in.
  bool suits(const at::Tensor& psi) {
    const auto why_not = this->why_not(psi);
    if (!why_not.empty() && is_demanded_) throw std::invalid_argument(cannot_compile(why_not));
    return why_not.empty();
  }

  // What is wrong with the program on grids of this size; empty where nothing is.
  std::string why_other(const at::Tensor& psi) {
    const auto shape = Shape::of(psi);
    const auto where = " for " + std::to_string(shape.universes) + " of " + std::to_string(shape.height) +
                       " x " + std::to_string(shape.width) + " cells";
    try {
      const auto memory = initial_memory(shape.universes, shape.height, shape.width);
      if (lower(frozen_, psi, memory) == program_) return "";
      return "what it computes" + where + " is not what it computes for others";
    } catch (const NotLowered& error) {
      return error.what() + where;
    }
  }

  // Memory of a state that nobody holds any more is used again: fresh pages cost more than a step.
  at::Tensor spare(at::IntArrayRef sizes) {
    for (auto& tensor : spares_) {
      if (tensor.sizes() == sizes && tensor.use_count() == 1 && tensor.storage().use_count() == 1)
        return tensor;
    }
    std::erase_if(spares_, [&](const at::Tensor& t) { return t.sizes() != sizes && t.use_count() == 1; });
    if (spares_.size() >= 8) spares_.erase(spares_.begin());
    const auto count = c10::multiply_integers(sizes);
    float* const data = take_pages(static_cast<std::size_t>(count)).release();
    return spares_.emplace_back(at::from_blob(data, sizes, [data](void*) { FreePages()(data); }));
  }

  Output empty_outputs(const at::Tensor& psi, const at::Tensor& memory) {
    return {spare(psi.sizes()), memory.defined() ? spare(memory.sizes()) : at::Tensor()};
  }

  Output forward(Plan& plan, const at::Tensor& psi, const at::Tensor& memory) {
    auto output = empty_outputs(psi, memory);
    run(plan, psi, memory, output.delta, output.memory, {});
    return output;
  }

  static std::vector<Tally> run(Plan& plan, const at::Tensor& psi, const at::Tensor& memory,
                                const at::Tensor& out, const at::Tensor& next_memory, const Finish& finish) {
    const auto field = psi.contiguous();
    const auto remembered = memory.defined() ? memory.contiguous() : memory;
    return plan.run(field.data_ptr<float>(), remembered.defined() ? remembered.data_ptr<float>() : nullptr,
                    out.data_ptr<float>(), next_memory.defined() ? next_memory.data_ptr<float>() : nullptr,
                    psi.size(0), psi.size(2), psi.size(3), finish);
  }

  // `global` normalisation. The tallies become those of the field as it then is.
  static void restore_energy(const at::Tensor& phi, std::vector<Tally>& tallies,
                             const at::Tensor& reference) {
    const auto size = phi.numel() / phi.size(0);
    for (std::int64_t b = 0; b < phi.size(0); ++b) {
      auto& tally = tallies[at(b)];
      const auto energy = static_cast<float>(tally.energy);
      if (energy == 0) continue;
      const auto wanted = reference.select(0, b).item<float>();
      // An energy beyond float32 must not pass for vacuum.
      const auto factor =
          std::isfinite(energy) ? std::sqrt(wanted / energy) : std::numeric_limits<float>::quiet_NaN();
      float* const data = phi.data_ptr<float>() + b * size;
      kernels().affine(data, data, {1, size, 0}, {0.0F, factor, 0.0F, Activation::none, 0.0F});
      tally.energy *= static_cast<double>(factor) * static_cast<double>(factor);
      if (factor == 0) tally.occupied = 0;
    }
  }

  std::unique_ptr<Law> script_;
  torch::jit::Module frozen_;
  std::map<std::vector<std::int64_t>, std::string> why_not_;  // by the field's sizes
  bool is_demanded_;
  Program program_;
  Profile profile_;
  Plan plan_;
  std::unique_ptr<Plan> large_;  // of grids of more than so many cells, where there is one
  std::int64_t most_cells_ = 0;
  std::optional<std::int64_t> radius_;
  std::unique_ptr<RegionCells> cells_;
  std::string why_;
  std::vector<at::Tensor> spares_;
};

Program lowered(Law& script, const torch::jit::Module& frozen, std::int64_t d_state) {
  const auto at_size = [&](std::int64_t universes, std::int64_t rows, std::int64_t columns) {
    const auto height = rows * std::max<std::int64_t>(8, script.stride());
    const auto width = columns * std::max<std::int64_t>(8, script.stride());
    const auto psi = at::empty({universes, 2 * d_state, height, width}, at::kFloat);
    return lower(frozen, psi, script.initial_memory(universes, height, width));
  };
  auto program = at_size(1, 2, 3);
  if (program != at_size(2, 5, 4)) throw NotLowered("what it computes depends on the size of the grid");
  return program;
}

}  // namespace

std::string cannot_compile(const std::string& why_not) {
  return "the law cannot be compiled, which `backend` or `precision` asks for: " + why_not +
         "; leave them out to run it on libtorch";
}

Compilation compile(std::unique_ptr<Law>& script, const torch::jit::Module& module, std::int64_t d_state,
                    CompileOptions options) {
  std::string rounding;
  if (options.precision == Precision::bf16 && pairs_pay_up_to() == 0) {
    options.precision = Precision::fp32;
    rounding = ", in float32, which is faster on this CPU than bfloat16";
  }
  std::string why_not;
  try {
    // Without libtorch's folding of numbers, which does not fold the same at every time.
    const auto frozen = torch::jit::freeze(module, std::nullopt, /*optimize_numerics=*/false);
    const auto program = lowered(*script, frozen, d_state);
    for (const bool winograd : {true, false}) {  // whose rounding errors are larger
      auto law = std::make_unique<CompiledLaw>(std::move(script), frozen, program, options, winograd);
      why_not = law->accept(d_state, options.precision, rounding);
      if (why_not.empty()) return {std::move(law), ""};
      script = law->give_back();
      if (!law->uses_winograd()) break;
    }
  } catch (const NotLowered& error) {
    why_not = error.what();
  }
  return {nullptr, why_not};
}

}  // namespace atheria
