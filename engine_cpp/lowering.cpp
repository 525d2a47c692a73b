#include "lowering.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <variant>

#include "integers.hpp"

namespace atheria {
namespace {

using torch::jit::Node;
using Sizes = std::vector<std::int64_t>;
using Planes = std::vector<Plane>;

void require(bool holds, const std::string& why) {
  if (!holds) throw NotLowered(why);
}

std::int64_t product(const Sizes& sizes) {
  std::int64_t result = 1;
  for (const auto size : sizes) result *= size;
  return result;
}

// Rows or columns of a field, all of them or some at one end.
struct Extent {
  std::int64_t axis = 0;  // 2: rows, 3: columns; 0: all
  std::int64_t first = 0, count = 0;
};

// A tensor (B, channels..., H, W): views share the planes that they show.
struct Field {
  std::shared_ptr<Planes> storage;
  Sizes index;  // into the storage, row by row of `dims`
  Sizes dims;   // sizes between batch and H
  std::int64_t level = 0;
  std::int64_t padding = 0;  // cells added on each side, by the program's boundary
  bool pads_with_zeros = false;
  Extent extent;
  bool is_argument = false;

  std::int64_t channels() const { return static_cast<std::int64_t>(index.size()); }
  std::int64_t rank() const { return static_cast<std::int64_t>(dims.size()) + 3; }
  Planes planes() const {
    Planes result;
    for (const auto i : index) result.push_back((*storage)[at(i)]);
    return result;
  }
  bool is_whole() const { return padding == 0 && extent.axis == 0; }
};

Field owned(Planes planes, Sizes dims, std::int64_t level) {
  Field field;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(planes.size()); ++i) field.index.push_back(i);
  field.storage = std::make_shared<Planes>(std::move(planes));
  field.dims = std::move(dims);
  field.level = level;
  return field;
}

struct Value;
using List = std::vector<Value>;
struct Value : std::variant<at::IValue, Field, List> {
  using variant::variant;

