// The RetinaNet loss on CUDA in two launches for any batch, levels and memory format. No torch.
//
// Floors for float32: 8 bytes a logit (4 for half), 32 bytes an anchor for deltas and their gradient, and about 45
// fused operations a logit. A block works on one level. By anchor, a thread takes packs of 16 bytes of the flat logits;
// planar, it takes a pack of neighbouring cells through kPlaneClasses planes, so that their class targets, which lie
// far apart, are found once.
#pragma once

#include "common/block.cuh"
#include "common/divider.cuh"
#include "common/head_levels.h"
#include "common/vector.cuh"
#include "focal_loss/focal_loss.h"
#include "retinanet_loss/retinanet_loss.h"

namespace retina_ops {

constexpr int kLossThreads = 256;
// Blocks that a multiprocessor must hold, which is how many registers ptxas may use before it spills.
template <class T, Gamma G>
constexpr int kLogitBlocks = sizeof(T) == 4 && G != Gamma::kAny   ? 3
                             : sizeof(T) == 2 && G == Gamma::kAny ? 1
                                                                  : 2;
constexpr int kBoxBlocks = 2;
constexpr int64_t kLossMaxBlocks = 2048;  // fixed, so that sums do not depend on the device; a few more for rounding
constexpr int64_t kPlaneClasses = 16;     // planes that a thread takes with one pack of cells

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

template <class T>
struct ClassificationArguments : LossArguments<T> {
  using A = ArithmeticOf<T>;
  Divider classes;
  A positive_weight;
  A negative_weight;
  double gamma;
};

template <class T>
struct BoxLossArguments : LossArguments<T> {
  using A = ArithmeticOf<T>;
  const A* anchor_boxes;  // [anchors, 4]
  const A* gt_boxes;      // [batch, capacity, 4]
  BoxCoding<A> coding;
  A beta;
  bool boxes_aligned;  // 16-byte accesses to both kinds of boxes
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

template <class T>
__device__ __forceinline__ int32_t target_at(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                             int64_t image, int64_t anchor) {
  const int64_t match = a.matches[image * a.anchors + level.first_anchor + anchor];
  return static_cast<int32_t>(class_target(match, a.labels + image * a.capacity, a.capacity, a.classes.divisor));
}

// Loss and derivative of one logit, of class k, whose anchor's target is `target`.
template <class T, Gamma G>
__device__ __forceinline__ void loss_of_logit(const ClassificationArguments<T>& a, ArithmeticOf<T> x, int64_t k,
                                              int32_t target, const LossScale<ArithmeticOf<T>>& scale,
                                              ArithmeticOf<T>& loss, ArithmeticOf<T>& derivative) {
  using A = ArithmeticOf<T>;
  const bool positive = k == target;
  const FocalTerms<A> terms =
      focal_hard<A, G, 1, FusedMath>(positive ? x : -x, focal_exponential<A, FusedMath>(x), a.gamma);
  A weight = positive ? a.positive_weight : a.negative_weight;
  if (target == kBadLabel) weight = not_a_number<A>();
  const bool ignored = target == kIgnoredAnchor;  // selected away, whatever the logit is
  loss = ignored ? A(0) : terms.loss * (weight * scale.loss);
  derivative = ignored ? A(0) : terms.derivative * ((positive ? weight : -weight) * scale.gradient);
}

// Logits by anchor: this thread's packs of the flat array.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_rows(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                               const LossPlace& place) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = 16 / sizeof(T);
  const int64_t classes = a.classes.divisor;
  const int64_t n = a.batch * level.cells * classes;
  const int64_t stride = place.blocks * kLossThreads * kPack;
  double sum = 0.0;
  int64_t scaled = -1;  // the image of `scale`: a division of doubles, which changes seldom
  LossScale<A> scale{};
  for (int64_t at = a.first_image * level.cells * classes + (place.block * kLossThreads + threadIdx.x) * kPack; at < n;
       at += stride) {
    A x[kPack], loss[kPack], derivative[kPack];
    load_pack(level.values + at, n - at, level.aligned, x);
    const int64_t row = a.classes(at);
    int64_t column = at - row * classes;
    int64_t image = level.by_cells(row);
    int64_t anchor = row - image * level.cells;
    int32_t target = target_at(a, level, image, anchor);
    if (image != scaled) scale = scale_of(a, scaled = image);
    A pack_sum = A(0);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (column == classes) {
        column = 0;
        ++anchor;
        if (anchor == level.cells) {
          anchor = 0;
          ++image;
        }
        if (at + i < n) {
          target = target_at(a, level, image, anchor);
          if (image != scaled) scale = scale_of(a, scaled = image);
        }
      }
      loss_of_logit<T, G>(a, x[i], column, target, scale, loss[i], derivative[i]);
      pack_sum += at + i < n ? loss[i] : A(0);
      ++column;
    }
    sum += static_cast<double>(pack_sum);
    if (level.gradient != nullptr) store_pack(level.gradient + at, n - at, level.aligned, derivative);
  }
  return sum;
}

