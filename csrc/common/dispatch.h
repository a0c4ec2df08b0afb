// From torch's dtypes to ours, and from a dtype to a C++ type.
#pragma once

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

// The dtype that sums and internal arithmetic use: float32, or float64 for float64.
inline ScalarType accumulate_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace retina_ops
