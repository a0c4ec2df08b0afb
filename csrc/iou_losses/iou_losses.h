// The loss of a predicted box against its target and its gradients: 1 - generalized, distance or complete IoU, as
// torchvision's losses have them. Host and device, no torch. The formulas: common/iou_terms.h.
#pragma once

#include "common/iou_terms.h"

namespace retina_ops {

using IouLoss = IouKind;

template <class T>
struct IouLossTerms {
  T loss;
  Box<T> for_predicted;  // gradient of the loss by each coordinate
  Box<T> for_target;
};

// eps is added to every denominator; but complete has it in alpha alone and 1e-7 elsewhere, as torchvision's.
template <IouLoss K, class T, class Math>
RETINA_OPS_HOST_DEVICE IouLossTerms<T> iou_loss(const Box<T>& predicted, const Box<T>& target, T eps) {
  const T others = K == IouLoss::kComplete ? T(1e-7) : eps;
  const IouTerms<T> terms = iou_terms<K, IouReading::kLoss, T, Math>(
      measured<K, T, Math>(predicted), measured<K, T, Math>(target), IouEps<T>{others, others, eps});
  const Box<T>& a = terms.for_a;
  const Box<T>& b = terms.for_b;
  // Coordinate by coordinate: GCC does not vectorise a loop that copies a whole box.
  return {terms.value, {a.x1, a.y1, a.x2, a.y2}, {b.x1, b.y1, b.x2, b.y2}};
}

}  // namespace retina_ops
