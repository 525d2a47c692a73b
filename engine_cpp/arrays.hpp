// Where arrays cross between Python and libtorch: nanobind knows nothing of at::Tensor.
#pragma once

#include <ATen/ATen.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/complex.h>

#include <complex>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace atheria {

namespace nb = nanobind;

using HostArray = nb::ndarray<nb::ro>;

template <typename Value>
using NumpyArray = nb::ndarray<nb::numpy, Value>;

using FieldArray = nb::ndarray<const float, nb::numpy, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// The caller's memory, which it must keep.
inline at::Tensor as_tensor(const FieldArray& field) {
  std::vector<std::int64_t> shape;
  for (std::size_t axis = 0; axis < 4; ++axis) shape.push_back(static_cast<std::int64_t>(field.shape(axis)));
  return at::from_blob(const_cast<float*>(field.data()), shape, at::kFloat);
}

inline std::string described(const HostArray& array) {
  const auto type = array.dtype();
  const char* kind = "other";
  switch (static_cast<nb::dlpack::dtype_code>(type.code)) {
    case nb::dlpack::dtype_code::Float:
      kind = "float";
      break;
    case nb::dlpack::dtype_code::Int:
      kind = "int";
      break;
    case nb::dlpack::dtype_code::UInt:
      kind = "uint";
      break;
    case nb::dlpack::dtype_code::Complex:
      kind = "complex";
      break;
    case nb::dlpack::dtype_code::Bool:
      kind = "bool";
      break;
    case nb::dlpack::dtype_code::Bfloat:
      kind = "bfloat";
      break;
    default:
      break;
  }
  return kind + std::to_string(type.bits);
}

inline bool is_c_contiguous(const HostArray& array) {
  if (array.size() == 0) return true;
  std::int64_t expected = 1;
  for (std::size_t axis = array.ndim(); axis-- > 0;) {
    if (array.shape(axis) != 1 && array.stride(axis) != expected) return false;
    expected *= static_cast<std::int64_t>(array.shape(axis));
  }
  return true;
}

// A copy of the caller's array, whose memory may go with it; no conversion.
inline at::Tensor as_field(nb::handle object) {
  if (nb::hasattr(object, "is_neg") && nb::cast<bool>(object.attr("is_neg")())) {
    throw nb::type_error(
        "`state` has torch's negative bit, which arrays do not carry; call resolve_neg() first");
  }
  HostArray array;
  if (!nb::try_cast(object, array)) {
    throw nb::type_error(
        "`state` must be an array that speaks DLPack (numpy, torch without gradient, ...), float32 of shape "
        "(B, 2*`d_state`, H, W)");
  }
  if (array.dtype() != nb::dtype<float>()) {
    throw nb::type_error(("`state` must be float32, got " + described(array) +
                          "; convert it: state.astype('float32'), or state.float() in torch")
                             .c_str());
  }
  if (array.device_type() != nb::device::cpu::value) {
    throw nb::type_error("`state` must be in the CPU's memory; move it: state.cpu()");
  }
  if (array.ndim() != 4) {
    throw std::invalid_argument("`state` must have the 4 axes (B, 2*`d_state`, H, W), got " +
                                std::to_string(array.ndim()));
  }
  if (!is_c_contiguous(array)) {
    throw std::invalid_argument(
        "`state` must be C-contiguous; copy it: numpy.ascontiguousarray(state), or state.contiguous() in "
        "torch");
  }
  std::vector<std::int64_t> shape;
  for (std::size_t axis = 0; axis < 4; ++axis) shape.push_back(static_cast<std::int64_t>(array.shape(axis)));
  return at::from_blob(const_cast<void*>(array.data()), shape, at::kFloat).clone();
}

