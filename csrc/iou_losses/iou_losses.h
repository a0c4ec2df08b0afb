// Losses of a predicted box against its target, and their gradients. Host and device, no torch.
//
// With I the area of the intersection, U that of the union, C that of the smallest enclosing box, D the square of its
// diagonal, P the square of the distance of the centres and A = atan(w_target / h_target) - atan(w / h):
//   generalized  1 - (I / (U + eps) - (C - U) / (C + eps))     Rezatofighi et al. 2019, "Generalized Intersection over
//                                                              Union", algorithm 1
//   distance     1 - I / (U + eps) + P / (D + eps)             Zheng et al. 2020, "Distance-IoU Loss", equation (7)
//   complete     distance + alpha v, v = (2 A / pi)^2 and      the same, equations (8) to (11)
//                alpha = v / (1 - I / (U + eps) + v + eps), a constant in the gradient
// as torchvision has them: complete has eps in alpha alone and 1e-7 in its distance.
//
// Gradients are autograd's: equal coordinates share the gradient of a minimum or maximum, boxes that do not overlap
// have none through I. The slope of atan(w / h) is written (h, -w) / (w^2 + h^2), which is finite at h = 0 too.
#pragma once

#include "common/box.h"
#include "common/elementary.h"

namespace retina_ops {

enum class IouLoss { kGeneralized, kDistance, kComplete };

template <class T>
struct IouLossTerms {
  T loss;
  Box<T> for_predicted;  // gradient of the loss by each coordinate
  Box<T> for_target;
};

// atan(w / h) of a box and its slope by w and by h. One quotient in [-1, 1] gives all of them.
template <class T>
struct AspectAngle {
  T angle, by_w, by_h;
};

template <class T, class Math>
RETINA_OPS_HOST_DEVICE AspectAngle<T> aspect_angle(T w, T h) {
  const T abs_w = w < T(0) ? -w : w;
  const T abs_h = h < T(0) ? -h : h;
  const bool tall = abs_w <= abs_h;  // false for NaN
  const T longer = tall ? h : w;
  const T ratio = (tall ? w : h) / longer;
  const T slope = T(1) / (Math::madd(ratio, ratio, T(1)) * longer);
  const T angle = arctangent_unit<Math>(ratio);
  const T right = (w < T(0)) != (h < T(0)) ? T(-1.57079632679489661923) : T(1.57079632679489661923);
  return {tall ? angle : right - angle, tall ? slope : ratio * slope, tall ? -(ratio * slope) : -slope};
}

// The gradient by edge a where the greater of the edges a and b bounds one interval and the lesser another.
template <class T>
RETINA_OPS_HOST_DEVICE T edge_gradient(T a, T b, T of_greater, T of_lesser) {
  return a > b ? of_greater : a < b ? of_lesser : T(0.5) * (of_greater + of_lesser);
}

template <IouLoss K, class T, class Math>
RETINA_OPS_HOST_DEVICE IouLossTerms<T> iou_loss(const Box<T>& predicted, const Box<T>& target, T eps) {
  const T iou_eps = K == IouLoss::kComplete ? T(1e-7) : eps;
  const T w = predicted.x2 - predicted.x1;
  const T h = predicted.y2 - predicted.y1;
  const T target_w = target.x2 - target.x1;
  const T target_h = target.y2 - target.y1;
  const T overlap_w = lesser(predicted.x2, target.x2) - greater(predicted.x1, target.x1);
  const T overlap_h = lesser(predicted.y2, target.y2) - greater(predicted.y1, target.y1);
  const T enclosing_w = greater(predicted.x2, target.x2) - lesser(predicted.x1, target.x1);
  const T enclosing_h = greater(predicted.y2, target.y2) - lesser(predicted.y1, target.y1);
  const bool overlaps = overlap_w > T(0) && overlap_h > T(0);
  const T intersection = overlaps ? overlap_w * overlap_h : T(0);
  const T areas = w * h + target_w * target_h;
  const T union_area = areas - intersection;
  const T over_union = T(1) / (union_area + iou_eps);
  const T iou = intersection * over_union;

  IouLossTerms<T> terms;
  T by_union = iou * over_union;  // of the loss, by U with I as it is; then by I through U as well
  T by_enclosing_w, by_enclosing_h;
  T by_centre_x = T(0), by_centre_y = T(0);  // by the predicted box's centre; the target's has the opposite
  T by_w = T(0), by_h = T(0), by_target_w = T(0), by_target_h = T(0);
  if constexpr (K == IouLoss::kGeneralized) {
    const T enclosing = enclosing_w * enclosing_h;
    const T over_enclosing = T(1) / (enclosing + iou_eps);
    terms.loss = T(1) - (iou - (enclosing - union_area) * over_enclosing);
    const T by_enclosing = (union_area + iou_eps) * over_enclosing * over_enclosing;
    by_union -= over_enclosing;
    by_enclosing_w = by_enclosing * enclosing_h;
    by_enclosing_h = by_enclosing * enclosing_w;
  } else {
    const T offset_x = (predicted.x2 + predicted.x1) * T(0.5) - (target.x1 + target.x2) * T(0.5);
    const T offset_y = (predicted.y2 + predicted.y1) * T(0.5) - (target.y1 + target.y2) * T(0.5);
    const T distance = offset_x * offset_x + offset_y * offset_y;
    const T over_diagonal = T(1) / (enclosing_w * enclosing_w + enclosing_h * enclosing_h + iou_eps);
    const T ratio = distance * over_diagonal;
    terms.loss = T(1) - iou + ratio;
    const T twice = T(2) * over_diagonal;
    by_centre_x = offset_x * twice;
    by_centre_y = offset_y * twice;
    by_enclosing_w = -(ratio * twice) * enclosing_w;
    by_enclosing_h = -(ratio * twice) * enclosing_h;
    if constexpr (K == IouLoss::kComplete) {
      const AspectAngle<T> mine = aspect_angle<T, Math>(w, h);
      const AspectAngle<T> other = aspect_angle<T, Math>(target_w, target_h);
      const T angle = other.angle - mine.angle;
      constexpr T kScale = T(0.40528473456935108578);  // 4 / pi^2
      const T v = kScale * (angle * angle);
      const T alpha = v / (T(1) - iou + v + eps);
      terms.loss += alpha * v;
      const T by_angle = T(2) * kScale * (alpha * angle);
      by_w = -(by_angle * mine.by_w);
      by_h = -(by_angle * mine.by_h);
      by_target_w = by_angle * other.by_w;
      by_target_h = by_angle * other.by_h;
    }
  }
  by_w = Math::madd(by_union, h, by_w);
  by_h = Math::madd(by_union, w, by_h);
  by_target_w = Math::madd(by_union, target_h, by_target_w);
  by_target_h = Math::madd(by_union, target_w, by_target_h);
  const T by_intersection = -(over_union + by_union);
  const T by_overlap_w = overlaps ? by_intersection * overlap_h : T(0);
  const T by_overlap_h = overlaps ? by_intersection * overlap_w : T(0);

  // The greater of two low edges bounds the overlap, the lesser the enclosing box; of two high edges the other way.
  const T half_x = T(0.5) * by_centre_x;
  const T half_y = T(0.5) * by_centre_y;
  const Box<T>& p = predicted;
  const Box<T>& t = target;
  terms.for_predicted = {half_x - by_w - edge_gradient(p.x1, t.x1, by_overlap_w, by_enclosing_w),
                         half_y - by_h - edge_gradient(p.y1, t.y1, by_overlap_h, by_enclosing_h),
                         half_x + by_w + edge_gradient(p.x2, t.x2, by_enclosing_w, by_overlap_w),
                         half_y + by_h + edge_gradient(p.y2, t.y2, by_enclosing_h, by_overlap_h)};
  terms.for_target = {-half_x - by_target_w - edge_gradient(t.x1, p.x1, by_overlap_w, by_enclosing_w),
                      -half_y - by_target_h - edge_gradient(t.y1, p.y1, by_overlap_h, by_enclosing_h),
                      -half_x + by_target_w + edge_gradient(t.x2, p.x2, by_enclosing_w, by_overlap_w),
                      -half_y + by_target_h + edge_gradient(t.y2, p.y2, by_enclosing_h, by_overlap_h)};
  return terms;
}

}  // namespace retina_ops
