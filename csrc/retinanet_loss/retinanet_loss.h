// What the RetinaNet loss does with one anchor. Host and device, no torch.
//
// Lin et al. 2017, section 4.1: the focal loss of every anchor's classes, where an anchor that is matched to a box has
// that box's class and every other is background (those between the thresholds count nothing), plus a box loss of the
// matched anchors. The box loss is of the deltas (L1, or smooth L1 with its corner at beta: Girshick 2015, "Fast
// R-CNN", equation 3), or of the decoded box (iou_losses/iou_losses.h).
#pragma once

#include "box_coding/box_coding.h"
#include "iou_losses/iou_losses.h"

namespace retina_ops {

enum class BoxLoss { kL1, kSmoothL1, kGeneralized, kDistance, kComplete };

constexpr double kIouLossEps = 1e-7;                      // torchvision's
constexpr int64_t kBackgroundMatch = -1;                  // match of an anchor without a box
constexpr int64_t kIgnoredAnchor = -1;                    // class target of an anchor that counts nothing
constexpr int64_t kMostClasses = (int64_t(1) << 31) - 1;  // class targets fit 32 bits
constexpr int64_t kBadLabel = -2;                         // of one whose box has a label outside [0, K)

// Class target of an anchor: its box's label, K for background, or kIgnoredAnchor. labels: [capacity] of its image.
RETINA_OPS_HOST_DEVICE int64_t class_target(int64_t match, const int64_t* labels, int64_t capacity, int64_t classes) {
  if (match < 0) return match == kBackgroundMatch ? classes : kIgnoredAnchor;
  if (match >= capacity) return kBadLabel;
  const int64_t label = labels[match];
  return label >= 0 && label < classes ? label : kBadLabel;
}

template <class T>
struct BoxLossTerms {
  T loss;
  Deltas<T> gradient;  // by the deltas
};

// One coordinate of the loss of deltas; beta 0 is L1.
template <class T>
RETINA_OPS_HOST_DEVICE T delta_loss(T difference, T beta, T& gradient) {
  const T size = difference < T(0) ? -difference : difference;
  const T sign = difference > T(0) ? T(1) : difference < T(0) ? T(-1) : T(0);
  const bool is_square = beta > T(0) && !(size >= beta);  // NaN too, whose gradient is then NaN
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