  bool is_field() const { return std::holds_alternative<Field>(*this); }
  bool is_constant() const { return std::holds_alternative<at::IValue>(*this); }
  const Field& field() const { return std::get<Field>(*this); }
  const at::IValue& constant() const { return std::get<at::IValue>(*this); }
  const List& list() const { return std::get<List>(*this); }
};

std::vector<float> floats(const at::Tensor& tensor) {
  const auto flat = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

std::vector<float> floats(const at::Tensor& tensor, std::int64_t count) {
  require(tensor.numel() == count, "weights for another number of channels");
  return floats(tensor);
}

std::map<std::string, Function> functions_by_name() {
  return {{"relu", Function::relu},
          {"tanh", Function::tanh},
          {"sigmoid", Function::sigmoid},
          {"silu", Function::silu},
          {"exp", Function::exp},
          {"sin", Function::sin},
          {"cos", Function::cos},
          {"sqrt", Function::sqrt},
          {"rsqrt", Function::rsqrt},
          {"abs", Function::abs},
          {"square", Function::square},
          {"neg", Function::negate},
          {"reciprocal", Function::reciprocal}};
}

class Interpreter {
 public:
  Interpreter(const at::Tensor& psi, const at::Tensor& memory)
      : batch_(psi.size(0)), height_(psi.size(2)), width_(psi.size(3)) {
    arguments_.push_back(argument(psi));
    if (memory.defined()) arguments_.push_back(argument(memory));
  }

  Program run(const torch::jit::Graph& graph) {
    const auto inputs = graph.inputs();
    require(inputs.size() == arguments_.size() + 1, "forward() takes other arguments than a law's");
    for (std::size_t i = 0; i < arguments_.size(); ++i) values_[inputs[i + 1]] = arguments_[i];
    run_block(*graph.block());
    require(graph.outputs().size() == 1, "forward() returns several values");
    const auto& result = value(graph.outputs()[0]);
    if (arguments_.size() == 1) {
      program_.delta = output(result, arguments_[0].field());
    } else {
      require(std::holds_alternative<List>(result) && result.list().size() == 2,
              "forward() does not return (delta, memory)");
      program_.delta = output(result.list()[0], arguments_[0].field());
      program_.memory = output(result.list()[1], arguments_[1].field());
    }
    program_.boundary = boundary_.value_or(Boundary::torus);
    return simplified(std::move(program_));
  }

 private:
  static constexpr std::int64_t most_nodes = 100'000;
  static constexpr std::int64_t furthest_shift = 3;

  // ---- values ----

  const Value& value(const torch::jit::Value* v) {
    const auto found = values_.find(v);
    require(found != values_.end(), "forward() changes attributes of the module");  // else they are constants
    return found->second;
  }
  const Value& input(const Node& node, std::size_t i) { return value(node.inputs().at(i)); }
  bool has(const Node& node, std::size_t i) { return i < node.inputs().size(); }

  const Field& field(const Node& node, std::size_t i = 0) {
    require(has(node, i) && input(node, i).is_field(), describe(node) + " without a field");
    return input(node, i).field();
  }
  const Field& whole(const Node& node, std::size_t i = 0) {
    const auto& result = field(node, i);
    require(result.is_whole(), describe(node) + " of a padded or cut field");
    return result;
  }
  const at::IValue& constant(const Node& node, std::size_t i) {
    require(has(node, i) && input(node, i).is_constant(), describe(node) + " whose settings are computed");
    return input(node, i).constant();
  }
  std::int64_t integer(const Node& node, std::size_t i) { return constant(node, i).toInt(); }
  std::int64_t integer_or(const Node& node, std::size_t i, std::int64_t otherwise) {
    const auto& given = constant(node, i);
    return given.isNone() ? otherwise : given.toInt();
  }
  Sizes integers(const Node& node, std::size_t i) {
    if (input(node, i).is_constant() && constant(node, i).isInt()) return {integer(node, i)};
    if (!input(node, i).is_constant()) {
      Sizes result;
      for (const auto& part : input(node, i).list()) result.push_back(part.constant().toInt());
      return result;
    }
    const auto& given = constant(node, i);
    require(given.isIntList(), describe(node) + " over no dimensions in particular");
    return given.toIntVector();
  }
  std::vector<Field> fields(const Node& node, std::size_t i) {
    std::vector<Field> result;
    require(std::holds_alternative<List>(input(node, i)), describe(node) + " of constants");
    for (const auto& part : input(node, i).list()) {
      require(part.is_field(), describe(node) + " of a field and a constant");
      result.push_back(part.field());
    }
    return result;
  }
  static std::string describe(const Node& node) { return node.kind().toQualString(); }
  void set(const Node& node, Value result) { values_[node.outputs().at(0)] = std::move(result); }

  std::int64_t height(const Field& field) const { return height_ >> field.level; }
  std::int64_t width(const Field& field) const { return width_ >> field.level; }

  Sizes shape(const Field& field) const {
    Sizes result{batch_};
    result.insert(result.end(), field.dims.begin(), field.dims.end());
    result.push_back(height(field) + 2 * field.padding);
    result.push_back(width(field) + 2 * field.padding);
    if (field.extent.axis != 0) result[result.size() + at(field.extent.axis) - 4] = field.extent.count;
    return result;
  }

  Value argument(const at::Tensor& example) {
    require(example.scalar_type() == at::kFloat, "a memory of another type than float32");
    std::int64_t level = 0;
    while (level < 8 && ((height_ >> level) != example.size(2) || (width_ >> level) != example.size(3)))
      ++level;
    require(example.dim() == 4 && example.size(0) == batch_ && (example.size(2) << level) == height_ &&
                (example.size(3) << level) == width_,
            "the memory is not a field at a power of two of the grid");
    Instruction instruction{.op = Op::input};
    instruction.level = level;
    instruction.channels = example.size(1);
    program_.instructions.push_back(instruction);
    const auto id = static_cast<std::int64_t>(program_.instructions.size()) - 1;
    auto field = owned(planes_of(id, instruction.channels), {instruction.channels}, level);
    field.is_argument = true;
    return field;
  }

  Planes output(const Value& result, const Field& like) {
    require(result.is_field(), "forward() returns a constant");
    const auto& field = result.field();
    require(field.is_whole() && field.level == like.level && field.dims == like.dims,
            "forward() returns another shape than it takes");
    return field.planes();
  }

  // ---- instructions ----

  static Planes planes_of(std::int64_t id, std::int64_t channels) {
    Planes planes;
    for (std::int64_t c = 0; c < channels; ++c) planes.push_back({id, c});
    return planes;
  }

  Planes emit(Instruction instruction) {
    auto& all = program_.instructions;
    for (std::size_t i = 0; i < all.size(); ++i) {  // what has been computed is not computed again
      if (all[i].op != Op::input && all[i] == instruction) {
        return planes_of(static_cast<std::int64_t>(i), instruction.channels);
      }
    }
    require(all.size() < 4096, "the law has too many operations");
    require(instruction.channels >= 1, "fields without channels");
    const auto channels = instruction.channels;
    all.push_back(std::move(instruction));
    return planes_of(static_cast<std::int64_t>(all.size()) - 1, channels);
  }

  const Instruction* made_by(Plane plane, Op op) const {
    if (plane.value < 0) return nullptr;
    const auto& instruction = program_.instructions[at(plane.value)];
    return instruction.op == op ? &instruction : nullptr;
  }

  void use_boundary(Boundary boundary) {
    require(!boundary_ || *boundary_ == boundary, "it pads with zeros here and circularly there");
    boundary_ = boundary;
  }

  static Instruction pointwise(Op op, const Field& like) {
    Instruction instruction{.op = op};
    instruction.level = like.level;
    instruction.channels = like.channels();
    return instruction;
  }

  static Field result_like(const Field& like, Planes planes) {
    return owned(std::move(planes), like.dims, like.level);
  }

  Field affine(const Field& x, std::vector<float> weight, std::vector<float> bias) {
    auto stencils = stencils_of(x.planes(), /*only_stencils=*/true);
    if (!stencils.empty()) {
      for (std::size_t c = 0; c < stencils.size(); ++c) {
        for (auto& tap : stencils[c].taps) tap.factor *= weight[c];
        stencils[c].constant = stencils[c].constant * weight[c] + bias[c];
      }
      return result_like(x, emit_stencils(std::move(stencils), x.level));
    }
    auto instruction = pointwise(Op::affine, x);
    instruction.a = x.planes();
    instruction.weight = std::move(weight);
    instruction.bias = std::move(bias);
    return result_like(x, emit(std::move(instruction)));
  }

  Field function(const Field& x, Function function, float alpha = 0) {
    auto instruction = pointwise(Op::function, x);
    instruction.a = x.planes();
    instruction.function = function;
    instruction.alpha = alpha;
    return result_like(x, emit(std::move(instruction)));
  }

  // ---- sums over neighbours ----

  // Each plane as a stencil: those that stencils made as they are, inputs as themselves. Empty where a plane
  // is of neither kind, or none is a stencil and `only_stencils` asks for them.
  std::vector<Stencil> stencils_of(const Planes& planes, bool only_stencils) const {
    std::vector<Stencil> result;
    for (const auto& plane : planes) {
      if (const auto* made = made_by(plane, Op::stencil)) {
        result.push_back(made->stencils[at(plane.channel)]);
      } else if (!only_stencils && (plane.value < 0 || made_by(plane, Op::input) != nullptr)) {
        Stencil itself;
        if (plane.value >= 0) itself.taps.push_back({plane, 0, 0, 1.0F});
        result.push_back(itself);
      } else {
        return {};
      }
    }
    return result;
  }

  // For instructions that read every channel: those that are 0 are written out.
  Planes planes_with_zeros(const Field& x) {
    auto planes = x.planes();
    for (auto& plane : planes) {
      if (plane.value >= 0) continue;
      Instruction zero{.op = Op::stencil};
      zero.level = x.level;
      zero.channels = 1;
      zero.stencils = {Stencil{}};
      plane = emit(std::move(zero)).front();
    }
    return planes;
  }

  bool has_stencil(const Planes& planes) const {
    return std::any_of(planes.begin(), planes.end(),
                       [&](Plane plane) { return made_by(plane, Op::stencil) != nullptr; });
  }

  static Stencil merged(Stencil stencil) {
    auto& taps = stencil.taps;
    std::vector<Tap> kept;
    for (const auto& tap : taps) {
      const auto same = std::find_if(kept.begin(), kept.end(), [&](const Tap& other) {
        return other.plane == tap.plane && other.dy == tap.dy && other.dx == tap.dx;
      });
      if (same == kept.end()) {
        kept.push_back(tap);
      } else {
        same->factor += tap.factor;
      }
    }
    std::erase_if(kept, [](const Tap& tap) { return tap.factor == 0; });
    taps = std::move(kept);
    return stencil;
  }

  // Equal stencils are computed once, and those that change nothing not at all.
  Planes emit_stencils(std::vector<Stencil> stencils, std::int64_t level) {
    Instruction instruction{.op = Op::stencil};
    instruction.level = level;
    Planes planes;
    std::vector<std::pair<std::size_t, std::int64_t>> computed;  // place, channel
    for (auto& stencil : stencils) {
      stencil = merged(std::move(stencil));
      require(stencil.taps.size() <= 64, "a sum over more than 64 neighbours");
      const bool is_plane = stencil.taps.size() == 1 && stencil.constant == 0 &&
                            stencil.taps[0] == Tap{stencil.taps[0].plane, 0, 0, 1.0F};
      planes.push_back(is_plane ? stencil.taps[0].plane : Plane{});
      if (is_plane || (stencil.taps.empty() && stencil.constant == 0)) continue;
      const auto same = std::find(instruction.stencils.begin(), instruction.stencils.end(), stencil);
      computed.emplace_back(planes.size() - 1, same - instruction.stencils.begin());
      if (same == instruction.stencils.end()) instruction.stencils.push_back(stencil);
    }
    if (computed.empty()) return planes;
    instruction.channels = static_cast<std::int64_t>(instruction.stencils.size());
    const auto unique = emit(std::move(instruction));
    for (const auto& [place, channel] : computed) planes[place] = unique[at(channel)];
    return planes;
  }

  // A stencil whose result is shifted, where that is one, too: beyond an edge of zeros nothing comes back.
  static std::optional<Stencil> shifted(Stencil stencil, std::int64_t by, std::int64_t axis, bool torus) {
    if (!torus && stencil.constant != 0) return {};
    for (auto& tap : stencil.taps) {
      auto& offset = axis == 2 ? tap.dy : tap.dx;
      if (!torus && offset != 0 && (offset > 0) != (by < 0)) return {};
      offset -= by;
      if (std::abs(offset) > furthest_shift) return {};
    }
    return stencil;
  }

  // out(x) = in(x - by) along an axis.
  Field shifted(const Field& x, std::int64_t by, std::int64_t axis, Boundary boundary) {
    use_boundary(boundary);
    require(by >= -furthest_shift && by <= furthest_shift, "a shift by more than 3 cells");
    const bool torus = boundary == Boundary::torus;
    std::vector<Stencil> stencils;
    for (const auto& plane : x.planes()) {
      Stencil itself;
      if (plane.value >= 0) itself.taps.push_back({plane, 0, 0, 1.0F});
      const auto* const made = made_by(plane, Op::stencil);
      auto whole = made ? shifted(made->stencils[at(plane.channel)], by, axis, torus) : std::nullopt;
      stencils.push_back(whole ? *std::move(whole) : *shifted(itself, by, axis, torus));
    }
    return result_like(x, emit_stencils(std::move(stencils), x.level));
  }

  // ---- arithmetic ----

  // A constant as one number for each channel of a field.
  std::vector<float> per_channel(const Node& node, const at::IValue& value, const Field& like) {
    if (value.isScalar()) {
      return std::vector<float>(at(like.channels()), static_cast<float>(value.toScalar().toDouble()));
    }
    require(value.isTensor(), describe(node) + " of a field and " + value.tagKind());
    auto tensor = value.toTensor();
    require(tensor.dim() == 0 || at::promote_types(tensor.scalar_type(), at::kFloat) == at::kFloat,
            describe(node) + " of a field and a constant of another type than float32");
    if (tensor.numel() == 1) tensor = tensor.reshape({});
    const auto shape = this->shape(like);
    require(tensor.dim() <= static_cast<std::int64_t>(shape.size()), describe(node) + " that adds an axis");
    Sizes target(like.dims);
    while (tensor.dim() < static_cast<std::int64_t>(shape.size())) tensor = tensor.unsqueeze(0);
    require(tensor.size(0) == 1 && tensor.size(-1) == 1 && tensor.size(-2) == 1,
            describe(node) + " of a field and a constant that differs from cell to cell");
    return floats(tensor.squeeze(0).squeeze(-1).squeeze(-1).expand(target));
  }

  // Two fields with the channels that both become by broadcasting.
  std::pair<Field, Field> broadcast(const Node& node, const Field& a, const Field& b) {
    require(a.level == b.level, describe(node) + " of fields of two resolutions");
    require(a.dims.size() == b.dims.size(), describe(node) + " of fields of different ranks");
    Sizes dims;
    for (std::size_t i = 0; i < a.dims.size(); ++i) dims.push_back(std::max(a.dims[i], b.dims[i]));
    return {expanded(node, a, dims), expanded(node, b, dims)};
  }

  static Field expanded(const Node& node, const Field& x, const Sizes& dims) {
    auto result = x;
    result.dims = dims;
    result.index.clear();
    for (std::int64_t i = 0; i < product(dims); ++i) {
      std::int64_t from = 0;
      std::int64_t rest = i;
      std::int64_t stride = 1;
      for (std::size_t k = dims.size(); k-- > 0;) {
        require(x.dims[k] == dims[k] || x.dims[k] == 1, describe(node) + " of fields that do not broadcast");
        if (x.dims[k] != 1) from += rest % dims[k] * stride;
        stride *= x.dims[k];
        rest /= dims[k];
      }
      result.index.push_back(x.index[at(from)]);
    }
    return result;
  }

  Field combined(const Node& node, Operation operation, const Field& left, const Field& right) {
    const auto [a, b] = broadcast(node, left, right);
    const auto x = a.planes();
    const auto y = b.planes();
    const bool linear = operation == Operation::add || operation == Operation::subtract;
    if (linear && (has_stencil(x) || has_stencil(y))) {
      auto sums = stencils_of(x, false);
      const auto others = stencils_of(y, false);
      if (!sums.empty() && !others.empty()) {
        const float sign = operation == Operation::add ? 1.0F : -1.0F;
        for (std::size_t c = 0; c < sums.size(); ++c) {
          for (auto tap : others[c].taps) {
            tap.factor *= sign;
            sums[c].taps.push_back(tap);
          }
          sums[c].constant += sign * others[c].constant;
        }
        return result_like(a, emit_stencils(std::move(sums), a.level));
      }
    }
    auto instruction = pointwise(Op::combine, a);
    instruction.operation = operation;
    instruction.a = x;
    instruction.b = y;
    return result_like(a, emit(std::move(instruction)));
  }

  // a (op) factor b, either a constant.
  Field arithmetic(const Node& node, Operation operation, bool reversed) {
    const auto& first = input(node, reversed ? 1 : 0);
    const auto& second = input(node, reversed ? 0 : 1);
    const bool additive = operation == Operation::add || operation == Operation::subtract;
    const float factor =
        additive && has(node, 2) ? static_cast<float>(constant(node, 2).toScalar().toDouble()) : 1.0F;
    require(factor == 1.0F || !reversed, describe(node) + " with `alpha`");
    if (first.is_field() && second.is_field()) {
      require(first.field().is_whole() && second.field().is_whole(),
              describe(node) + " of a padded or cut field");
      auto right = second.field();
      if (factor != 1.0F) {
        right = affine(right, std::vector<float>(at(right.channels()), factor),
                       std::vector<float>(at(right.channels()), 0.0F));
      }
      return combined(node, operation, first.field(), right);
    }
    const bool field_first = first.is_field();
    const auto& x = field_first ? first.field() : second.field();
    require(x.is_whole(), describe(node) + " of a padded or cut field");
    const auto& other = (field_first ? second : first).constant();
    if (other.isTensor() && other.toTensor().dim() > 3) {
      require(other.toTensor().size(0) == 1, describe(node) + " of universes with their own constants");
    }
    const auto c = per_channel(node, other, x);
    std::vector<float> weight(c.size(), 1.0F);
    std::vector<float> bias(c.size(), 0.0F);
    auto operand = x;
    for (std::size_t i = 0; i < c.size(); ++i) {
      switch (operation) {
        case Operation::add:
          weight[i] = field_first ? 1.0F : factor;
          bias[i] = field_first ? factor * c[i] : c[i];
          break;
        case Operation::subtract:
          weight[i] = field_first ? 1.0F : -factor;
          bias[i] = field_first ? -factor * c[i] : c[i];
          break;
        case Operation::multiply:
          weight[i] = c[i];
          break;
        case Operation::divide:
          weight[i] = field_first ? 1.0F / c[i] : c[i];
          break;
      }
    }
    if (operation == Operation::divide && !field_first) operand = function(x, Function::reciprocal);
    return affine(operand, std::move(weight), std::move(bias));
  }

  // ---- convolutions ----

  // Equal input planes are read once, with the sum of their weights; planes of zeros are not read.
  static void fold_inputs(Instruction& convolution) {
    const auto taps = convolution.kernel * convolution.kernel;
    const auto inputs = static_cast<std::int64_t>(convolution.a.size());
    Planes unique;
    std::vector<std::int64_t> place;
    for (const auto& plane : convolution.a) {
      const auto same = std::find(unique.begin(), unique.end(), plane);
      place.push_back(plane.value < 0 ? -1 : same - unique.begin());
      if (plane.value >= 0 && same == unique.end()) unique.push_back(plane);
    }
    const auto kept = static_cast<std::int64_t>(unique.size());
    if (kept == inputs) return;
    std::vector<double> sums(at(convolution.channels * kept * taps), 0.0);
    for (std::int64_t o = 0; o < convolution.channels; ++o) {
      for (std::int64_t i = 0; i < inputs; ++i) {
        if (place[at(i)] < 0) continue;
        for (std::int64_t t = 0; t < taps; ++t) {
          sums[at((o * kept + place[at(i)]) * taps + t)] +=
              static_cast<double>(convolution.weight[at((o * inputs + i) * taps + t)]);
        }
      }
    }
    convolution.a = std::move(unique);
    convolution.weight.assign(sums.size(), 0.0F);
    std::transform(sums.begin(), sums.end(), convolution.weight.begin(),
                   [](double sum) { return static_cast<float>(sum); });
  }

  Field convolved(const Node& node, const Field& x, const at::Tensor& weight, const at::IValue& bias,
                  std::int64_t padding, std::int64_t dilation, std::int64_t groups) {
    require(weight.dim() == 4 && weight.size(2) == weight.size(3),
            describe(node) + " with a kernel that is no square");
    const auto kernel = weight.size(2);
    require(dilation >= 1 && dilation <= 8, describe(node) + " with a dilation beyond 8");
    require(kernel % 2 == 1 && kernel <= 7, describe(node) + " with an even kernel or one beyond 7x7");
    require(x.extent.axis == 0 && x.dims.size() == 1, describe(node) + " of a cut field");
    const auto margin = kernel / 2 * dilation;
    require(margin <= 8, describe(node) + " that reaches further than 8 cells");
    require(padding + x.padding == margin && (padding == 0 || x.padding == 0),
            describe(node) + " that changes the size of the grid");
    if (margin > 0) use_boundary(padding > 0 || x.pads_with_zeros ? Boundary::zeros : Boundary::torus);
    const auto channels_in = x.channels();
    const auto channels_out = weight.size(0);
    require(groups >= 1 && channels_in == weight.size(1) * groups && channels_out % groups == 0,
            describe(node) + " with other channels than its weights");
    const auto weights = floats(weight);
    std::vector<float> biases;
    if (!bias.isNone()) biases = floats(bias.toTensor(), channels_out);
    const auto planes = x.planes();
    if (groups > 1 && weight.size(1) == 1) {
      return depthwise(planes, weights, biases, kernel, dilation, channels_out / groups, x.level);
    }
    const auto group_in = channels_in / groups;
    const auto group_out = channels_out / groups;
    Planes result;
    for (std::int64_t g = 0; g < groups; ++g) {
      Instruction instruction{.op = Op::convolve};
      instruction.level = x.level;
      instruction.channels = group_out;
      instruction.kernel = kernel;
      instruction.dilation = dilation;
      instruction.a.assign(planes.begin() + g * group_in, planes.begin() + (g + 1) * group_in);
      const auto size = group_out * group_in * kernel * kernel;
      instruction.weight.assign(weights.begin() + g * size, weights.begin() + (g + 1) * size);
      if (!biases.empty()) {
        instruction.bias.assign(biases.begin() + g * group_out, biases.begin() + (g + 1) * group_out);
      }
      fold_inputs(instruction);
      const auto part = emit(std::move(instruction));
      result.insert(result.end(), part.begin(), part.end());
    }
    return owned(std::move(result), {channels_out}, x.level);
  }

  Field depthwise(const Planes& planes, const std::vector<float>& weights, const std::vector<float>& biases,
                  std::int64_t kernel, std::int64_t dilation, std::int64_t each, std::int64_t level) {
    std::vector<Stencil> stencils;
    const auto channels = static_cast<std::int64_t>(planes.size()) * each;
    for (std::int64_t c = 0; c < channels; ++c) {
      Stencil stencil;
      const auto plane = planes[at(c / each)];
      for (std::int64_t t = 0; t < kernel * kernel && plane.value >= 0; ++t) {
        const auto factor = weights[at(c * kernel * kernel + t)];
        if (factor == 0) continue;
        stencil.taps.push_back(
            {plane, (t / kernel - kernel / 2) * dilation, (t % kernel - kernel / 2) * dilation, factor});
      }
      if (!biases.empty()) stencil.constant = biases[at(c)];
      stencils.push_back(std::move(stencil));
    }
    return owned(emit_stencils(std::move(stencils), level), {channels}, level);
  }

  static std::int64_t same_for_both(const Node& node, const Sizes& sizes) {
    require(!sizes.empty() && std::all_of(sizes.begin(), sizes.end(), [&](auto s) { return s == sizes[0]; }),
            describe(node) + " with rows and columns treated apart");
    return sizes[0];
  }

  void convolution(const Node& node, std::size_t settings, bool transposed) {
    const auto weight = constant(node, 1).toTensor();
    const auto& bias = constant(node, 2);
    const auto stride = same_for_both(node, integers(node, 3));
    std::int64_t padding = 0;
    const auto dilation = same_for_both(node, integers(node, settings == 0 ? 5 : settings));
    if (input(node, 4).is_constant() && constant(node, 4).isString()) {
      const auto mode = constant(node, 4).toStringRef();
      padding = mode == "same" ? weight.size(2) / 2 * dilation : 0;
    } else {
      padding = same_for_both(node, integers(node, 4));
    }
    const auto groups = integer(node, transposed ? settings - 1 : (settings == 0 ? 6 : settings + 3));
    if (!transposed) {
      require(stride == 1, describe(node) + " with a stride");
      return set(node, convolved(node, field(node), weight, bias, padding, dilation, groups));
    }
    require(stride == 2 && weight.size(2) == 2 && weight.size(3) == 2 && padding == 0 && groups == 1 &&
                dilation == 1 && same_for_both(node, integers(node, 5)) == 0,
            describe(node) + " other than 2x2 with stride 2");
    const auto& x = whole(node);
    require(x.level > 0, describe(node) + " beyond the grid's own resolution");
    Instruction instruction{.op = Op::upsample};
    instruction.level = x.level - 1;
    instruction.channels = weight.size(1);
    instruction.a = planes_with_zeros(x);
    instruction.weight = floats(weight);
    if (!bias.isNone()) instruction.bias = floats(bias.toTensor(), instruction.channels);
    set(node, owned(emit(std::move(instruction)), {weight.size(1)}, x.level - 1));
  }

  // ---- shapes ----

  static std::int64_t axis_of(std::int64_t axis, std::int64_t rank) {
    require(axis >= -rank && axis < rank, "an axis that the field does not have");
    return axis < 0 ? axis + rank : axis;
  }

  // The part of a field at `chosen` places along a channel axis.
  static Field taken(const Field& x, std::int64_t axis, const Sizes& chosen, bool drop_axis = false) {
    const auto k = at(axis - 1);
    std::int64_t inner = 1;
    for (std::size_t i = k + 1; i < x.dims.size(); ++i) inner *= x.dims[i];
    const auto outer = product(x.dims) / std::max<std::int64_t>(1, inner * x.dims[k]);
    auto result = x;
    result.index.clear();
    for (const auto place : chosen) require(place >= 0 && place < x.dims[k], "channels beyond the field's");
    for (std::int64_t o = 0; o < outer; ++o) {
      for (const auto place : chosen) {
        for (std::int64_t i = 0; i < inner; ++i)
          result.index.push_back(x.index[at((o * x.dims[k] + place) * inner + i)]);
      }
    }
    if (drop_axis) {
      result.dims.erase(result.dims.begin() + axis - 1);
    } else {
      result.dims[k] = static_cast<std::int64_t>(chosen.size());
    }
    return result;
  }

  Field sliced(const Node& node, const Field& x, std::int64_t axis, std::int64_t first, std::int64_t end,
               std::int64_t step) {
    const auto size = shape(x)[at(axis)];
    first = std::clamp<std::int64_t>(first < 0 ? first + size : first, 0, size);
    end = std::clamp<std::int64_t>(end < 0 ? end + size : end, first, size);
    if (first == 0 && end == size && step == 1) return x;
    require(axis > 0 && step >= 1, describe(node) + " of some universes");
    if (axis < x.rank() - 2) {
      Sizes chosen;
      for (auto i = first; i < end; i += step) chosen.push_back(i);
      return taken(x, axis, chosen);
    }
    require(x.is_whole() && step == 1, describe(node) + " of a cut field");
    auto result = x;
    result.extent = {axis - x.rank() + 4, first, end - first};
    return result;
  }

  Field joined(const Node& node, const std::vector<Field>& parts, std::int64_t axis) {
    const auto rank = parts.at(0).rank();
    axis = axis_of(axis, rank);
    if (axis >= rank - 2) return joined_in_space(node, parts, axis - rank + 4);
    require(axis > 0, describe(node) + " of universes");
    auto dims = parts[0].dims;
    const auto k = at(axis - 1);
    std::int64_t inner = 1;
    for (std::size_t i = k + 1; i < dims.size(); ++i) inner *= dims[i];
    std::int64_t outer = 1;
    for (std::size_t i = 0; i < k; ++i) outer *= dims[i];
    std::int64_t joined = 0;
    for (const auto& part : parts) {
      dims[k] = part.dims.at(k);
      require(part.is_whole() && part.level == parts[0].level && part.dims == dims,
              describe(node) + " of fields of different sizes");
      joined += part.dims[k];
    }
    dims[k] = joined;
    Planes planes;
    for (std::int64_t o = 0; o < outer; ++o) {
      for (const auto& part : parts) {
        const auto from = part.planes();
        const auto count = part.dims[k] * inner;
        planes.insert(planes.end(), from.begin() + o * count, from.begin() + (o + 1) * count);
      }
    }
    return owned(std::move(planes), dims, parts[0].level);
  }

  // Two parts of one field put together the other way round shift it; zeros in place of one shift it too.
  Field joined_in_space(const Node& node, const std::vector<Field>& parts, std::int64_t axis) {
    const auto why = describe(node) + " of parts of a grid that is no shift";
    require(parts.size() == 2 && parts[0].dims == parts[1].dims && parts[0].level == parts[1].level, why);
    const auto& [a, b] = std::pair(parts[0], parts[1]);
    const auto size = axis == 2 ? height(a) : width(a);
    require(a.extent.axis == axis && b.extent.axis == axis && a.padding == 0 && b.padding == 0 &&
                a.extent.count + b.extent.count == size,
            why);
    const auto is_zero = [](const Field& x) {
      const auto planes = x.planes();
      return std::all_of(planes.begin(), planes.end(), [](Plane plane) { return plane.value < 0; });
    };
    if (is_zero(a) && is_zero(b)) {
      auto nothing = a;
      nothing.extent = {};
      return nothing;
    }
    const bool zeros = is_zero(a) || is_zero(b);
    const auto& kept = is_zero(a) || (!zeros && a.extent.count < b.extent.count) ? b : a;
    auto source = kept;
    source.extent = {};
    if (&kept == &b) {  // from the field's beginning on, moved forward
      require(b.extent.first == 0 && (zeros || a.extent.first == b.extent.count), why);
    } else {
      require(a.extent.first == b.extent.count && (zeros || b.extent.first == 0), why);
    }
    require(zeros || a.planes() == b.planes(), why);
    const auto by = &kept == &b ? a.extent.count : -b.extent.count;
    return shifted(source, by, axis, zeros ? Boundary::zeros : Boundary::torus);
  }

  Field reshaped(const Node& node, const Field& x, Sizes shape) {
    require(x.is_whole(), describe(node) + " of a padded or cut field");
    const auto whole = product(this->shape(x));
    const auto is_size = [](std::int64_t size) { return size >= -1 && size < std::int64_t{1} << 16; };
    require(shape.size() <= 8 && std::all_of(shape.begin(), shape.end(), is_size),
            describe(node) + " to no shape");
    std::int64_t known = 1;
    for (const auto size : shape) known *= size == -1 ? 1 : size;
    for (auto& size : shape) {
      if (size == -1) size = known == 0 ? 0 : whole / known;
    }
    require(shape.size() >= 4 && product(shape) == whole && shape.front() == batch_ &&
                shape[shape.size() - 2] == height(x) && shape.back() == width(x),
            describe(node) + " that mixes cells and channels");
    auto result = x;
    result.dims.assign(shape.begin() + 1, shape.end() - 2);
    require(product(result.dims) == x.channels(), describe(node) + " that mixes cells and channels");
    return result;
  }

  Field permuted(const Node& node, const Field& x, const Sizes& order) {
    const auto rank = x.rank();
    require(static_cast<std::int64_t>(order.size()) == rank && axis_of(order.front(), rank) == 0 &&
                axis_of(order[order.size() - 2], rank) == rank - 2 && axis_of(order.back(), rank) == rank - 1,
            describe(node) + " that moves the axes of the grid");
    auto result = x;
    for (std::size_t k = 0; k < x.dims.size(); ++k)
      result.dims[k] = x.dims[at(axis_of(order[k + 1], rank) - 1)];
    result.index.clear();
    for (std::int64_t i = 0; i < product(result.dims); ++i) {
      Sizes where(x.dims.size());
      auto rest = i;
      for (std::size_t k = x.dims.size(); k-- > 0;) {
        where[at(axis_of(order[k + 1], rank) - 1)] = rest % result.dims[k];
        rest /= result.dims[k];
      }
      std::int64_t from = 0;
      for (std::size_t k = 0; k < x.dims.size(); ++k) from = from * x.dims[k] + where[k];
      result.index.push_back(x.index[at(from)]);
    }
    return result;
  }

  List split(const Field& x, std::int64_t axis, const Sizes& sizes) {
    List parts;
    std::int64_t first = 0;
    for (const auto size : sizes) {
      Sizes chosen;
      for (std::int64_t i = 0; i < size; ++i) chosen.push_back(first + i);
      parts.emplace_back(taken(x, axis, chosen));
      first += size;
    }
    return parts;
  }

  void split(const Node& node, bool into_number) {
    const auto& x = whole(node);
    const auto axis = axis_of(integer(node, 2), x.rank());
    require(axis > 0 && axis < x.rank() - 2, describe(node) + " of the grid");
    const auto size = x.dims[at(axis - 1)];
    const auto given = integers(node, 1);
    Sizes sizes = given;
    if (given.size() == 1) {
      require(given[0] >= 1, describe(node) + " into no parts");
      const auto each = into_number ? ceil_div(size, given[0]) : given[0];
      sizes.clear();
      for (std::int64_t first = 0; first < size; first += each) sizes.push_back(std::min(each, size - first));
    }
    set(node, split(x, axis, sizes));
  }

  void reduce(const Node& node, bool mean) {
    const auto& x = whole(node);
    const auto axes = integers(node, 1);
    require(axes.size() == 1, describe(node) + " over several axes");
    const auto axis = axis_of(axes[0], x.rank());
    require(axis > 0 && axis < x.rank() - 2, describe(node) + " over the grid");
    const auto count = x.dims[at(axis - 1)];
    const bool keep = constant(node, 2).toBool();
    require(!has(node, 3) || constant(node, 3).isNone(), describe(node) + " in another type than float32");
    require(count >= 1, describe(node) + " of no channels");
    std::vector<Field> parts;
    for (std::int64_t i = 0; i < count; ++i) parts.push_back(taken(x, axis, {i}, !keep));
    Planes result;
    for (std::int64_t c = 0; c < parts[0].channels(); ++c) {
      Instruction instruction{.op = Op::sum};
      instruction.level = x.level;
      instruction.channels = 1;
      for (const auto& part : parts) instruction.a.push_back(part.planes()[at(c)]);
      instruction.alpha = mean ? 1.0F / static_cast<float>(count) : 1.0F;
      result.push_back(emit(std::move(instruction))[0]);
    }
    set(node, result_like(parts[0], std::move(result)));
  }

  // ---- nodes ----

  void run_block(const torch::jit::Block& block) {
    for (const auto* node : block.nodes()) {
      try {
        run_node(*node);
      } catch (const NotLowered&) {
        throw;
      } catch (const std::exception& error) {
        const std::string what = error.what();
        throw NotLowered(describe(*node) + ": " + what.substr(0, what.find('\n')));
      }
    }
  }

  void run_node(const Node& node) {
    require(++nodes_run_ < most_nodes, "the law has too many operations");
    const std::string kind = describe(node);
    if (kind == "prim::Constant") {
      if (node.outputs().at(0)->type()->kind() == c10::TypeKind::FunctionType) return;
      return set(node, torch::jit::toIValue(node.outputs().at(0)).value_or(at::IValue()));
    }
    if (kind == "prim::If") return branch(node);
    if (kind == "prim::Loop") return loop(node);
    require(kind != "prim::RaiseException", "the law raises an exception for a field of this size");
    if (kind == "prim::ListConstruct" || kind == "prim::TupleConstruct") return construct(node);
    if (kind == "prim::ListUnpack" || kind == "prim::TupleUnpack") return unpack(node);
    if (all_constant(node)) return evaluate(node);
    const auto& rules = table();
    const auto rule = rules.find(kind);
    if (rule != rules.end()) return rule->second(*this, node);
    if (kind.size() > 1 && kind.ends_with('_') && rules.contains(kind.substr(0, kind.size() - 1))) {
      return in_place(node, rules.at(kind.substr(0, kind.size() - 1)));
    }
    throw NotLowered("it has no kernel for " + kind);
  }

  void construct(const Node& node) {
    if (!all_constant(node)) {
      List parts;
      for (const auto* v : node.inputs()) parts.push_back(value(v));
      return set(node, std::move(parts));
    }
    std::vector<at::IValue> parts;
    for (const auto* v : node.inputs()) parts.push_back(value(v).constant());
    const auto list = node.outputs().at(0)->type()->cast<c10::ListType>();
    if (!list) return set(node, at::IValue(c10::ivalue::Tuple::create(std::move(parts))));
    c10::impl::GenericList constants(list->getElementType());
    for (auto& part : parts) constants.push_back(std::move(part));
    set(node, at::IValue(std::move(constants)));
  }

  void unpack(const Node& node) {
    List parts;
    if (std::holds_alternative<List>(input(node, 0))) {
      parts = input(node, 0).list();
    } else if (constant(node, 0).isTuple()) {
      for (const auto& part : constant(node, 0).toTupleRef().elements()) parts.emplace_back(part);
    } else {
      for (const auto& part : constant(node, 0).toListRef()) parts.emplace_back(part);
    }
    require(parts.size() == node.outputs().size(), describe(node) + " of another length");
    for (std::size_t i = 0; i < parts.size(); ++i) values_[node.outputs()[i]] = parts[i];
  }

  bool all_constant(const Node& node) {
    return std::all_of(node.inputs().begin(), node.inputs().end(),
                       [&](const auto* v) { return value(v).is_constant(); });
  }

  // What depends on no field is computed now, by libtorch.
  void evaluate(const Node& node) {
    require(!node.isNondeterministic(), describe(node) + " draws random numbers");
    require(!node.hasSideEffects() && !(node.maybeSchema() != nullptr && node.schema().is_mutable()),
            describe(node) + " changes the law's own state");
    torch::jit::Stack stack;
    for (const auto* v : node.inputs()) stack.push_back(value(v).constant());
    node.getOperation()(stack);
    require(stack.size() == node.outputs().size(), describe(node) + " returned something else");
    for (std::size_t i = 0; i < stack.size(); ++i) values_[node.outputs()[i]] = stack[i];
  }

  void take_outputs(const Node& node, const torch::jit::Block& block) {
    for (std::size_t i = 0; i < node.outputs().size(); ++i)
      values_[node.outputs()[i]] = value(block.outputs()[i]);
  }

  void branch(const Node& node) {
    require(input(node, 0).is_constant(), "control flow that depends on the field");
    const auto& block = *node.blocks().at(constant(node, 0).toBool() ? 0 : 1);
    run_block(block);
    take_outputs(node, block);
  }

  void loop(const Node& node) {
    require(input(node, 0).is_constant() && input(node, 1).is_constant(),
            "control flow that depends on the field");
    const auto most = integer(node, 0);
    const auto& block = *node.blocks().at(0);
    std::vector<Value> carried;
    for (std::size_t i = 2; i < node.inputs().size(); ++i) carried.push_back(input(node, i));
    bool goes_on = constant(node, 1).toBool();
    for (std::int64_t turn = 0; turn < most && goes_on; ++turn) {
      require(++nodes_run_ < most_nodes, "the law has too many operations");
      values_[block.inputs()[0]] = at::IValue(turn);
      for (std::size_t i = 0; i < carried.size(); ++i) values_[block.inputs()[i + 1]] = carried[i];
      run_block(block);
      require(value(block.outputs()[0]).is_constant(), "control flow that depends on the field");
      goes_on = value(block.outputs()[0]).constant().toBool();
      for (std::size_t i = 0; i < carried.size(); ++i) carried[i] = value(block.outputs()[i + 1]);
    }
    for (std::size_t i = 0; i < carried.size(); ++i) values_[node.outputs()[i]] = carried[i];
  }

  using Rule = std::function<void(Interpreter&, const Node&)>;

  // f_(x): what f makes of it is written over x, and over all that shows the same planes.
  void in_place(const Node& node, const Rule& rule) {
    const auto target = whole(node);
    require(!target.is_argument, "the law changes its argument");
    rule(*this, node);
    const auto result = value(node.outputs().at(0)).field();
    overwrite(node, target, result);
    set(node, target);
  }

  void overwrite(const Node& node, const Field& target, const Field& source) {
    require(source.is_whole() && source.level == target.level && source.rank() == target.rank(),
            describe(node) + " of another size");
    const auto planes = expanded(node, source, target.dims).planes();
    for (std::size_t i = 0; i < planes.size(); ++i) (*target.storage)[at(target.index[i])] = planes[i];
  }

  static const std::map<std::string, Rule>& table() {
    static const std::map<std::string, Rule> rules = make_table();
    return rules;
  }

  static std::map<std::string, Rule> make_table();

  Program program_;
  std::optional<Boundary> boundary_;  // none while nothing looks beyond the edges
  std::int64_t batch_, height_, width_;
  std::vector<Value> arguments_;
  std::unordered_map<const torch::jit::Value*, Value> values_;
  std::int64_t nodes_run_ = 0;
};

std::map<std::string, Interpreter::Rule> Interpreter::make_table() {
  using I = Interpreter;
  std::map<std::string, Rule> rules;

  for (const auto& [name, function] : functions_by_name()) {
    rules["aten::" + name] = [function = function](I& i, const Node& n) {
      i.set(n, i.function(i.whole(n), function));
    };
  }
  rules["aten::elu"] = [](I& i, const Node& n) {
    require(i.constant(n, 2).toScalar().toDouble() == 1 && i.constant(n, 3).toScalar().toDouble() == 1,
            "aten::elu with scales");
    i.set(n,
          i.function(i.whole(n), Function::elu, static_cast<float>(i.constant(n, 1).toScalar().toDouble())));
  };
  rules["aten::leaky_relu"] = [](I& i, const Node& n) {
    i.set(n, i.function(i.whole(n), Function::leaky_relu,
                        static_cast<float>(i.constant(n, 1).toScalar().toDouble())));
  };
  rules["aten::pow"] = [](I& i, const Node& n) {
    const auto power = i.constant(n, 1).toScalar().toDouble();
    require(power == 2 || power == 0.5 || power == -0.5 || power == -1,
            "aten::pow other than 2, 1/2, -1/2, -1");
    const auto function = power == 2     ? Function::square
                          : power == 0.5 ? Function::sqrt
                          : power == -1  ? Function::reciprocal
                                         : Function::rsqrt;
    i.set(n, i.function(i.whole(n), function));
  };

  const std::map<std::string, Operation> operations = {{"add", Operation::add},
                                                       {"sub", Operation::subtract},
                                                       {"mul", Operation::multiply},
                                                       {"div", Operation::divide}};
  for (const auto& [name, operation] : operations) {
    rules["aten::" + name] = [operation = operation](I& i, const Node& n) {
      require(operation != Operation::divide || !i.has(n, 2) || i.constant(n, 2).isNone(),
              "aten::div with a rounding mode");
      i.set(n, i.arithmetic(n, operation, false));
    };
  }
  rules["aten::rsub"] = [](I& i, const Node& n) { i.set(n, i.arithmetic(n, Operation::subtract, true)); };

  rules["aten::conv2d"] = [](I& i, const Node& n) { i.convolution(n, 0, false); };
  rules["aten::conv_transpose2d"] = [](I& i, const Node& n) { i.convolution(n, 7, true); };
  rules["aten::_convolution"] = [](I& i, const Node& n) {
    require(!i.constant(n, 6).toBool(), "aten::_convolution that is transposed");
    i.convolution(n, 5, false);
  };
  rules["aten::einsum"] = [](I& i, const Node& n) {
    require(i.constant(n, 0).toStringRef() == "ij,bjhw->bihw", "aten::einsum other than ij,bjhw->bihw");
    const auto& parts = i.input(n, 1).list();
    require(parts.size() == 2 && parts[0].is_constant() && parts[1].is_field(), "aten::einsum of fields");
    const auto matrix = parts[0].constant().toTensor();
    i.set(n, i.convolved(n, parts[1].field(), matrix.unsqueeze(-1).unsqueeze(-1), at::IValue(), 0, 1, 1));
  };
  rules["aten::pad"] = [](I& i, const Node& n) {
    auto x = i.whole(n);
    const auto sizes = i.integers(n, 1);
    require(sizes.size() == 4, "aten::pad of other axes than the grid's");
    const auto mode = i.constant(n, 2).toStringRef();
    const bool zeros = mode == "constant" && (!i.has(n, 3) || i.constant(n, 3).isNone() ||
                                              i.constant(n, 3).toScalar().toDouble() == 0);
    require(mode == "circular" || zeros, "aten::pad in mode " + mode);
    x.padding = same_for_both(n, sizes);
    require(x.padding >= 0 && x.padding <= 8, "aten::pad by more than 8 cells");
    x.pads_with_zeros = zeros;
    i.set(n, x);
  };
  rules["aten::group_norm"] = [](I& i, const Node& n) {
    const auto& x = i.whole(n);
    auto instruction = pointwise(Op::group_norm, x);
    instruction.a = i.planes_with_zeros(x);
    instruction.groups = i.integer(n, 1);
    require(instruction.groups >= 1 && x.channels() % instruction.groups == 0 && x.dims.size() == 1,
            "aten::group_norm with groups that do not divide the channels");
    instruction.weight.assign(at(x.channels()), 1.0F);
    instruction.bias.assign(at(x.channels()), 0.0F);
    if (!i.constant(n, 2).isNone()) instruction.weight = floats(i.constant(n, 2).toTensor(), x.channels());
    if (!i.constant(n, 3).isNone()) instruction.bias = floats(i.constant(n, 3).toTensor(), x.channels());
    instruction.epsilon = static_cast<float>(i.constant(n, 4).toDouble());
    i.set(n, result_like(x, i.emit(std::move(instruction))));
  };
  rules["aten::batch_norm"] = [](I& i, const Node& n) {
    const auto& x = i.whole(n);
    require(!i.constant(n, 5).toBool(), "aten::batch_norm in training mode");
    const auto optional = [&](std::size_t k, double otherwise) {
      const auto& given = i.constant(n, k);
      return given.isNone() ? at::full({x.channels()}, otherwise, at::kDouble)
                            : given.toTensor().to(at::kDouble);
    };
    const auto weight = optional(1, 1) / (optional(4, 1) + i.constant(n, 7).toDouble()).sqrt();
    require(x.dims.size() == 1, "aten::batch_norm of a field with more axes");
    i.set(n, i.affine(x, floats(weight, x.channels()),
                      floats(optional(2, 0) - optional(3, 0) * weight, x.channels())));
  };
  rules["aten::max_pool2d"] = [](I& i, const Node& n) {
    const auto& x = i.whole(n);
    const auto stride = i.integers(n, 2);
    require(same_for_both(n, i.integers(n, 1)) == 2 && (stride.empty() || same_for_both(n, stride) == 2) &&
                same_for_both(n, i.integers(n, 3)) == 0 && same_for_both(n, i.integers(n, 4)) == 1 &&
                !i.constant(n, 5).toBool() && i.height(x) % 2 == 0 && i.width(x) % 2 == 0,
            "aten::max_pool2d other than 2x2 with stride 2");
    Instruction instruction{.op = Op::pool};
    instruction.level = x.level + 1;
    instruction.channels = x.channels();
    instruction.a = i.planes_with_zeros(x);
    auto result = owned(i.emit(std::move(instruction)), x.dims, x.level + 1);
    i.set(n, result);
  };
  rules["aten::mean"] = [](I& i, const Node& n) { i.reduce(n, true); };
  rules["aten::sum"] = [](I& i, const Node& n) { i.reduce(n, false); };
  rules["aten::roll"] = [](I& i, const Node& n) {
    const auto by = i.integers(n, 1);
    const auto axes = i.integers(n, 2);
    auto x = i.whole(n);
    require(by.size() == axes.size(), "aten::roll of the flattened field");
    for (std::size_t k = 0; k < by.size(); ++k) {
      const auto axis = axis_of(axes[k], x.rank());
      require(axis >= x.rank() - 2, "aten::roll of channels");
      x = i.shifted(x, by[k], axis - x.rank() + 4, Boundary::torus);
    }
    i.set(n, x);
  };

  rules["aten::cat"] = [](I& i, const Node& n) { i.set(n, i.joined(n, i.fields(n, 0), i.integer(n, 1))); };
  rules["aten::stack"] = [](I& i, const Node& n) {
    auto parts = i.fields(n, 0);
    const auto axis = axis_of(i.integer(n, 1), parts.at(0).rank() + 1);
    require(axis > 0 && axis <= parts[0].rank() - 2, "aten::stack along the grid");
    const auto rank = parts[0].rank();
    for (auto& part : parts) {
      require(part.rank() == rank, "aten::stack of fields of different ranks");
      part.dims.insert(part.dims.begin() + axis - 1, 1);
    }
    i.set(n, i.joined(n, parts, axis));
  };
  rules["aten::chunk"] = [](I& i, const Node& n) { i.split(n, true); };
  rules["aten::split"] = [](I& i, const Node& n) { i.split(n, false); };
  rules["aten::split_with_sizes"] = [](I& i, const Node& n) { i.split(n, false); };
  rules["aten::slice"] = [](I& i, const Node& n) {
    const auto& x = i.field(n);
    const auto axis = axis_of(i.integer(n, 1), x.rank());
    const auto size = i.shape(x)[at(axis)];
    i.set(n, i.sliced(n, x, axis, i.integer_or(n, 2, 0), i.integer_or(n, 3, size), i.integer(n, 4)));
  };
  rules["aten::narrow"] = [](I& i, const Node& n) {
    const auto& x = i.field(n);
    const auto first = i.integer(n, 2);
    require(first >= 0, "aten::narrow from the end");
    const auto axis = axis_of(i.integer(n, 1), x.rank());
    const auto size = i.shape(x)[at(axis)];
    require(first <= size && i.integer(n, 3) >= 0 && i.integer(n, 3) <= size - first,
            "aten::narrow beyond the field");
    i.set(n, i.sliced(n, x, axis, first, first + i.integer(n, 3), 1));
  };
  rules["aten::select"] = [](I& i, const Node& n) {
    const auto& x = i.whole(n);
    const auto axis = axis_of(i.integer(n, 1), x.rank());
    require(axis > 0 && axis < x.rank() - 2, "aten::select of the grid");
    const auto place = i.integer(n, 2);
    i.set(n, taken(x, axis, {place < 0 ? place + x.dims[at(axis - 1)] : place}, true));
  };
  rules["aten::unsqueeze"] = [](I& i, const Node& n) {
    auto x = i.whole(n);
    const auto axis = axis_of(i.integer(n, 1), x.rank() + 1);
    require(axis > 0 && axis <= x.rank() - 2, "aten::unsqueeze of the grid");
    x.dims.insert(x.dims.begin() + axis - 1, 1);
    i.set(n, x);
  };
  rules["aten::squeeze"] = [](I& i, const Node& n) {
    auto x = i.whole(n);
    const auto axis = axis_of(i.integers(n, 1).at(0), x.rank());
    require(axis > 0 && axis < x.rank() - 2, "aten::squeeze of the grid");
    if (x.dims[at(axis - 1)] == 1) x.dims.erase(x.dims.begin() + axis - 1);
    i.set(n, x);
  };
  rules["aten::flatten"] = [](I& i, const Node& n) {
    const auto& x = i.whole(n);
    const auto first = axis_of(i.integer(n, 1), x.rank());
    const auto last = axis_of(i.integer(n, 2), x.rank());
    require(first > 0 && first <= last && last < x.rank() - 2, "aten::flatten of the grid");
    auto result = x;
    std::int64_t size = 1;
    for (auto k = first; k <= last; ++k) size *= x.dims[at(k - 1)];
    result.dims.erase(result.dims.begin() + first - 1, result.dims.begin() + last);
    result.dims.insert(result.dims.begin() + first - 1, size);
    i.set(n, result);
  };
  for (const auto* name : {"aten::view", "aten::reshape"}) {
    rules[name] = [](I& i, const Node& n) { i.set(n, i.reshaped(n, i.whole(n), i.integers(n, 1))); };
  }
  rules["aten::permute"] = [](I& i, const Node& n) { i.set(n, i.permuted(n, i.whole(n), i.integers(n, 1))); };
  rules["aten::transpose"] = [](I& i, const Node& n) {
    const auto& x = i.whole(n);
    Sizes order;
    for (std::int64_t k = 0; k < x.rank(); ++k) order.push_back(k);
    std::swap(order[at(axis_of(i.integer(n, 1), x.rank()))], order[at(axis_of(i.integer(n, 2), x.rank()))]);
    i.set(n, i.permuted(n, x, order));
  };

  for (const auto* name :
       {"aten::contiguous", "aten::detach", "aten::alias", "prim::unchecked_cast", "aten::to"}) {
    rules[name] = [](I& i, const Node& n) {
      for (std::size_t k = 1; k < n.inputs().size(); ++k) {
        const auto& given = i.constant(n, k);
        const bool after_device = k == 2 && i.constant(n, 1).isDevice();
        const bool dtype = n.kind() == c10::aten::to && given.isInt() && (k == 1 || after_device);
        require(!dtype || given.toInt() == static_cast<std::int64_t>(at::kFloat),
                "aten::to another type than float32");
      }
      i.set(n, i.field(n));
    };
  }
  rules["aten::clone"] = [](I& i, const Node& n) { i.set(n, result_like(i.whole(n), i.whole(n).planes())); };
  rules["aten::dropout"] = [](I& i, const Node& n) {
    require(!i.constant(n, 2).toBool(), "aten::dropout in training mode");
    i.set(n, i.field(n));
  };
  for (const auto* name : {"aten::zeros_like", "aten::empty_like"}) {
    rules[name] = [](I& i, const Node& n) {
      auto result = result_like(i.field(n), Planes(at(i.field(n).channels())));
      result.extent = i.field(n).extent;
      i.set(n, result);
    };
  }
  rules["aten::copy_"] = [](I& i, const Node& n) {
    const auto target = i.whole(n);
    require(!target.is_argument, "the law changes its argument");
    i.overwrite(n, target, i.whole(n, 1));
    i.set(n, target);
  };

  rules["aten::size"] = [](I& i, const Node& n) {
    const auto shape = i.shape(i.field(n));
    if (!i.has(n, 1)) return i.set(n, at::IValue(shape));
    i.set(n, at::IValue(shape.at(at(axis_of(i.integer(n, 1), i.field(n).rank())))));
  };
  rules["aten::dim"] = [](I& i, const Node& n) { i.set(n, at::IValue(i.field(n).rank())); };
  rules["aten::numel"] = [](I& i, const Node& n) { i.set(n, at::IValue(product(i.shape(i.field(n))))); };
  rules["prim::dtype"] = [](I& i, const Node& n) {
    i.set(n, at::IValue(static_cast<std::int64_t>(at::kFloat)));
  };
  rules["prim::device"] = [](I& i, const Node& n) { i.set(n, at::IValue(at::Device(at::kCPU))); };
  rules["aten::__getitem__"] = [](I& i, const Node& n) {
    const auto& parts = i.input(n, 0).list();
    i.set(n, parts.at(at(axis_of(i.integer(n, 1), static_cast<std::int64_t>(parts.size())))));
  };
  rules["aten::len"] = [](I& i, const Node& n) {
    i.set(n, at::IValue(static_cast<std::int64_t>(i.input(n, 0).list().size())));
  };
  return rules;
}

}  // namespace

Program lower(const torch::jit::Module& frozen, const at::Tensor& psi, const at::Tensor& memory) {
  const auto method = frozen.find_method("forward");
  require(method.has_value(), "it has no forward()");
  Interpreter interpreter(psi, memory);
  return interpreter.run(*method->graph());
}

}  // namespace atheria
