// The RetinaNet loss of one anchor. Host and device, no torch.
//
// Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1: the focal loss of the classes of every anchor,
// plus a box loss of the matched anchors. The target of a matched anchor is the class of its box, that of other anchors
// is background; anchors between the thresholds have no loss. The box loss is computed from the deltas (L1, or smooth
// L1 with parameter beta: Girshick 2015, "Fast R-CNN", equation 3) or from the decoded box (iou_losses/iou_losses.h).
#pragma once

#include "box_coding/box_coding.h"
#include "iou_losses/iou_losses.h"

namespace retina_ops {

enum class BoxLoss { kL1, kSmoothL1, kGeneralized, kDistance, kComplete };

constexpr double kIouLossEps = 1e-7;                      // as in torchvision
constexpr int64_t kBackgroundMatch = -1;                  // match of a background anchor
constexpr int64_t kIgnoredAnchor = -1;                    // class target of an anchor without loss
constexpr int64_t kMostClasses = (int64_t(1) << 31) - 1;  // class targets fit 32 bits
constexpr int64_t kBadLabel = -2;                         // class target where the match or its label is out of range

// The class target of an anchor: the label of its box, K for background, kIgnoredAnchor or kBadLabel. labels:
// [capacity], those of the anchor's image.
RETINA_OPS_HOST_DEVICE int64_t class_target(int64_t match, const int64_t* labels, int64_t capacity, int64_t classes) {
  if (match < 0) return match == kBackgroundMatch ? classes : kIgnoredAnchor;
  if (match >= capacity) return kBadLabel;
  const int64_t label = labels[match];
  return label >= 0 && label < classes ? label : kBadLabel;
}

template <class T>
struct BoxLossTerms {
  T loss;
  Deltas<T> gradient;  // of the loss by the deltas
};

// The smooth L1 loss of one coordinate, and its gradient; beta 0 is L1.
template <class T>
RETINA_OPS_HOST_DEVICE T delta_loss(T difference, T beta, T& gradient) {
  const T size = difference < T(0) ? -difference : difference;
  const T sign = difference > T(0) ? T(1) : difference < T(0) ? T(-1) : T(0);
  const bool is_square = beta > T(0) && !(size >= beta);  // also for NaN, so that the gradient is NaN
  gradient = is_square ? difference / beta : sign;
  return is_square ? T(0.5) * difference * difference / beta : size - T(0.5) * beta;
}

template <BoxLoss K, class T, class Math>
RETINA_OPS_HOST_DEVICE BoxLossTerms<T> box_loss(const BoxCoding<T>& coding, T beta, const Deltas<T>& deltas,
                                                const Box<T>& anchor, const Box<T>& wanted) {
  BoxLossTerms<T> terms;
  if constexpr (K == BoxLoss::kL1 || K == BoxLoss::kSmoothL1) {
    const Deltas<T> target = encode_box<T, Math>(coding, wanted, anchor);
    const T corner = K == BoxLoss::kL1 ? T(0) : beta;
    terms.loss = delta_loss(deltas.dx - target.dx, corner, terms.gradient.dx);
    terms.loss += delta_loss(deltas.dy - target.dy, corner, terms.gradient.dy);
    terms.loss += delta_loss(deltas.dw - target.dw, corner, terms.gradient.dw);
    terms.loss += delta_loss(deltas.dh - target.dh, corner, terms.gradient.dh);
  } else {
    constexpr IouLoss kind = K == BoxLoss::kGeneralized ? IouLoss::kGeneralized
                             : K == BoxLoss::kDistance  ? IouLoss::kDistance
                                                        : IouLoss::kComplete;
    const Box<T> predicted = decode_box<T, Math>(coding, deltas, anchor);
    const IouLossTerms<T> of_boxes = iou_loss<kind, T, Math>(predicted, wanted, T(kIouLossEps));
    Box<T> for_anchor;
    terms.loss = of_boxes.loss;
    decode_box_backward<T, Math>(coding, of_boxes.for_predicted, deltas, anchor, terms.gradient, for_anchor);
  }
  return terms;
}

}  // namespace retina_ops
