// The segments of the AP loss on the CPU: from the positives' logits, and from sums over the segments to the loss and
// the lines of the update. No torch.
#pragma once

#include <algorithm>
#include <vector>

#include "ap_loss/ap_loss.h"

namespace retina_ops {

// A function of a number that grows with it and divides the segments' range evenly: 0 below the first breakpoint.
template <class T>
struct ApLossBuckets {
  T half_first = T(0);  // half the first breakpoint: the difference of halves cannot overflow
  T scale = T(1);
  T last = T(0);  // the highest bucket, minus 1

  RETINA_OPS_HOST_DEVICE int32_t of(T x) const {
    const T position = (x * T(0.5) - half_first) * scale;
    const T capped = position < last ? position : last;
    return position >= T(0) ? 1 + static_cast<int32_t>(capped) : 0;
  }
};

template <class T>
struct ApLossSegments {
  std::vector<T> breakpoints;         // [2 P] ascending
  std::vector<int64_t> begins, ends;  // [P] where the windows' breakpoints are in it
  std::vector<uint64_t> starts;       // [P] units, as ap_loss_rank takes them
  std::vector<double> heights;        // [P] H at the window's begin
  std::vector<double> lengths;        // [2 P] of segment k + 1, in windows; the last one is 0
  std::vector<uint64_t> units;        // [2 P] of the breakpoints, from the first one
  std::vector<ApLossRuler> rulers;    // [2 P + 1]; segment 0 is before the first breakpoint
  ApLossBuckets<T> buckets;
  std::vector<int32_t> bucket_begins;  // breakpoints in lower buckets, for each bucket and one more
  double unit = 1.0;

  // positives: [P] ascending, finite.
  ApLossSegments(const std::vector<T>& positives, double delta, int64_t n);

  int64_t count() const { return static_cast<int64_t>(rulers.size()); }

