// What every CPU operator needs from torch: threads and scalar tensors. For _op.cpp files only.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/dispatch.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace retina_ops {

// A ParallelFor on torch's threads.
inline void parallel_for(int64_t count, int64_t grain, RangeBody body) {
  cpu_isa();  // an invalid RETINA_OPS_ISA raises here, not inside a thread
  torch::stable::parallel_for(0, count, grain, body);
}

// The value of a tensor of one element, of any dtype.
inline double scalar_value(const Tensor& tensor) {
  return *torch::stable::to(tensor, ScalarType::Double).const_data_ptr<double>();
}

// Sets a tensor of one element, float32 or float64.
inline void set_scalar(Tensor& scalar, double value) {
  if (scalar.scalar_type() == ScalarType::Double) {
    *scalar.mutable_data_ptr<double>() = value;
  } else {
    *scalar.mutable_data_ptr<float>() = static_cast<float>(value);
  }
}

// A scalar tensor of the dtype that sums over `like` have.
inline Tensor new_scalar(const Tensor& like, double value) {
  Tensor scalar = torch::stable::new_empty(like, {}, accumulate_dtype(like));
  set_scalar(scalar, value);
  return scalar;
}

}  // namespace retina_ops
