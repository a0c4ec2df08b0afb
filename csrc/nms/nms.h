// Non-maximum suppression: the rule, the problem that a call describes, and its solution on the CPU. No torch.
//
// The boxes of a class are taken in descending order of score, equal scores in input order. A box is kept unless a box
// that was kept before it overlaps it with an IoU above the threshold. An IoU of NaN (two boxes without area)
// suppresses nothing; a box with a NaN score is never kept.
#pragma once

#include <vector>

#include "common/box.h"
#include "common/half_block.h"
#include "common/parallel.h"

namespace retina_ops {

// The largest T that is at most `threshold`: for an iou of type T, iou > this exactly where iou > threshold as doubles.
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

// One call of the operator. Arrays are contiguous; arithmetic is in float, or double for float64 boxes.
struct NmsProblem {
  const void* boxes;  // [n, 4]
  Dtype box_dtype;
  const void* scores;  // [n]
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null: all boxes are of one class
  int64_t n;
  double threshold;
};

// On the CPU: the indices of the kept boxes in descending order of score, at most `limit` of them.
std::vector<int32_t> nms_keep(const NmsProblem& problem, int64_t limit, ParallelFor parallel);

}  // namespace retina_ops
