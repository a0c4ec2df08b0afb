// IoU and its generalized, distance and complete forms of two boxes, with their gradients. Host and device, no torch.
//
// With I the area of the intersection, U that of the union, C that of the smallest enclosing box, D the square of its
// diagonal, P the square of the distance of the centres and A = atan(w_b / h_b) - atan(w_a / h_a):
//   plain        I / U
//   generalized  I / U - (C - U) / C            Rezatofighi et al. 2019, "Generalized Intersection over Union", alg. 1
//   distance     I / U - P / D                  Zheng et al. 2020, "Distance-IoU Loss", equation (6)
//   complete     distance - alpha v             the same, equations (8) to (11); v = (2 A / pi)^2 and
//                                               alpha = v / (1 - I / U + v + eps), a constant in the gradient
// each denominator with an eps of its own. There are torchvision's two readings: the losses of matched boxes, and the
// pairwise similarities, which clamp the enclosing box's sides at 0. Gradients are autograd's: equal coordinates share
// that of a minimum or maximum, and boxes that do not overlap have none through I.
// The slope of atan(w / h) is (h, -w) / (w^2 + h^2), finite at h = 0 too.
#pragma once

#include "common/box.h"
#include "common/elementary.h"

namespace retina_ops {

enum class IouKind { kGeneralized, kDistance, kComplete, kPlain };
enum class IouReading { kLoss, kPairwise };

template <class T>
struct IouEps {
  T of_union;  // of the losses alone
  T of_enclosing, of_alpha;
};

// atan(w / h) and its slope by w and by h.
template <class T>
struct AspectAngle {
  T angle, by_w, by_h;
};

// One quotient in [-1, 1] gives all three. NaN for w = h = 0, as 0 / 0.
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

// A box and what the terms need of it alone; the aspect is that of kComplete only.
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
  Box<T> for_a, for_b;  // gradients of 1 - similarity in both readings
};

// The gradient by edge a where the greater of the edges a and b bounds one interval and the lesser another.
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

  // Of 1 - similarity. By the union with I as it is, and by the enclosing box's sides.
  T by_union = iou * over_union;
  T by_enclosing_w = T(0), by_enclosing_h = T(0);
  T by_centre_x = T(0), by_centre_y = T(0);  // of a; b has the opposite
  T by_angle = T(0);                         // of b; a has the opposite
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
  // The greater of two low edges bounds the overlap, the lesser the enclosing box; of two high edges the other way.
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
