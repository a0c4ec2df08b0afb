// The kernels' Dtype of a tensor, the dtype of the arithmetic on it, and new gradients. For _op files.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "common/check.h"
#include "common/half_block.h"

namespace retina_ops {

inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Half: return Dtype::kFloat16;
    case ScalarType::BFloat16: return Dtype::kBFloat16;
    case ScalarType::Double: return Dtype::kFloat64;
    default: return Dtype::kFloat32;
  }
}

// The dtype of internal arithmetic and of sums: float32, or float64 for float64.
inline ScalarType accumulate_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// A new tensor for the gradient by `tensor`, of its shape and dtype; an empty one where the gradient is not wanted.
inline Tensor new_gradient(const Tensor& tensor, bool is_wanted) {
  return is_wanted ? torch::stable::new_empty(tensor, tensor.sizes())
                   : torch::stable::new_empty(tensor, std::vector<int64_t>{0});
}

}  // namespace retina_ops
