// Non-maximum suppression: which box suppresses which. Host and device, no torch.
//
// Greedy, in descending order of score, ties in input order: a box is kept unless a kept box before it, of its class,
// overlaps it with an IoU above the threshold. NaN IoU (two boxes without area) suppresses nothing; a NaN score is
// never kept.
#pragma once

#include "common/box.h"

namespace retina_ops {

// The largest T at most `threshold`: iou > threshold as doubles exactly where iou > this as T.
template <class T>
inline T threshold_below(double threshold) {
  const T rounded = static_cast<T>(threshold);
  return static_cast<double>(rounded) > threshold ? std::nextafter(rounded, -std::numeric_limits<T>::infinity())
                                                  : rounded;
}

template <class T>
RETINA_OPS_HOST_DEVICE bool suppresses(const Box<T>& kept, T kept_area, const Box<T>& box, T area, T threshold) {
  return box_iou(kept, kept_area, box, area) > threshold;
}

}  // namespace retina_ops
