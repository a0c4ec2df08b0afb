// Boxes of a segment with one array per coordinate, and the comparison of one box with many. CPU only, no torch.
//
// A BoxBlock (common/box_block.h) has a fixed number of boxes, on the stack. These arrays are as long as the segment
// and stay for the whole call.
#pragma once

#include <limits>
#include <vector>

#include "nms/nms.h"

namespace retina_ops {

// n boxes and their areas, and kLanes more boxes without area, so that a vector may read past the end.
template <class T>
struct BoxArrays {
  static constexpr size_t kLanes = 16;  // loops take multiples of this many boxes, which vectors of any width divide

  std::vector<T> x1, y1, x2, y2, area;

  BoxArrays() = default;
  explicit BoxArrays(size_t n) { resize(n); }

  void resize(size_t n) {
    for (std::vector<T>* values : {&x1, &y1, &x2, &y2, &area}) values->resize(n + kLanes);
  }
  size_t size() const { return area.size() - kLanes; }
  Box<T> box(size_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
  void set(size_t i, const Box<T>& box, T new_area) {
    x1[i] = box.x1;
    y1[i] = box.y1;
    x2[i] = box.x2;
    y2[i] = box.y2;
    area[i] = new_area;
  }
};

// Whether any of boxes [begin, end) suppresses `box`. Most pairs are decided without a division: a product shows that
// the intersection is well above or well below the threshold's share of the union. Only pairs in between, NaN, and
// pairs that could underflow are divided. Up to kLanes boxes past `end` are compared too: they must have no area, or be
// kept boxes of higher scores as well.
template <class T>
RETINA_OPS_HOST_DEVICE bool any_suppresses(const BoxArrays<T>& boxes, size_t begin, size_t end, const Box<T>& box,
                                           T area, T threshold) {
  constexpr size_t kLanes = BoxArrays<T>::kLanes;
  constexpr size_t kStep = 64;  // boxes compared before the results are looked at
  const T lower = threshold > T(0) ? threshold * T(1.0 - 1e-5) : threshold;
  const T upper = threshold >= T(1e-6) ? threshold * T(1.0 + 1e-5) : std::numeric_limits<T>::infinity();
  const T no_underflow = T(1e-30);
  for (size_t i = begin; i < end; i += kStep) {
    const size_t left = (end - i + kLanes - 1) / kLanes * kLanes;
    const size_t count = left < kStep ? left : kStep;
    const T* x1 = boxes.x1.data() + i;
    const T* y1 = boxes.y1.data() + i;
    const T* x2 = boxes.x2.data() + i;
    const T* y2 = boxes.y2.data() + i;
    const T* areas = boxes.area.data() + i;
    int found = 0;  // bit 0: a pair is undecided; bit 1: a pair suppresses
    for (size_t k = 0; k < count; ++k) {
      const T intersection = box_intersection(Box<T>{x1[k], y1[k], x2[k], y2[k]}, box);
      const T union_area = areas[k] + area - intersection;
      const T bound = lower * union_area;
      found |= (intersection > upper * union_area) & (union_area > no_underflow) ? 2 : 0;
      found |= (intersection >= bound) | (bound != bound) | (union_area < T(0)) ? 1 : 0;
    }
    if (found > 1) return true;
    if (found == 0) continue;
    for (size_t k = i; k < end && k < i + kStep; ++k) {
      if (suppresses(boxes.box(k), boxes.area[k], box, area, threshold)) return true;
    }
  }
  return false;
}

}  // namespace retina_ops
