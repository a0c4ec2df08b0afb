// What the two kernels of the RetinaNet loss share: the levels, and which of them a block computes. No torch.
#pragma once

#include "common/block.cuh"
#include "common/divider.cuh"
#include "common/head_levels.cuh"
#include "common/vector.cuh"
#include "focal_loss/focal_loss.h"
#include "retinanet_loss/retinanet_loss.h"

namespace retina_ops {

constexpr int kLossThreads = 256;
// Blocks, plus a few for rounding. The numbers are fixed, so that sums do not depend on the device. Logits by anchor
// fill 132 multiprocessors in whole waves of 2, 3 or 4 blocks each. Planar, each thread computes a single item if it
// can, since an item is long.
constexpr int64_t kLossMaxBlocks = 1584;
constexpr int64_t kPlanarMaxBlocks = 16384;

// A level, as an argument of the kernels.
template <class T>
struct LossLevel {
  const T* values;
  T* gradient;       // of the level, or null
  int64_t cells;     // by anchor: anchors per image
  int64_t per_cell;  // by anchor: 1
  int64_t first_anchor;
  int64_t gap;          // zeros to write after the gradient
  int64_t first_block;  // of the blocks that compute this level
  Divider by_cells;     // divides by cells; planar logits: by the packs of a plane
  Divider by_per_cell;
  bool is_planar;
  bool aligned;  // 16-byte accesses are allowed
  int access;  // planar logits: bytes of the widest access that every plane allows, 16, 8, 4, or 0 for single elements
};

// Arguments that both kernels share. Arrays are contiguous.
template <class T>
struct LossArguments {
  using A = ArithmeticOf<T>;
  LossLevel<T> level[kMaxLevels];
  int count;
  int64_t first_image;  // images [first_image, batch) are computed
  int64_t batch;
  int64_t anchors;           // per image
  const int64_t* matches;    // [batch, anchors]
  const int64_t* labels;     // [batch, capacity]
  int64_t capacity;          // boxes per image, padded
  const double* normalizer;  // [batch]
  const double* upstream;    // [] factor of the gradient, or null for 1
  double* partial;           // [blocks]
  unsigned* done;            // [] zero before and after
  A* result;                 // [], or null: the gradient alone
};

// The level that this block computes, this block's number among the blocks of the level, and how many they are.
struct LossPlace {
  int level;
  int64_t block;
  int64_t blocks;
};

template <class T>
__device__ __forceinline__ LossPlace loss_place(const LossArguments<T>& args) {
  const int64_t block = blockIdx.x;
  int level = 0;
  while (level + 1 < args.count && block >= args.level[level + 1].first_block) ++level;
  const int64_t end = level + 1 < args.count ? args.level[level + 1].first_block : static_cast<int64_t>(gridDim.x);
  return {level, block - args.level[level].first_block, end - args.level[level].first_block};
}

// Writes the zeros between the gradient of this level, which ends at `end`, and that of the next.
template <class T>
__device__ __forceinline__ void clear_gap(const LossLevel<T>& level, int64_t end, const LossPlace& place) {
  if (level.gradient == nullptr || place.block != 0) return;
  for (int64_t i = threadIdx.x; i < level.gap; i += kLossThreads) {
    level.gradient[end + i] = from_arithmetic<T>(ArithmeticOf<T>(0));
  }
}

// Factors of the loss and of the gradient of an image.
template <class A>
struct LossScale {
  A loss;
  A gradient;
};

template <class T>
__device__ __forceinline__ LossScale<ArithmeticOf<T>> scale_of(const LossArguments<T>& args, int64_t image) {
  using A = ArithmeticOf<T>;
  const double scale = 1.0 / args.normalizer[image];
  return {static_cast<A>(scale), static_cast<A>(args.upstream != nullptr ? scale * *args.upstream : scale)};
}

}  // namespace retina_ops
