// Boxes one array a coordinate, and the comparison of one box with many of them. CPU only, no torch.
#pragma once

#include <limits>
#include <vector>

#include "nms/nms.h"

namespace retina_ops {

constexpr size_t kLanes = 16;   // counts are rounded up to this, so that vectors of any width have no tail
constexpr size_t kAtOnce = 64;  // boxes compared before the first look at what they gave

// n boxes, and kLanes more without area, so that reading may go on past the end.
template <class T>
struct BoxArrays {
  std::vector<T> x1, y1, x2, y2, area;

  explicit BoxArrays(size_t n) : x1(n + kLanes), y1(n + kLanes), x2(n + kLanes), y2(n + kLanes), area(n + kLanes) {}
  size_t size() const { return area.size() - kLanes; }
  Box<T> box(size_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
  void set(size_t i, const Box<T>& box, T its_area) {
    x1[i] = box.x1;
    y1[i] = box.y1;
    x2[i] = box.x2;
    y2[i] = box.y2;
    area[i] = its_area;
  }
};

// Does any of boxes [begin, end) suppress this one? What a product decides needs no division: an intersection well
// above the threshold's share of the union does, one well below does not. Only what lies between, is not a number, or
// could underflow is divided. Up to kLanes boxes past `end` are looked at too: they must not be there, or be kept boxes
// of higher scores themselves.
template <class T>
RETINA_OPS_HOST_DEVICE bool any_suppresses(const BoxArrays<T>& boxes, size_t begin, size_t end, const Box<T>& box,
                                           T area, T threshold) {
  const T lower = threshold > T(0) ? threshold * T(1.0 - 1e-5) : threshold;
  const T upper = threshold >= T(1e-6) ? threshold * T(1.0 + 1e-5) : std::numeric_limits<T>::infinity();
  const T no_underflow = T(1e-30);
  for (size_t i = begin; i < end; i += kAtOnce) {
    const size_t left = (end - i + kLanes - 1) / kLanes * kLanes;
    const size_t count = left < kAtOnce ? left : kAtOnce;
    const T* x1 = boxes.x1.data() + i;
    const T* y1 = boxes.y1.data() + i;
    const T* x2 = boxes.x2.data() + i;
    const T* y2 = boxes.y2.data() + i;
    const T* areas = boxes.area.data() + i;
    int found = 0;  // bit 0: still open; bit 1: certain
    for (size_t k = 0; k < count; ++k) {
      const T intersection = box_intersection(Box<T>{x1[k], y1[k], x2[k], y2[k]}, box);
      const T united = areas[k] + area - intersection;
      const T bound = lower * united;
      found |= (intersection > upper * united) & (united > no_underflow) ? 2 : 0;
      found |= (intersection >= bound) | (bound != bound) | (united < T(0)) ? 1 : 0;
    }
    if (found > 1) return true;
    if (found == 0) continue;
    for (size_t k = i; k < end && k < i + kAtOnce; ++k) {
      if (suppresses(boxes.box(k), boxes.area[k], box, area, threshold)) return true;
    }
  }
  return false;
}

}  // namespace retina_ops
