// Blocks of boxes with one array per coordinate, so that the compiler vectorises formulas over boxes. CPU only, no
// torch.
#pragma once

#include "common/box.h"
#include "common/half_block.h"

namespace retina_ops {

constexpr int kBlockBoxes = 64;  // boxes per block, unless a kernel says otherwise

// Box `index` of `boxes` [n, 4].
template <class T>
RETINA_OPS_HOST_DEVICE Box<T> load_box(const void* boxes, Dtype dtype, int64_t index) {
  alignas(64) T values[4];
  load_block<4>(boxes, dtype, 4 * index, values, 4);
  return {values[0], values[1], values[2], values[3]};
}

// A fixed number of boxes, on the stack. It also holds anything else that has four values per box: deltas (dx, dy, dw,
// dh) and gradients.
template <class T, int kBoxes = kBlockBoxes>
struct BoxBlock {
  alignas(64) T x1[kBoxes];
  alignas(64) T y1[kBoxes];
  alignas(64) T x2[kBoxes];
  alignas(64) T y2[kBoxes];

  RETINA_OPS_HOST_DEVICE Box<T> box(int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
  RETINA_OPS_HOST_DEVICE void set(int i, const Box<T>& box) {
    x1[i] = box.x1;
    y1[i] = box.y1;
    x2[i] = box.x2;
    y2[i] = box.y2;
  }

  // Reads boxes [first, first + count) of `boxes` [n, 4]; the rest of the block becomes zeros.
  RETINA_OPS_HOST_DEVICE void load(const void* boxes, Dtype dtype, int64_t first, int count) {
    alignas(64) T values[4 * kBoxes];
    load_block<4 * kBoxes>(boxes, dtype, 4 * first, values, 4 * count);
    for (int i = 0; i < kBoxes; ++i) {
      x1[i] = values[4 * i];
      y1[i] = values[4 * i + 1];
      x2[i] = values[4 * i + 2];
      y2[i] = values[4 * i + 3];
    }
  }
  // Writes the first `count` boxes of the block to boxes [first, first + count) of `boxes`.
  RETINA_OPS_HOST_DEVICE void store(void* boxes, Dtype dtype, int64_t first, int count) const {
    alignas(64) T values[4 * kBoxes];
    for (int i = 0; i < kBoxes; ++i) {
      values[4 * i] = x1[i];
      values[4 * i + 1] = y1[i];
      values[4 * i + 2] = x2[i];
      values[4 * i + 3] = y2[i];
    }
    store_block<4 * kBoxes>(boxes, dtype, 4 * first, values, 4 * count);
  }
};

}  // namespace retina_ops
