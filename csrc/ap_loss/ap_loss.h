// The average-precision loss: the problem, and the steps per positive that need no threads. Host and device, no torch.
//
// Chen et al. 2019, "Towards Accurate One-Stage Object Detection with AP-Loss", algorithm 1. With
// H(d) = clamp(d / (2 delta) + 1/2, 0, 1), a positive with logit s has
//   a = 1 + sum of H(s' - s) over the other positives, b = sum of H(x - s) over the negatives, e = b / (a + b).
// e is 1 - precision. Interpolated, it is the running minimum of e over the positives in ascending order of logit. The
// loss is its mean. The update of a positive is -e, that of a negative is the sum of H(x - s) w over the positives with
// w = (interpolated e / e) / (a + b). Both are divided by the number of positives.
//
// No pair is visited. As a function of the negative's logit x, the sums are piecewise linear: the window of a positive
// begins at the first number x with x - s >= -delta and ends at the first with x - s > delta. The 2 P breakpoints of P
// positives, sorted, cut the numbers into 2 P + 1 segments. One pass over the logits counts those in each segment and
// sums their positions in it. Positions are integers, in units of 2 delta / 2^F: sums do not depend on their order.
// Prefix sums over the segments give every a and b, and a second pass evaluates the line of each logit's segment.
#pragma once

#include "common/half_block.h"

namespace retina_ops {

// One call. All arrays are contiguous.
struct ApLossProblem {
  const void* logits;     // [rows, classes] of `dtype`
  Dtype dtype;            // of logits and grad; arithmetic on logits is in float, in double for float64
  int64_t rows, classes;  // classes: at least 1
  const int64_t* labels;  // [rows] class in [0, classes), `classes` for background, or ignore_index; null: dense
  const void* dense;      // [rows, classes] of `dense_dtype`: above 0 positive, 0 negative, below 0 ignored; or null
  Dtype dense_dtype;
  int64_t ignore_index;
  double delta;     // half the width of a window; 2 delta and 2^60 / (2 delta) are finite
  double upstream;  // factor of the update
  void* grad;       // [rows, classes] of `dtype`, or null
};

// The logits of one segment, and the total of their positions in it; in a segment that no window covers the total is 0.
// Unsigned arithmetic wraps around; the results that are used are small.
struct ApLossCell {
  uint64_t count;
  uint64_t total;
};

// Position of x in a segment: (x - base) * scale. Both are 0 where no window covers the segment.
struct ApLossRuler {
  double base;
  double scale;
};

// Update of a negative in a segment: value + slope * (x - base).
template <class T>
struct ApLossLine {
  T base, value, slope;
};

// 2^F, the units of a whole window. Sums of `n` parts of windows are below 2^60.
RETINA_OPS_HOST_DEVICE double ap_loss_unit(int64_t n) {
  int bits = 60;
  for (uint64_t left = static_cast<uint64_t>(n); left > 0; left >>= 1) --bits;
  return static_cast<double>(int64_t(1) << bits);
}

// Infinite logits become the largest finite number. NaN stays NaN.
template <class T>
RETINA_OPS_HOST_DEVICE T ap_loss_clamped(T x) {
  constexpr T kMost = std::numeric_limits<T>::max();
  const T capped = x > kMost ? kMost : x;
  return capped < -kMost ? -kMost : capped;
}

RETINA_OPS_HOST_DEVICE float next_up(float x) { return nextafterf(x, std::numeric_limits<float>::infinity()); }
RETINA_OPS_HOST_DEVICE double next_up(double x) { return nextafter(x, std::numeric_limits<double>::infinity()); }

// The smallest T that is at least s + offset; where kAbove, the smallest that is above it.
template <bool kAbove, class T>
RETINA_OPS_HOST_DEVICE T ap_loss_breakpoint(T s, double offset) {
  const double wide = static_cast<double>(s);
  const double sum = wide + offset;
  if (sum < -static_cast<double>(std::numeric_limits<T>::max())) return -std::numeric_limits<T>::max();
  if (sum > static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::infinity();
  const double offset_in_sum = sum - wide;
  const double lost = (wide - (sum - offset_in_sum)) + (offset - offset_in_sum);  // s + offset = sum + lost, exactly
  const T rounded = static_cast<T>(sum);
  const double back = static_cast<double>(rounded);
  const bool is_below = back < sum || (back == sum && (kAbove ? lost >= 0.0 : lost > 0.0));
  return is_below ? next_up(rounded) : rounded;
}
template <class T>
RETINA_OPS_HOST_DEVICE T window_begin(T s, double delta) {
  return ap_loss_breakpoint<false>(s, -delta);
}
template <class T>
RETINA_OPS_HOST_DEVICE T window_end(T s, double delta) {
  return ap_loss_breakpoint<true>(s, delta);
}

// H at the beginning of a positive's window: 0, or up to 1/2 where numbers are further apart than delta.
template <class T>
RETINA_OPS_HOST_DEVICE double height_at_begin(T s, T begin, double delta) {
  const double height = 0.5 - (static_cast<double>(s) - static_cast<double>(begin)) / (2.0 * delta);
  return height < 0.0 ? 0.0 : height;
}

// Length of a segment, in windows. Numbers in a covered segment are at most one window from its beginning.
template <class T>
RETINA_OPS_HOST_DEVICE double segment_length(T begin, T end, double delta) {
  const double length = (static_cast<double>(end) - static_cast<double>(begin)) / (2.0 * delta);
  return length < 1.0 ? length : 1.0;
}

RETINA_OPS_HOST_DEVICE uint64_t ap_loss_units(double position) { return static_cast<uint64_t>(position + 0.5); }

// Prefix sums over the segments before one: counts, and totals of positions from the first breakpoint.
struct ApLossPrefix {
  uint64_t count, total;
};

// Sum of H(x - s) over the logits whose prefix sums these are, for the positive whose window begins and ends there.
// all: their count; start: units from the first breakpoint to the window's begin, minus those of H there.
RETINA_OPS_HOST_DEVICE double ap_loss_rank(const ApLossPrefix& begin, const ApLossPrefix& end, uint64_t all,
                                           uint64_t start, double unit) {
  const uint64_t in_window = end.count - begin.count;
  const int64_t units = static_cast<int64_t>((end.total - begin.total) - in_window * start);
  return static_cast<double>(all - end.count) + static_cast<double>(units) / unit;
}

}  // namespace retina_ops
