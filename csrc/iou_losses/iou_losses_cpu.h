// The IoU losses over a range of plain memory, on the CPU. No torch.
#pragma once

#include "common/half_block.h"
#include "iou_losses/iou_losses.h"

namespace retina_ops {

// One call of an operator. All arrays are contiguous; n = number of pairs. Arithmetic is in float, or in double where
// both inputs are float64.
struct IouLossProblem {
  IouLoss kind;
  double eps;
  const void* boxes1;  // [n, 4] of `dtype1`
  Dtype dtype1;
  const void* boxes2;  // [n, 4] of `dtype2`: any but float64, or both are float64
  Dtype dtype2;
  void* loss;                     // [n] float32 or float64, or null
  void* grad1;                    // [n, 4] of `dtype1`: upstream * gradient by boxes1, or null
  void* grad2;                    // [n, 4] of `dtype2`, or null
  const void* upstream;           // [n] as `loss`, or null: use upstream_scalar
  const double* upstream_scalar;  // [] or null: 1
};

// Pairs of one chunk: the unit of parallel work and of summation, so that results do not depend on the threads.
constexpr int64_t kIouLossChunk = 4096;

// Computes pairs [begin, end) and returns the sum of their losses.
double iou_loss_range(const IouLossProblem& problem, int64_t begin, int64_t end);

}  // namespace retina_ops
