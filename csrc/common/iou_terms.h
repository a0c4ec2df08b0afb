// The IoU of two boxes, plain, generalized, distance and complete, with its gradients. Host and device, no torch.
//
// I is the area of the intersection, U of the union, C of the smallest enclosing box; D is the squared diagonal of that
// box, P the squared distance of the centres, and A = atan(w_b / h_b) - atan(w_a / h_a):
//   plain        I / U
//   generalized  I / U - (C - U) / C            Rezatofighi et al. 2019, "Generalized Intersection over Union", alg. 1
//   distance     I / U - P / D                  Zheng et al. 2020, "Distance-IoU Loss", equation (6)
//   complete     distance - alpha v             the same paper, equations (8) to (11); v = (2 A / pi)^2 and
//                                               alpha = v / (1 - I / U + v + eps), a constant in the gradient
// Each denominator has its own eps. torchvision has two variants: losses of matched boxes, and pairwise similarities,
// which clamp the sides of the enclosing box at 0. The gradients are those of autograd: two equal coordinates share the
// gradient of their minimum or maximum, and I has no gradient where the boxes do not overlap.
// The derivatives of atan(w / h) are (h, -w) / (w^2 + h^2), which are finite at h = 0 too.
#pragma once

#include "common/box.h"
#include "common/elementary.h"

