// Boxes of a dtype that is known at run time, in one access per box. All threads take the same branch, so one kernel
// serves every dtype. No torch.
#pragma once

#include "common/box.h"
#include "common/half_block.h"
#include "common/vector.cuh"

namespace retina_ops {

template <class A, class T>
__device__ __forceinline__ Box<A> load_typed(const void* boxes, int64_t i, bool aligned) {
  A values[4];
  load_pack(static_cast<const T*>(boxes) + 4 * i, 4, aligned, values);
  return {values[0], values[1], values[2], values[3]};
}

template <class A>
__device__ __forceinline__ Box<A> load_box_of(const void* boxes, Dtype dtype, int64_t i, bool aligned) {
  if constexpr (sizeof(A) == sizeof(double)) {
    return load_typed<A, double>(boxes, i, aligned);
  } else {
    if (dtype == Dtype::kFloat32) return load_typed<A, float>(boxes, i, aligned);
    if (dtype == Dtype::kFloat16) return load_typed<A, __half>(boxes, i, aligned);
    return load_typed<A, __nv_bfloat16>(boxes, i, aligned);
  }
}

// boxes[i] = factor * box.
template <class A>
__device__ __forceinline__ void store_box_of(void* boxes, Dtype dtype, int64_t i, bool aligned, const Box<A>& box,
                                             A factor) {
  const A values[4] = {box.x1 * factor, box.y1 * factor, box.x2 * factor, box.y2 * factor};
  if constexpr (sizeof(A) == sizeof(double)) {
    store_pack(static_cast<double*>(boxes) + 4 * i, 4, aligned, values);
  } else {
    if (dtype == Dtype::kFloat32) return store_pack(static_cast<float*>(boxes) + 4 * i, 4, aligned, values);
    if (dtype == Dtype::kFloat16) return store_pack(static_cast<__half*>(boxes) + 4 * i, 4, aligned, values);
    store_pack(static_cast<__nv_bfloat16*>(boxes) + 4 * i, 4, aligned, values);
  }
}

}  // namespace retina_ops
