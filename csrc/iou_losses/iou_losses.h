// The loss of a predicted box against its target, 1 - generalized, distance or complete IoU, and its gradients, as in
// torchvision. Host and device, no torch. The formulas: common/iou_terms.h.
#pragma once

#include "common/half_block.h"
#include "common/iou_terms.h"

namespace retina_ops {

using IouLoss = IouKind;

template <class T>
struct IouLossTerms {
  T loss;
  Box<T> for_predicted;  // gradient of the loss by each coordinate
  Box<T> for_target;
};

// Every denominator gets eps. Complete IoU gets it in alpha only, and 1e-7 in the others, as in torchvision.
template <IouLoss K, class T, class Math>
RETINA_OPS_HOST_DEVICE IouLossTerms<T> iou_loss(const Box<T>& predicted, const Box<T>& target, T eps) {
  const T eps_except_alpha = K == IouLoss::kComplete ? T(1e-7) : eps;
  const IouTerms<T> terms =
      iou_terms<K, IouReading::kLoss, T, Math>(measured<K, T, Math>(predicted), measured<K, T, Math>(target),
                                               IouEps<T>{eps_except_alpha, eps_except_alpha, eps});
  const Box<T>& a = terms.for_a;
  const Box<T>& b = terms.for_b;
  // Coordinate by coordinate: GCC does not vectorise a loop that copies a whole box.
  return {terms.value, {a.x1, a.y1, a.x2, a.y2}, {b.x1, b.y1, b.x2, b.y2}};
}

// One call of an operator. All arrays are contiguous; n is the number of pairs. Arithmetic is in float, or in double
// where both inputs are float64.
struct IouLossProblem {
  IouLoss kind;
  double eps;
  const void* boxes1;  // [n, 4] of `dtype1`
  Dtype dtype1;
  const void* boxes2;  // [n, 4] of `dtype2`; both inputs are float64 or neither is
  Dtype dtype2;
  void* loss;                     // [n] float32 or float64, or null
  void* grad1;                    // [n, 4] of `dtype1`: upstream * gradient by boxes1, or null
  void* grad2;                    // [n, 4] of `dtype2`: upstream * gradient by boxes2, or null
  const void* upstream;           // [n] of the dtype of `loss`, or null: use upstream_scalar
  const double* upstream_scalar;  // [], or null: 1
};

// Pairs per chunk. Chunks are the units of parallel work and of summation, so that results do not depend on the number
// of threads.
constexpr int64_t kIouLossChunk = 4096;

// On the CPU: computes pairs [begin, end) and returns the sum of their losses.
double iou_loss_range(const IouLossProblem& problem, int64_t begin, int64_t end);

}  // namespace retina_ops