// Planar logits: this thread's packs of cells, each through some of the planes.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_planes(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                                 const LossPlace& place) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = 16 / sizeof(T);
  const int64_t classes = a.classes.divisor;
  const int64_t packs = level.by_cells.divisor;
  const int64_t chunks = ceil_div<int64_t>(classes, kPlaneClasses);
  const int64_t items = (a.batch - a.first_image) * level.per_cell * chunks * packs;
  double sum = 0.0;
  for (int64_t item = place.block * kLossThreads + threadIdx.x; item < items; item += place.blocks * kLossThreads) {
    const int64_t group = level.by_cells(item);
    const int64_t cell = (item - group * packs) * kPack;
    const int64_t set = group / chunks;  // of planes: an anchor of the cells of an image
    const int64_t chunk = group - set * chunks;
    const int64_t image_before = level.by_per_cell(set);
    const int64_t in_cell = set - image_before * level.per_cell;
    const int64_t image = a.first_image + image_before;
    const LossScale<A> scale = scale_of(a, image);
    int32_t target[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      target[i] = cell + i < level.cells ? target_at(a, level, image, (cell + i) * level.per_cell + in_cell)
                                         : static_cast<int32_t>(kIgnoredAnchor);
    }
    const int64_t first = chunk * kPlaneClasses;
    const int64_t last = first + kPlaneClasses < classes ? first + kPlaneClasses : classes;
    int64_t at = ((image * level.per_cell + in_cell) * classes + first) * level.cells + cell;
    for (int64_t k = first; k < last; ++k, at += level.cells) {
      A x[kPack], loss[kPack], derivative[kPack];
      load_pack(level.values + at, level.cells - cell, level.aligned, x);
      A pack_sum = A(0);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        loss_of_logit<T, G>(a, x[i], k, target[i], scale, loss[i], derivative[i]);
        pack_sum += loss[i];
      }
      sum += static_cast<double>(pack_sum);
      if (level.gradient != nullptr) store_pack(level.gradient + at, level.cells - cell, level.aligned, derivative);
    }
  }
  return sum;
}

// launch: a block of kLossThreads for each level at least; blocks of a level follow each other.
template <class T, Gamma G>
__global__ void __launch_bounds__(kLossThreads, kLogitBlocks<T, G>)
    retinanet_classification_kernel(ClassificationArguments<T> a) {
  const LossPlace place = loss_place(a);
  const LossLevel<T>& level = a.level[place.level];
  clear_gap(level, a.batch * level.cells * level.per_cell * a.classes.divisor, place);
  const double sum = level.is_planar ? loss_of_planes<T, G>(a, level, place) : loss_of_rows<T, G>(a, level, place);
  double total = 0.0;
  if (a.result == nullptr || !grid_sum<kLossThreads>(sum, a.partial, a.done, total)) return;
  *a.result = static_cast<ArithmeticOf<T>>(total);
}

// The box loss of the foreground anchors, and zeros as the gradient of all others. launch: as above.
template <class T, BoxLoss K>
__global__ void __launch_bounds__(kLossThreads, kBoxBlocks) retinanet_box_kernel(BoxLossArguments<T> a) {
  using A = ArithmeticOf<T>;
  const LossPlace place = loss_place(a);
  const LossLevel<T>& level = a.level[place.level];
  const int64_t items = a.batch * level.cells * level.per_cell;
  clear_gap(level, 4 * items, place);
  double sum = 0.0;
  for (int64_t item = a.first_image * level.cells * level.per_cell + place.block * kLossThreads + threadIdx.x;
       item < items; item += place.blocks * kLossThreads) {
    const int64_t set = level.by_cells(item);
    const int64_t cell = item - set * level.cells;
    const int64_t image = level.by_per_cell(set);
    const int64_t in_cell = set - image * level.per_cell;
    const int64_t anchor = level.first_anchor + cell * level.per_cell + in_cell;
    const int64_t match = a.matches[image * a.anchors + anchor];
    const int64_t step = level.is_planar ? level.cells : 1;  // from one delta to the next
    const int64_t at = level.is_planar ? set * 4 * level.cells + cell : 4 * item;
    A gradient[4] = {A(0), A(0), A(0), A(0)};
    if (match >= 0 && match < a.capacity) {
      A anchor_box[4], wanted[4];
      load_pack(a.anchor_boxes + 4 * anchor, 4, a.boxes_aligned, anchor_box);
      load_pack(a.gt_boxes + 4 * (image * a.capacity + match), 4, a.boxes_aligned, wanted);
      const Deltas<A> deltas{to_arithmetic(level.values[at]), to_arithmetic(level.values[at + step]),
                             to_arithmetic(level.values[at + 2 * step]), to_arithmetic(level.values[at + 3 * step])};
      const BoxLossTerms<A> terms = box_loss<K, A, FusedMath>(
          a.coding, a.beta, deltas, {anchor_box[0], anchor_box[1], anchor_box[2], anchor_box[3]},
          {wanted[0], wanted[1], wanted[2], wanted[3]});
      const LossScale<A> scale = scale_of(a, image);
      sum += static_cast<double>(terms.loss * scale.loss);
      gradient[0] = terms.gradient.dx * scale.gradient;
      gradient[1] = terms.gradient.dy * scale.gradient;
      gradient[2] = terms.gradient.dw * scale.gradient;
      gradient[3] = terms.gradient.dh * scale.gradient;
    }
    if (level.gradient == nullptr) continue;
    if (level.is_planar) {
#pragma unroll
      for (int c = 0; c < 4; ++c) level.gradient[at + c * step] = from_arithmetic<T>(gradient[c]);
    } else {
      store_pack(level.gradient + at, 4, level.aligned, gradient);
    }
  }
  double total = 0.0;
  if (a.result == nullptr || !grid_sum<kLossThreads>(sum, a.partial, a.done, total)) return;
  *a.result = static_cast<A>(total);
}

}  // namespace retina_ops