  // The segment of x: the number of breakpoints that are not above it.
  RETINA_OPS_HOST_DEVICE int32_t segment_of(T x, int32_t bucket) const {
    const T* points = breakpoints.data();
    int32_t low = bucket_begins.data()[bucket], high = bucket_begins.data()[bucket + 1];
    while (low < high) {
      const int32_t middle = (low + high) / 2;
      if (points[middle] <= x) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

 private:
  void place_windows(const std::vector<T>& positives, double delta);
  void measure(const std::vector<T>& positives, double delta);
  void fill_buckets();
};

template <class T>
ApLossSegments<T>::ApLossSegments(const std::vector<T>& positives, double delta, int64_t n) : unit(ap_loss_unit(n)) {
  place_windows(positives, delta);
  measure(positives, delta);
  fill_buckets();
}

template <class T>
void ApLossSegments<T>::place_windows(const std::vector<T>& positives, double delta) {
  const size_t count = positives.size();
  breakpoints.resize(2 * count);
  begins.resize(count);
  ends.resize(count);
  size_t begin = 0, end = 0;
  for (size_t k = 0; k < 2 * count; ++k) {
    const T next_end = window_end(positives[end], delta);
    const T next_begin = begin < count ? window_begin(positives[begin], delta) : next_end;
    if (begin < count && next_begin <= next_end) {
      breakpoints[k] = next_begin;
      begins[begin++] = static_cast<int64_t>(k);
    } else {
      breakpoints[k] = next_end;
      ends[end++] = static_cast<int64_t>(k);
    }
  }
}

template <class T>
void ApLossSegments<T>::measure(const std::vector<T>& positives, double delta) {
  const size_t points = breakpoints.size();
  lengths.assign(points, 0.0);
  units.assign(points, 0);
  rulers.assign(points + 1, ApLossRuler{0.0, 0.0});
  std::vector<int32_t> opened(points, -1);
  for (const int64_t begin : begins) opened[static_cast<size_t>(begin)] = 1;
  int64_t open = 0;
  for (size_t k = 0; k < points; ++k) {
    open += opened[k];
    if (open > 0) rulers[k + 1] = {static_cast<double>(breakpoints[k]), unit / (2.0 * delta)};
    if (k + 1 < points) {
      lengths[k] = segment_length(breakpoints[k], breakpoints[k + 1], delta);
      units[k + 1] = units[k] + ap_loss_units(lengths[k] * unit);
    }
  }
  heights.resize(begins.size());
  starts.resize(begins.size());
  for (size_t i = 0; i < begins.size(); ++i) {
    const size_t at = static_cast<size_t>(begins[i]);
    heights[i] = height_at_begin(positives[i], breakpoints[at], delta);
    starts[i] = units[at] - ap_loss_units(heights[i] * unit);
  }
}

template <class T>
void ApLossSegments<T>::fill_buckets() {
  constexpr T kMost = std::numeric_limits<T>::max();
  int64_t wanted = 256;
  while (wanted < 8 * static_cast<int64_t>(breakpoints.size()) && wanted < 65536) wanted *= 2;
  if (!breakpoints.empty()) {
    const T half_last = std::min(breakpoints.back(), kMost) * T(0.5);
    buckets.half_first = breakpoints.front() * T(0.5);
    buckets.scale = std::min(static_cast<T>(wanted) / (half_last - buckets.half_first), kMost);
    buckets.last = static_cast<T>(wanted - 1);
  } else {
    wanted = 1;
  }
  bucket_begins.assign(static_cast<size_t>(wanted) + 2, 0);
  for (const T point : breakpoints) {
    ++bucket_begins[static_cast<size_t>(buckets.of(std::min(point, kMost))) + 1];
  }
  for (size_t bucket = 1; bucket < bucket_begins.size(); ++bucket) bucket_begins[bucket] += bucket_begins[bucket - 1];
}

// The loss, and what the update needs.
template <class T>
struct ApLossResult {
  double loss = 0.0;
  std::vector<double> errors;        // [P] interpolated e
  std::vector<ApLossLine<T>> lines;  // [segments], or empty
};

// Prefix sums over the segments from 1 on: [2 P].
template <class T>
std::vector<ApLossPrefix> ap_loss_prefixes(const ApLossSegments<T>& segments, const std::vector<ApLossCell>& cells) {
  std::vector<ApLossPrefix> prefixes(segments.breakpoints.size());
  ApLossPrefix sum{0, 0};
  for (size_t k = 0; k < prefixes.size(); ++k) {
    prefixes[k] = sum;
    sum.count += cells[k + 1].count;
    sum.total += cells[k + 1].total + cells[k + 1].count * segments.units[k];
  }
  return prefixes;
}

// The lines of the update: H(x - s) of every positive, with its weight, added up.
template <class T>
std::vector<ApLossLine<T>> ap_loss_lines(const ApLossSegments<T>& segments, const std::vector<double>& weights,
                                         double delta) {
  const size_t points = segments.breakpoints.size();
  std::vector<ApLossLine<T>> lines(points + 1, ApLossLine<T>{T(0), T(0), T(0)});
  std::vector<double> grown(weights.size());  // how far each window has come
  double value = 0.0, slope = 0.0, position = 0.0;
  size_t begin = 0, end = 0;
  for (size_t k = 0; k < points; ++k) {
    if (begin < weights.size() && segments.begins[begin] == static_cast<int64_t>(k)) {
      value += weights[begin] * segments.heights[begin];
      slope += weights[begin];
      grown[begin] = position - segments.heights[begin];
      ++begin;
    } else {
      value += weights[end] * (1.0 - (position - grown[end]));  // a window ends at H = 1
      slope = begin == end + 1 ? 0.0 : slope - weights[end];
      ++end;
    }
    if (begin == end) {  // no window covers the segment
      lines[k + 1] = {T(0), static_cast<T>(value), T(0)};
    } else {
      const double most = static_cast<double>(std::numeric_limits<T>::max());  // a product with 0 must stay 0
      const double steepness = std::min(slope / (2.0 * delta), most);
      lines[k + 1] = {segments.breakpoints[k], static_cast<T>(value), static_cast<T>(steepness)};
    }
    value += slope * segments.lengths[k];
    position += segments.lengths[k];
  }
  return lines;
}

// negatives, positives: sums over the segments. with_lines: whether the update is wanted.
template <class T>
ApLossResult<T> ap_loss_result(const ApLossSegments<T>& segments, const std::vector<ApLossCell>& negatives,
                               const std::vector<ApLossCell>& positives, double delta, bool with_lines) {
  const size_t count = segments.begins.size();
  const auto before_negative = ap_loss_prefixes(segments, negatives);
  const auto before_positive = ap_loss_prefixes(segments, positives);
  uint64_t all_negatives = 0;
  for (size_t k = 1; k < negatives.size(); ++k) all_negatives += negatives[k].count;
  ApLossResult<T> result;
  result.errors.resize(count);
  std::vector<double> weights(count);
  double least = 1.0;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = static_cast<size_t>(segments.begins[i]), end = static_cast<size_t>(segments.ends[i]);
    const double above =
        ap_loss_rank(before_negative[begin], before_negative[end], all_negatives, segments.starts[i], segments.unit);
    const double rank =
        ap_loss_rank(before_positive[begin], before_positive[end], count, segments.starts[i], segments.unit) + 0.5;
    const double b = above > 0.0 ? above : 0.0;
    const double error = b / (rank + b);
    least = error < least ? error : least;
    result.errors[i] = least;
    result.loss += least / static_cast<double>(count);
    weights[i] = error > 0.0 ? least / error / (rank + b) / static_cast<double>(count) : 0.0;
  }
  if (with_lines) result.lines = ap_loss_lines(segments, weights, delta);
  return result;
}

}  // namespace retina_ops
