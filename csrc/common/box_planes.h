// Blocks of boxes on the CPU with their coordinates apart, so that formulas over them become vectors. No torch.
#pragma once

#include "common/box.h"
#include "common/half_block.h"

namespace retina_ops {

constexpr int kPlaneBoxes = 64;  // a block

// The coordinates of a block of boxes, or of anything with four values: one array each.
template <class T>
struct Planes {
  static constexpr int kValues = 4 * kPlaneBoxes;
  alignas(64) T a[kPlaneBoxes];
  alignas(64) T b[kPlaneBoxes];
  alignas(64) T c[kPlaneBoxes];
  alignas(64) T d[kPlaneBoxes];

  // Boxes [first, first + boxes) of `from`, [n, 4]; the block's others become zeros.
  RETINA_OPS_HOST_DEVICE void load(const void* from, Dtype dtype, int64_t first, int boxes) {
    alignas(64) T values[kValues];
    load_block<kValues>(from, dtype, 4 * first, values, 4 * boxes);
    for (int i = 0; i < kPlaneBoxes; ++i) {
      a[i] = values[4 * i];
      b[i] = values[4 * i + 1];
      c[i] = values[4 * i + 2];
      d[i] = values[4 * i + 3];
    }
  }
  RETINA_OPS_HOST_DEVICE void store(void* to, Dtype dtype, int64_t first, int boxes) const {
    alignas(64) T values[kValues];
    for (int i = 0; i < kPlaneBoxes; ++i) {
      values[4 * i] = a[i];
      values[4 * i + 1] = b[i];
      values[4 * i + 2] = c[i];
      values[4 * i + 3] = d[i];
    }
    store_block<kValues>(to, dtype, 4 * first, values, 4 * boxes);
  }
  RETINA_OPS_HOST_DEVICE Box<T> box(int i) const { return {a[i], b[i], c[i], d[i]}; }
  RETINA_OPS_HOST_DEVICE void put(int i, const Box<T>& box) {
    a[i] = box.x1;
    b[i] = box.y1;
    c[i] = box.x2;
    d[i] = box.y2;
  }
};

}  // namespace retina_ops
