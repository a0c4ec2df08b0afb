// Soft non-maximum suppression: the factor by which a taken box decays the score of another. Host and device, no torch.
//
// Bodla et al. 2017, "Soft-NMS: Improving Object Detection With One Line of Code", figure 2 and section 3. The box with
// the highest current score is taken (of equal scores, the one with the lowest input index), and the score of every
// remaining box of its class is multiplied by
//   linear    1 - IoU            where IoU > threshold
//   gaussian  exp(-IoU^2 / sigma)
// until no remaining score is at least min_score. The decay of a box is the product of its factors in the order in
// which boxes are taken; its current score is its input score times its decay. So every score is a fixed sequence of
// rounded operations: threads, instruction sets and devices give the same bits. An IoU of NaN decays nothing. A box
// whose score is NaN, or becomes NaN (infinity times 0), is never taken.
#pragma once

#include "common/box.h"
#include "common/elementary.h"
#include "nms/nms.h"

namespace retina_ops {

// Multiply-adds that round the product and the sum, on the host and on the device.
struct RoundedMath {
  static constexpr bool kIsCoarse = false;
  template <class T>
  static RETINA_OPS_HOST_DEVICE T madd(T a, T b, T c) {
    return add_rn(mul_rn(a, b), c);
  }
};

// exp(y) for y <= 0, relative error at most 3e-7; 0 where exp(y) < 2^-126.5.
RETINA_OPS_HOST_DEVICE float exp_of_decay(float y) { return exp_bounded<RoundedMath>(y); }

// The same for doubles, relative error at most 4e-16; 0 for y < -708. Unlike libm's exp it gives the same bits
// everywhere and vectorises. The remainder of the Taylor series on |r| <= ln(2) / 2 is 5e-18. ln(2) is the sum of two
// constants, as in fdlibm's e_exp.c: n times the first is exact.
RETINA_OPS_HOST_DEVICE double exp_of_decay(double y) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  constexpr double kInverseFactorials[] = {1.0 / 6227020800.0,
                                           1.0 / 479001600.0,
                                           1.0 / 39916800.0,
                                           1.0 / 3628800.0,
                                           1.0 / 362880.0,
                                           1.0 / 40320.0,
                                           1.0 / 5040.0,
                                           1.0 / 720.0,
                                           1.0 / 120.0,
                                           1.0 / 24.0,
                                           1.0 / 6.0,
                                           0.5,
                                           1.0,
                                           1.0};
  const double bounded = y < -708.0 ? -708.0 : y;
  const double shifted = RoundedMath::madd(bounded, 1.4426950408889634, kRound);
  const double n = sub_rn(shifted, kRound);
  const double r =
      RoundedMath::madd(n, -1.90821492927058770002e-10, RoundedMath::madd(n, -6.93147180369123816490e-01, bounded));
  double p = kInverseFactorials[0];
  for (int i = 1; i < 14; ++i) p = RoundedMath::madd(p, r, kInverseFactorials[i]);
  const double power = bit_copy<double>((bit_copy<uint64_t>(shifted) << 52) + 0x3ff0000000000000u);
  return y < -708.0 ? 0.0 : mul_rn(p, power);
}

// The parameters of a call in the type of the arithmetic.
template <class A>
struct SoftNmsRule {
  A threshold;  // linear method: iou > this exactly where iou is above the threshold as a double
  A sigma;      // gaussian method
  A min_score;
};

template <class A>
SoftNmsRule<A> soft_nms_rule(double threshold, double sigma, double min_score) {
  const A narrow = static_cast<A>(sigma);
  return {threshold_below<A>(threshold), greater(narrow, std::numeric_limits<A>::min()), static_cast<A>(min_score)};
}

// The factor for a box whose IoU with a taken box is `iou`, in [0, 1].
template <bool kGaussian, class A>
RETINA_OPS_HOST_DEVICE A soft_nms_factor(A iou, const SoftNmsRule<A>& rule) {
  if constexpr (kGaussian) {
    const A factor = exp_of_decay(div_rn(-mul_rn(iou, iou), rule.sigma));
    return iou == iou ? factor : A(1);
  } else {
    return iou > rule.threshold ? sub_rn(A(1), iou) : A(1);
  }
}

}  // namespace retina_ops