namespace retina_ops {

enum class IouKind { kGeneralized, kDistance, kComplete, kPlain };
enum class IouReading { kLoss, kPairwise };

template <class T>
struct IouEps {
  T of_union;  // used by the losses only
  T of_enclosing, of_alpha;
};

// atan(w / h) and its derivatives by w and by h.
template <class T>
struct AspectAngle {
  T angle, by_w, by_h;
};

// All three come from one quotient in [-1, 1]. w = h = 0 gives NaN, as 0 / 0 does.
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

// A box and what depends on this box only. The aspect is computed for kComplete only.
template <class T>
struct MeasuredBox {
  Box<T> box;
  T area;
  AspectAngle<T> aspect;
};

template <IouKind K, class T, class Math>
RETINA_OPS_HOST_DEVICE MeasuredBox<T> measured(const Box<T>& box) {
  MeasuredBox<T> result{box, box_area(box), {T(0), T(0), T(0)}};
  if constexpr (K == IouKind::kComplete) {
    result.aspect = aspect_angle<T, Math>(sub_rn(box.x2, box.x1), sub_rn(box.y2, box.y1));
  }
  return result;
}

template <class T>
struct IouTerms {
  T value;              // the loss, or the similarity
  Box<T> for_a, for_b;  // gradients of 1 - similarity by the coordinates of a and of b, in both variants
};

// The gradient by edge a, where the greater of the edges a and b bounds one interval and the lesser bounds another;
// each interval's gradient goes to the edge that bounds it.
template <class T>
RETINA_OPS_HOST_DEVICE T edge_gradient(T a, T b, T of_greater, T of_lesser) {
  return a > b ? of_greater : a < b ? of_lesser : T(0.5) * (of_greater + of_lesser);
}

template <IouKind K, IouReading R, class T, class Math>
RETINA_OPS_HOST_DEVICE IouTerms<T> iou_terms(const MeasuredBox<T>& measured_a, const MeasuredBox<T>& measured_b,
                                             const IouEps<T>& eps) {
  constexpr bool kPairwise = R == IouReading::kPairwise;
  const Box<T>& a = measured_a.box;
  const Box<T>& b = measured_b.box;
  const T overlap_w = sub_rn(lesser(a.x2, b.x2), greater(a.x1, b.x1));
  const T overlap_h = sub_rn(lesser(a.y2, b.y2), greater(a.y1, b.y1));
  const T intersection = box_intersection(a, b);
  const T union_area = sub_rn(add_rn(measured_a.area, measured_b.area), intersection);
  const T over_union = T(1) / (kPairwise ? union_area : union_area + eps.of_union);
  const T iou = kPairwise ? div_rn(intersection, union_area) : intersection * over_union;

  // Partial derivatives of 1 - similarity: by the union (with I constant), by the sides of the enclosing box, by the
  // offset of the centres and by the difference of the angles.
  T by_union = iou * over_union;
  T by_enclosing_w = T(0), by_enclosing_h = T(0);
  T by_centre_x = T(0), by_centre_y = T(0);  // for a; b gets the negative
  T by_angle = T(0);                         // for b; a gets the negative
  IouTerms<T> terms;
  terms.value = iou;
  if constexpr (K != IouKind::kPlain) {
    const T reach_w = sub_rn(greater(a.x2, b.x2), lesser(a.x1, b.x1));
    const T reach_h = sub_rn(greater(a.y2, b.y2), lesser(a.y1, b.y1));
    const T enclosing_w = kPairwise && reach_w < T(0) ? T(0) : reach_w;
    const T enclosing_h = kPairwise && reach_h < T(0) ? T(0) : reach_h;
    if constexpr (K == IouKind::kGeneralized) {
      const T enclosing = mul_rn(enclosing_w, enclosing_h);
      const T over_enclosing = T(1) / (enclosing + eps.of_enclosing);
      const T penalty = kPairwise ? div_rn(enclosing - union_area, enclosing + eps.of_enclosing)
                                  : (enclosing - union_area) * over_enclosing;
      terms.value = iou - penalty;
      const T by_enclosing = (union_area + eps.of_enclosing) * over_enclosing * over_enclosing;
      by_union -= over_enclosing;
      by_enclosing_w = by_enclosing * enclosing_h;
      by_enclosing_h = by_enclosing * enclosing_w;
    } else {
      const T offset_x = (a.x1 + a.x2) * T(0.5) - (b.x1 + b.x2) * T(0.5);
      const T offset_y = (a.y1 + a.y2) * T(0.5) - (b.y1 + b.y2) * T(0.5);
      const T distance = offset_x * offset_x + offset_y * offset_y;
      const T over_diagonal = T(1) / (enclosing_w * enclosing_w + enclosing_h * enclosing_h + eps.of_enclosing);
      const T ratio = distance * over_diagonal;
      T penalty = ratio;
      by_centre_x = offset_x * (T(2) * over_diagonal);
      by_centre_y = offset_y * (T(2) * over_diagonal);
      by_enclosing_w = ratio * (T(-2) * over_diagonal) * enclosing_w;
      by_enclosing_h = ratio * (T(-2) * over_diagonal) * enclosing_h;
      if constexpr (K == IouKind::kComplete) {
        constexpr T kScale = T(0.40528473456935108578);  // 4 / pi^2
        const T angle = measured_b.aspect.angle - measured_a.aspect.angle;
        const T v = kScale * (angle * angle);
        const T alpha = v / (T(1) - iou + v + eps.of_alpha);
        penalty += alpha * v;
        by_angle = T(2) * kScale * (alpha * angle);
      }
      terms.value = iou - penalty;
    }
    if constexpr (kPairwise) {
      by_enclosing_w = reach_w > T(0) ? by_enclosing_w : T(0);
      by_enclosing_h = reach_h > T(0) ? by_enclosing_h : T(0);
    }
  }
  if constexpr (!kPairwise) terms.value = T(1) - terms.value;

  const T by_intersection = -(over_union + by_union);
  const bool overlaps = overlap_w > T(0) && overlap_h > T(0);
  const T by_overlap_w = overlaps ? by_intersection * overlap_h : T(0);
  const T by_overlap_h = overlaps ? by_intersection * overlap_w : T(0);
  T a_w = by_union * (a.y2 - a.y1), a_h = by_union * (a.x2 - a.x1);
  T b_w = by_union * (b.y2 - b.y1), b_h = by_union * (b.x2 - b.x1);
  if constexpr (K == IouKind::kComplete) {
    a_w = Math::madd(-by_angle, measured_a.aspect.by_w, a_w);
    a_h = Math::madd(-by_angle, measured_a.aspect.by_h, a_h);
    b_w = Math::madd(by_angle, measured_b.aspect.by_w, b_w);
    b_h = Math::madd(by_angle, measured_b.aspect.by_h, b_h);
  }
  // The greater of the two low edges bounds the overlap, the lesser bounds the enclosing box; the high edges the other
  // way round.
  const T half_x = T(0.5) * by_centre_x;
  const T half_y = T(0.5) * by_centre_y;
  terms.for_a = {half_x - a_w - edge_gradient(a.x1, b.x1, by_overlap_w, by_enclosing_w),
                 half_y - a_h - edge_gradient(a.y1, b.y1, by_overlap_h, by_enclosing_h),
                 half_x + a_w + edge_gradient(a.x2, b.x2, by_enclosing_w, by_overlap_w),
                 half_y + a_h + edge_gradient(a.y2, b.y2, by_enclosing_h, by_overlap_h)};
  terms.for_b = {-half_x - b_w - edge_gradient(b.x1, a.x1, by_overlap_w, by_enclosing_w),
                 -half_y - b_h - edge_gradient(b.y1, a.y1, by_overlap_h, by_enclosing_h),
                 -half_x + b_w + edge_gradient(b.x2, a.x2, by_enclosing_w, by_overlap_w),
                 -half_y + b_h + edge_gradient(b.y2, a.y2, by_enclosing_h, by_overlap_h)};
  return terms;
}

}  // namespace retina_ops
