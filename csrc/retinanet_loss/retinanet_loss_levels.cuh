// What the two kernels of the RetinaNet loss share: the levels, and a block's place among them. No torch.
#pragma once

#include "common/block.cuh"
#include "common/divider.cuh"
#include "common/head_levels.h"
#include "common/vector.cuh"
#include "focal_loss/focal_loss.h"
#include "retinanet_loss/retinanet_loss.h"

namespace retina_ops {

constexpr int kLossThreads = 256;
// Fixed, so that sums do not depend on the device; a few more for rounding. By anchor, whole waves of 2, 3 or 4 on each
// of 132 multiprocessors; planar, a thread takes one item wherever it can: they are long.
constexpr int64_t kLossMaxBlocks = 1584;
constexpr int64_t kPlanarMaxBlocks = 16384;

// A level as the kernels see it.
template <class T>
struct LossLevel {
  const T* values;
  T* gradient;       // of the level, or null
  int64_t cells;     // by anchor: anchors of an image
  int64_t per_cell;  // by anchor: 1
  int64_t first_anchor;
  int64_t gap;          // zeros to write after the gradient
  int64_t first_block;  // of those that work on this level
  Divider by_cells;     // cells; planar logits: packs of a plane
  Divider by_per_cell;
  bool is_planar;
  bool aligned;  // 16-byte accesses
  int access;    // planar logits: bytes of an access that every plane allows, 16, 8, 4 or fewer
};

// What both kernels share. Arrays are contiguous.
template <class T>
struct LossArguments {
  using A = ArithmeticOf<T>;
  LossLevel<T> level[kMaxLevels];
  int count;
  int64_t first_image;  // images [first_image, batch) are computed: 0 but in tests of large indices
  int64_t batch;
  int64_t anchors;           // of an image
  const int64_t* matches;    // [batch, anchors]
  const int64_t* labels;     // [batch, capacity]
  int64_t capacity;          // boxes of an image, padded
  const double* normalizer;  // [batch]
  const double* upstream;    // [] factor of the gradient, or null for 1
  double* partial;           // [blocks]
  unsigned* done;            // [] zero before and after
  A* result;                 // [] or null: the gradient alone
};

// The level that this block works on, the blocks that share it, and this block's place among them.
struct LossPlace {
  int level;
  int64_t block;
  int64_t blocks;
};

template <class T>
__device__ __forceinline__ LossPlace loss_place(const LossArguments<T>& a) {
  const int64_t block = blockIdx.x;
  int level = 0;
  while (level + 1 < a.count && block >= a.level[level + 1].first_block) ++level;
  const int64_t end = level + 1 < a.count ? a.level[level + 1].first_block : static_cast<int64_t>(gridDim.x);
  return {level, block - a.level[level].first_block, end - a.level[level].first_block};
}

template <class T>
__device__ __forceinline__ void clear_gap(const LossLevel<T>& level, int64_t end, const LossPlace& place) {
  if (level.gradient == nullptr || place.block != 0) return;
  for (int64_t i = threadIdx.x; i < level.gap; i += kLossThreads) {
    level.gradient[end + i] = from_arithmetic<T>(ArithmeticOf<T>(0));
  }
}

// What an image's loss and gradient are multiplied by.
template <class A>
struct LossScale {
  A loss;
  A gradient;
};

template <class T>
__device__ __forceinline__ LossScale<ArithmeticOf<T>> scale_of(const LossArguments<T>& a, int64_t image) {
  using A = ArithmeticOf<T>;
  const double scale = 1.0 / a.normalizer[image];
  return {static_cast<A>(scale), static_cast<A>(a.upstream != nullptr ? scale * *a.upstream : scale)};
}

}  // namespace retina_ops
