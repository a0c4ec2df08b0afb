// Matching anchors to ground-truth boxes: the rule. Host and device, no torch.
//
// Ren et al. 2015, "Faster R-CNN", section 3.1.2, as torchvision's Matcher implements it: an anchor takes the box of
// its highest IoU (the lowest index among equals); it is foreground at fg or more, background under bg, and between the
// two it is ignored. With low-quality matches every anchor that attains some box's highest IoU is foreground, too; a
// box that overlaps no anchor makes none foreground.
#pragma once

#include "common/box.h"

namespace retina_ops {

constexpr int64_t kBackground = -1;
constexpr int64_t kBetween = -2;

// While matching goes on, an anchor's entry holds its best box and what its IoU alone makes of it.
enum class MatchCode : int64_t { kForeground = 0, kBackground = 1, kBetween = 2 };

template <class T>
struct MatchThresholds {
  T fg;   // IoU from which an anchor is foreground
  T bg;   // IoU under which it is background
  T iof;  // intersection over anchor area from which a region to ignore covers an anchor that is not foreground
};

template <class T>
RETINA_OPS_HOST_DEVICE int64_t provisional_match(T best_iou, int32_t best_box, const MatchThresholds<T>& thresholds) {
  const MatchCode code = best_iou >= thresholds.fg  ? MatchCode::kForeground
                         : best_iou < thresholds.bg ? MatchCode::kBackground
                                                    : MatchCode::kBetween;
  return static_cast<int64_t>(best_box) * 4 + static_cast<int64_t>(code);
}

RETINA_OPS_HOST_DEVICE bool is_foreground(int64_t provisional) {
  return (provisional & 3) == static_cast<int64_t>(MatchCode::kForeground);
}

RETINA_OPS_HOST_DEVICE int64_t final_match(int64_t provisional) {
  return is_foreground(provisional)                                          ? provisional >> 2
         : (provisional & 3) == static_cast<int64_t>(MatchCode::kBackground) ? kBackground
                                                                             : kBetween;
}

// An anchor that touches nothing has IoU 0 with every box: where 0 is background, boxes that cannot overlap need not be
// compared. Otherwise every pair counts.
template <class T>
RETINA_OPS_HOST_DEVICE bool only_overlaps_matter(const MatchThresholds<T>& thresholds) {
  return T(0) < thresholds.bg && thresholds.bg <= thresholds.fg;
}

// The smallest box around many, NaN left out; overlapping it is necessary for overlapping any of them.
template <class T>
struct Bounds {
  T x1, y1, x2, y2;
};

template <class T>
RETINA_OPS_HOST_DEVICE Bounds<T> no_bounds() {
  const T infinity = std::numeric_limits<T>::infinity();
  return {infinity, infinity, -infinity, -infinity};
}

template <class T>
RETINA_OPS_HOST_DEVICE void extend(Bounds<T>& bounds, const Bounds<T>& by) {
  bounds.x1 = by.x1 < bounds.x1 ? by.x1 : bounds.x1;
  bounds.y1 = by.y1 < bounds.y1 ? by.y1 : bounds.y1;
  bounds.x2 = by.x2 > bounds.x2 ? by.x2 : bounds.x2;
  bounds.y2 = by.y2 > bounds.y2 ? by.y2 : bounds.y2;
}

template <class T>
RETINA_OPS_HOST_DEVICE bool may_overlap(const Bounds<T>& bounds, const Box<T>& box) {
  return box.x1 < bounds.x2 && bounds.x1 < box.x2 && box.y1 < bounds.y2 && bounds.y1 < box.y2;
}

}  // namespace retina_ops