// A copy of the caller's array of n rows; no conversion.
template <typename Value, typename Torch = Value>
at::Tensor as_rows(nb::handle object, const std::string& name, const std::string& type,
                   const std::string& columns) {
  HostArray array;
  const auto wanted = "`" + name + "` must be ";
  if (!nb::try_cast(object, array) || array.device_type() != nb::device::cpu::value) {
    throw nb::type_error((wanted + "an array in the CPU's memory that speaks DLPack, as numpy's do").c_str());
  }
  if (array.dtype() != nb::dtype<Value>()) {
    throw nb::type_error((wanted + type + ", got " + described(array)).c_str());
  }
  if (array.ndim() != 2 || !is_c_contiguous(array)) {
    throw std::invalid_argument(wanted + "C-contiguous of shape (n, " + columns + ")");
  }
  const std::vector<std::int64_t> shape{static_cast<std::int64_t>(array.shape(0)),
                                        static_cast<std::int64_t>(array.shape(1))};
  return at::from_blob(const_cast<void*>(array.data()), shape, c10::CppTypeToScalarType<Torch>::value)
      .clone();
}

// A copy of an array of float32 or int64.
inline at::Tensor as_part(nb::handle object, const std::string& name) {
  HostArray array;
  if (!nb::try_cast(object, array) || array.device_type() != nb::device::cpu::value ||
      !is_c_contiguous(array) ||
      (array.dtype() != nb::dtype<float>() && array.dtype() != nb::dtype<std::int64_t>())) {
    throw std::invalid_argument("the snapshot's `" + name +
                                "` must be a C-contiguous array of float32 or int64; it is damaged");
  }
  std::vector<std::int64_t> shape;
  for (std::size_t axis = 0; axis < array.ndim(); ++axis) {
    shape.push_back(static_cast<std::int64_t>(array.shape(axis)));
  }
  const auto type = array.dtype() == nb::dtype<float>() ? at::kFloat : at::kLong;
  return at::from_blob(const_cast<void*>(array.data()), shape, type).clone();
}

// (n, 2) int64.
inline at::Tensor as_coordinates(nb::handle object) {
  auto coordinates = as_rows<std::int64_t>(object, "coordinates", "int64", "2");
  if (coordinates.size(1) != 2) {
    throw std::invalid_argument("`coordinates` must be of shape (n, 2), (x, y) of each cell, got " +
                                std::to_string(coordinates.size(1)) + " columns");
  }
  return coordinates;
}

// (n, d) complex -> (n, 2d) float32.
inline at::Tensor as_amplitudes(nb::handle object, std::int64_t cells) {
  const auto complex =
      as_rows<std::complex<float>, c10::complex<float>>(object, "amplitudes", "complex64", "`d_state`");
  if (complex.size(0) != cells) {
    throw std::invalid_argument("`amplitudes` must be of as many cells as `coordinates`, " +
                                std::to_string(cells) + ", got " + std::to_string(complex.size(0)));
  }
  return at::cat({at::real(complex), at::imag(complex)}, 1).contiguous();
}

// d complex -> (1, 2d) float32.
inline at::Tensor as_numbers(const std::vector<std::complex<float>>& amplitudes) {
  const auto count = static_cast<std::int64_t>(amplitudes.size());
  auto psi = at::empty({1, 2 * count}, at::kFloat);
  auto* const numbers = psi.data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    numbers[i] = amplitudes[static_cast<std::size_t>(i)].real();
    numbers[count + i] = amplitudes[static_cast<std::size_t>(i)].imag();
  }
  return psi;
}

template <typename Value>
NumpyArray<Value> as_numpy(const at::Tensor& tensor) {
  auto owner = std::make_unique<at::Tensor>(tensor.contiguous());
  const std::vector<std::size_t> shape(owner->sizes().begin(), owner->sizes().end());
  auto* const data = owner->data_ptr();
  const nb::capsule release(owner.get(), [](void* kept) noexcept { delete static_cast<at::Tensor*>(kept); });
  owner.release();  // the capsule has it now
  return NumpyArray<Value>(data, shape.size(), shape.data(), release);
}

// (2d, ...) planar -> (..., d) complex.
inline at::Tensor amplitudes(const at::Tensor& planar) {
  const auto parts = planar.to(at::kCPU).chunk(2, 0);
  return at::complex(parts[0], parts[1]).movedim(0, -1).contiguous();
}

}  // namespace atheria
