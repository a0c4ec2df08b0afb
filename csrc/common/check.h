// Argument checks. An error names the operator, what it expected and what it got:
//   nms: boxes must be [N, 4], got [7, 5]
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace retina_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws an error whose message is `parts`, one after the other, unless the condition holds.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) {
    return;
  }
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string shape_string(const Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    text << (dim == 0 ? "" : ", ") << tensor.size(dim);
  }
  text << ']';
  return text.str();
}

inline bool has_shape(const Tensor& tensor, const std::vector<int64_t>& shape) {
  if (tensor.dim() != static_cast<int64_t>(shape.size())) {
    return false;
  }
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.size(dim) != shape[static_cast<size_t>(dim)]) {
      return false;
    }
  }
  return true;
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) {
    return false;
  }
  for (int64_t dim = 0; dim < a.dim(); ++dim) {
    if (a.size(dim) != b.size(dim)) {
      return false;
    }
  }
  return true;
}

// The shape of a tensor without its last dimension: of one number per box, of one label per row.
inline std::vector<int64_t> leading_shape(const Tensor& tensor) {
  std::vector<int64_t> shape;
  for (int64_t dim = 0; dim + 1 < tensor.dim(); ++dim) shape.push_back(tensor.size(dim));
  return shape;
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index();
}

inline const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Short: return "int16";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Bool: return "bool";
    default: return "an unsupported dtype";
  }
}

inline bool is_floating(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
         dtype == ScalarType::BFloat16;
}

inline void check_floating(const char* op, const char* name, const Tensor& tensor) {
  check(is_floating(tensor.scalar_type()), op, ": ", name, " must be float16, bfloat16, float32 or float64, got ",
        dtype_name(tensor.scalar_type()));
}

// Boxes, deltas or their gradients: floating [..., 4].
inline void check_boxes(const char* op, const char* name, const Tensor& tensor) {
  check_floating(op, name, tensor);
  check(tensor.dim() >= 1 && tensor.size(tensor.dim() - 1) == 4, op, ": ", name, " must be [..., 4], got ",
        shape_string(tensor));
}

}  // namespace retina_ops
