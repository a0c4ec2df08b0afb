// Candidates from the outputs of a detection head: scores, their order, and their boxes. Host and device, no torch.
//
// Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4, "Inference": the `topk` best scores of each
// level that are above a threshold are decoded; then follows non-maximum suppression per class over all levels. The
// score is the sigmoid of the logit, rounded to float (double for float64 logits). Candidates are ordered by descending
// score, equal scores by level and then by place, the index in [anchors, classes] of the level; anchors by row, column
// and index in the cell.
#pragma once

#include "box_coding/box_coding.h"
#include "common/head_levels.h"

namespace retina_ops {

// 1 / (1 + exp(-x)) within 4 units in the last place; 0 for x < -708, NaN for NaN. Each operation is rounded by itself,
// so that CUDA and the CPU with any instruction set give the same bits. Rounded to float it is the float32 nearest to
// the true value, except for one x in 10^8.
RETINA_OPS_HOST_DEVICE double sigmoid(double x) {
  const double magnitude = x < 0.0 ? -x : x;
  const bool vanishes = magnitude > 708.0;
  const double y = vanishes ? 0.0 : -magnitude;  // exp(y) = 2^n exp(r), |r| <= log(2) / 2
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves the nearest integer in the low bits
  const double shifted = add_rn(mul_rn(y, 1.4426950408889634), kRound);
  const double n = sub_rn(shifted, kRound);
  const double high = mul_rn(n, 6.93147180369123816490e-01);  // exact: 32 bits of log(2) times 11
  const double r = sub_rn(sub_rn(y, high), mul_rn(n, 1.90821492927058770002e-10));
  double p = 1.0 / 6227020800.0;  // the Taylor series to r^13; its remainder is below 1e-17
  p = add_rn(mul_rn(p, r), 1.0 / 479001600.0);
  p = add_rn(mul_rn(p, r), 1.0 / 39916800.0);
  p = add_rn(mul_rn(p, r), 1.0 / 3628800.0);
  p = add_rn(mul_rn(p, r), 1.0 / 362880.0);
  p = add_rn(mul_rn(p, r), 1.0 / 40320.0);
  p = add_rn(mul_rn(p, r), 1.0 / 5040.0);
  p = add_rn(mul_rn(p, r), 1.0 / 720.0);
  p = add_rn(mul_rn(p, r), 1.0 / 120.0);
  p = add_rn(mul_rn(p, r), 1.0 / 24.0);
  p = add_rn(mul_rn(p, r), 1.0 / 6.0);
  p = add_rn(mul_rn(p, r), 0.5);
  p = add_rn(mul_rn(p, r), 1.0);
  p = add_rn(mul_rn(p, r), 1.0);
  const uint64_t power = (bit_copy<uint64_t>(shifted) << 52) + 0x3ff0000000000000u;
  const double e = vanishes ? 0.0 : mul_rn(p, bit_copy<double>(power));
  return div_rn(x < 0.0 ? e : 1.0, add_rn(1.0, e));
}

// S is float, or double for float64 logits.
template <class S>
RETINA_OPS_HOST_DEVICE S score_of(S logit) {
  return static_cast<S>(sigmoid(static_cast<double>(logit)));
}

// A bound in logits, slightly too low: every logit below it has a score below `score`. Scans compare logits with it.
template <class S>
RETINA_OPS_HOST_DEVICE S logit_below(S score) {
  constexpr double kEpsilon = std::numeric_limits<S>::epsilon();
  if (!(score > S(0))) return -std::numeric_limits<S>::infinity();
  double p = static_cast<double>(score) * (1.0 - 4.0 * kEpsilon);
  p = p < 1.0 - kEpsilon ? p : 1.0 - kEpsilon;
  const double logit = log(p / (1.0 - p));
  return static_cast<S>(logit - 1e-6 * (logit < 0.0 ? -logit : logit) - 1e-6);
}

// A candidate as one integer, which is larger for candidates that come first: the bits of its score, which is not
// negative, then its place, counted down. Never 0.
template <class S>
struct CandidateKey;
template <>
struct CandidateKey<float> {
  using Bits = uint32_t;
  using type = uint64_t;
  static constexpr int kBits = 62;  // the bits above are 0: scores are at most 1
};
template <>
struct CandidateKey<double> {
  using Bits = uint64_t;
  __extension__ using type = unsigned __int128;
  static constexpr int kBits = 94;
};
template <class S>
using KeyOf = typename CandidateKey<S>::type;

constexpr int64_t kMaxPlaces = (int64_t(1) << 32) - 2;  // logits per level and image

template <class S>
RETINA_OPS_HOST_DEVICE KeyOf<S> key_of(S score, uint32_t place) {
  return static_cast<KeyOf<S>>(bit_copy<typename CandidateKey<S>::Bits>(score)) << 32 | (0xffffffffu - place);
}
template <class S>
RETINA_OPS_HOST_DEVICE S score_of_key(KeyOf<S> key) {
  return bit_copy<S>(static_cast<typename CandidateKey<S>::Bits>(key >> 32));
}
template <class S>
RETINA_OPS_HOST_DEVICE uint32_t place_of_key(KeyOf<S> key) {
  return 0xffffffffu - static_cast<uint32_t>(key);
}

// The place of the logit at `offset` in the memory of a level of an image.
RETINA_OPS_HOST_DEVICE uint32_t place_of(const HeadLevel& level, uint32_t offset, uint32_t channels) {
  if (!level.is_planar) return offset;
  const auto cells = static_cast<uint32_t>(level.cells);
  const uint32_t plane = offset / cells;  // a * channels + c
  return (offset - plane * cells) * static_cast<uint32_t>(level.per_cell) * channels + plane;
}

template <class A>
RETINA_OPS_HOST_DEVICE A value_at(const void* values, Dtype dtype, int64_t index) {
  if (dtype == Dtype::kFloat64) return static_cast<A>(static_cast<const double*>(values)[index]);
  if (dtype == Dtype::kFloat32) return static_cast<A>(static_cast<const float*>(values)[index]);
  const uint16_t bits = static_cast<const uint16_t*>(values)[index];
  return static_cast<A>(dtype == Dtype::kFloat16 ? float16_to_float(bits) : bfloat16_to_float(bits));
}

// The decoded box of an anchor of `level`, a level of deltas, clipped to the image. anchors: [anchors of all levels,
// 4]; image_sizes: [batch, 2] (height, width); coding: only its weights and log_limit are used.
template <class A, class Math>
RETINA_OPS_HOST_DEVICE Box<A> candidate_box(const HeadLevel& level, Dtype dtype, const A* anchors, const A* image_sizes,
                                            BoxCoding<A> coding, int64_t image, int64_t anchor) {
  const void* values = level.values;
  const Deltas<A> deltas{value_at<A>(values, dtype, level.index(image, anchor, 0, 4)),
                         value_at<A>(values, dtype, level.index(image, anchor, 1, 4)),
                         value_at<A>(values, dtype, level.index(image, anchor, 2, 4)),
                         value_at<A>(values, dtype, level.index(image, anchor, 3, 4))};
  const A* v = anchors + 4 * (level.first_anchor + anchor);
  coding.lowest = A(0);
  coding.image_height = image_sizes[2 * image];
  coding.image_width = image_sizes[2 * image + 1];
  return decode_box<A, Math>(coding, deltas, Box<A>{v[0], v[1], v[2], v[3]});
}

}  // namespace retina_ops
