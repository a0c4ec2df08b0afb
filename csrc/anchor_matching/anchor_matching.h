// The rule that matches anchors to ground-truth boxes. Host and device, no torch.
//
// Ren et al. 2015, "Faster R-CNN", section 3.1.2, as implemented by torchvision's Matcher. The match of an anchor is
// the box with which its IoU is highest (the lowest index among equals). The anchor is foreground if that IoU is at
// least `fg`, background if it is below `bg`, and ignored in between. With low-quality matches an anchor is also
// foreground if its IoU with some box is the highest that this box has with any anchor; a box that overlaps no anchor
// has no such match, and neither has one whose highest IoU is below `low_quality`.
#pragma once

#include "common/box.h"

namespace retina_ops {

constexpr int64_t kBackground = -1;
constexpr int64_t kBetween = -2;

// Until all boxes' highest IoUs are known, an anchor's entry is provisional: its best box and the code that follows
// from its own IoU.
enum class MatchCode : int64_t { kForeground = 0, kBackground = 1, kBetween = 2 };

template <class T>
struct MatchThresholds {
  T fg;           // an anchor is foreground if its IoU is at least this
  T bg;           // an anchor is background if its IoU is below this
  T iof;          // an ignore region covers an anchor if intersection / anchor area is at least this
  T low_quality;  // a box has low-quality matches if its highest IoU is at least this, and above 0
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

// Whether pairs without overlap may be left out. Their IoU is 0, so they may be if an anchor with IoU 0 is background.
template <class T>
RETINA_OPS_HOST_DEVICE bool only_overlaps_matter(const MatchThresholds<T>& thresholds) {
  return T(0) < thresholds.bg && thresholds.bg <= thresholds.fg;
}

// The smallest box around several boxes, without their NaN coordinates. A box that overlaps one of them overlaps it.
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
