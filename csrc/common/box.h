// Boxes, their area, intersection and IoU: the only IoU in C++. Host and device, no torch.
//
// Operations are in torchvision's order, each is rounded by itself (neither the host compiler nor nvcc fuses any), and
// minima and maxima are ternaries. So CPU and CUDA give the same bits.
#pragma once

#include "common/host_device.h"

namespace retina_ops {

#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub_rn(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float div_rn(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ double add_rn(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double sub_rn(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double mul_rn(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double div_rn(double a, double b) { return __ddiv_rn(a, b); }
#else
template <class T>
RETINA_OPS_HOST_DEVICE T add_rn(T a, T b) {
  return a + b;
}
template <class T>
RETINA_OPS_HOST_DEVICE T sub_rn(T a, T b) {
  return a - b;
}
template <class T>
RETINA_OPS_HOST_DEVICE T mul_rn(T a, T b) {
  return a * b;
}
template <class T>
RETINA_OPS_HOST_DEVICE T div_rn(T a, T b) {
  return a / b;
}
#endif

// The minimum and maximum of two numbers; b where either is NaN, so that the intersection with a NaN box is NaN or 0.
template <class T>
RETINA_OPS_HOST_DEVICE T lesser(T a, T b) {
  return a < b ? a : b;
}
template <class T>
RETINA_OPS_HOST_DEVICE T greater(T a, T b) {
  return a > b ? a : b;
}

template <class T>
struct Box {
  T x1, y1, x2, y2;
};

template <class T>
RETINA_OPS_HOST_DEVICE T box_area(const Box<T>& box) {
  return mul_rn(sub_rn(box.x2, box.x1), sub_rn(box.y2, box.y1));
}

template <class T>
RETINA_OPS_HOST_DEVICE T box_intersection(const Box<T>& a, const Box<T>& b) {
  const T width = sub_rn(lesser(a.x2, b.x2), greater(a.x1, b.x1));
  const T height = sub_rn(lesser(a.y2, b.y2), greater(a.y1, b.y1));
  return mul_rn(width < T(0) ? T(0) : width, height < T(0) ? T(0) : height);
}

template <class T>
RETINA_OPS_HOST_DEVICE Box<T> scaled(const Box<T>& box, T factor) {
  return {box.x1 * factor, box.y1 * factor, box.x2 * factor, box.y2 * factor};
}

// Intersection over union of two boxes with precomputed areas. 0 / 0 is NaN, which exceeds no threshold.
template <class T>
RETINA_OPS_HOST_DEVICE T box_iou(const Box<T>& a, T area_a, const Box<T>& b, T area_b) {
  const T intersection = box_intersection(a, b);
  return div_rn(intersection, sub_rn(add_rn(area_a, area_b), intersection));
}

}  // namespace retina_ops
