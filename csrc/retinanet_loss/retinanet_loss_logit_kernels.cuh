// The focal loss of all logits of the RetinaNet loss on CUDA, in one launch for all images and all levels of one memory
// format. No torch.
//
// Lower bounds: 8 bytes per float32 logit (4 for half dtypes), and about 45 (25) fused operations. A block computes
// part of one level. By anchor, a thread computes packs of the flat logits. Planar, it computes 16 bytes of
// neighbouring cells in kPlaneClasses planes, so that the class targets of the cells, which are far apart in memory,
// are read once.
#pragma once

#include "focal_loss/focal_loss_pack.cuh"
#include "retinanet_loss/retinanet_loss_levels.cuh"

namespace retina_ops {

// Blocks that a multiprocessor must be able to run at once. They limit the registers that ptxas uses before it spills.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000  // where the same code needs more registers
template <class T, Gamma G, bool kPlanar>
constexpr int kLogitBlocks = 2;
#else
template <class T, Gamma G, bool kPlanar>
constexpr int kLogitBlocks = sizeof(T) == 8 || G == Gamma::kAny ? 2
                             : sizeof(T) == 4 && kPlanar        ? 4
                                                                : 3;
#endif
constexpr int kPlaneClasses = 16;  // planes per thread and pack of cells: their numbers fit four bits

template <class T>
struct ClassificationArguments : LossArguments<T> {
  using A = ArithmeticOf<T>;
  Divider classes;
  A positive_weight;
  A negative_weight;
  double gamma;
};

template <class T>
__device__ __forceinline__ int32_t target_at(const ClassificationArguments<T>& args, const LossLevel<T>& level,
                                             int64_t image, int64_t anchor) {
  const int64_t match = args.matches[image * args.anchors + level.first_anchor + anchor];
  return static_cast<int32_t>(
      class_target(match, args.labels + image * args.capacity, args.capacity, args.classes.divisor));
}

// Factors of the loss and gradient of one image's positive or negative logits, which have this `weight`.
template <class T>
__device__ __forceinline__ PackWeights<ArithmeticOf<T>> weights_of(const LossArguments<T>& args, int64_t image,
                                                                   ArithmeticOf<T> weight) {
  const LossScale<ArithmeticOf<T>> scale = scale_of(args, image);
  return {weight * scale.loss, weight * scale.gradient};
}

// The targets of an anchor's logits. Class `column` of the anchor is element `first` of the pack. labels: of its image.
template <int kPack, class T>
__device__ __forceinline__ PackTargets targets_of(const ClassificationArguments<T>& args, int64_t match,
                                                  const int64_t* labels, int column, int first) {
  const int64_t classes = args.classes.divisor;
  return row_targets<kPack>(class_target(match, labels, args.capacity, classes), static_cast<int>(classes),
                            kIgnoredAnchor, column, first);
}

// Elements [begin, end) of a level by anchor, one at a time: for rows shorter than a pack, and where two images share a
// pack.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_elements(const ClassificationArguments<T>& args, const LossLevel<T>& level,
                                                   int64_t begin, int64_t end, int64_t stride) {
  using A = ArithmeticOf<T>;
  double sum = 0.0;
  for (int64_t at = begin; at < end; at += stride) {
    const int64_t row = args.classes(at);
    const int64_t image = level.by_cells(row);
    const int64_t match = args.matches[image * (args.anchors - level.cells) + level.first_anchor + row];
    const A x[1] = {to_arithmetic(level.values[at])};
    A derivative[1];
    const auto corrections = [&] {
      const int column = static_cast<int>(at - row * args.classes.divisor);
      return PackCorrections<A>{targets_of<1>(args, match, args.labels + image * args.capacity, column, 0),
                                weights_of(args, image, args.positive_weight)};
    };
    sum += static_cast<double>(pack_loss<G, PackMath<T>>(x, false, weights_of(args, image, args.negative_weight),
                                                         args.gamma, derivative, corrections));
    if (level.gradient != nullptr) level.gradient[at] = from_arithmetic<T>(derivative[0]);
  }
  return sum;
}

// Logits by anchor: this thread's packs of the flat array. It loads its next pack before it computes the current one.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_rows(const ClassificationArguments<T>& args, const LossLevel<T>& level,
                                               const LossPlace& place) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kRowPack<T>;
  const int classes = static_cast<int>(args.classes.divisor);
  const int64_t n = args.batch * level.cells * classes;
  const int64_t start = args.first_image * level.cells * classes;
  const int64_t thread = place.block * kLossThreads + threadIdx.x;
  if (classes < kPack) return loss_of_elements<T, G>(args, level, start + thread, n, place.blocks * kLossThreads);
  const int64_t stride = place.blocks * kLossThreads * kPack;
  int64_t at = start + thread * kPack;
  RowCursor cursor(args.classes, at, stride);
  // The current image: where its rows end, its matches by row, and the weights of its negatives.
  int64_t end = 0;
  const int64_t* matches = nullptr;
  PackWeights<A> weights{};
  bool is_new = false;  // `weights` are still those of the image before
  const auto matches_of = [&](int64_t image) {
    return args.matches + image * (args.anchors - level.cells) + level.first_anchor;
  };
  double sum = 0.0;
  Pack<T, kPack> next;
  int64_t match = 0, match_after = 0;  // of the pack's row, and of the next row if it is of the same image
  const auto read = [&] {
    next = read_pack<kPack>(level.values + at, n - at, level.aligned);
    if (cursor.row >= end) {
      const int64_t image = level.by_cells(cursor.row);
      end = (image + 1) * level.cells;
      matches = matches_of(image);
      is_new = true;
    }
    match = matches[cursor.row];
    match_after = classes - cursor.column < kPack && cursor.row + 1 < end ? matches[cursor.row + 1] : kBackgroundMatch;
  };
  if (at < n) read();
  while (at < n) {
    A x[kPack], derivative[kPack];
    convert_pack(next, x);
    if (is_new) weights = weights_of(args, level.by_cells(cursor.row), args.negative_weight);
    is_new = false;
    const int64_t current = at;
    const int column = cursor.column;
    const int left = classes - column;  // elements to the end of the row
    // The pack also has elements of the next image, or ends past the last row.
    const bool is_shared = left < kPack && cursor.row + 1 == end;
    const bool is_plain = match == kBackgroundMatch && match_after == kBackgroundMatch && !is_shared;
    at += stride;
    cursor.advance(classes);
    if (at < n) read();
    const auto corrections = [&] {  // rarely called, so it computes the row again
      const int64_t row = args.classes(current);
      const int64_t image = level.by_cells(row);
      const int64_t* labels = args.labels + image * args.capacity;
      const int64_t* row_matches = matches_of(image) + row;
      PackTargets targets = targets_of<kPack>(args, row_matches[0], labels, column, 0);
      if (left < kPack) targets.keep_before(left);
      if (is_shared) targets.ignore_from(left);
      if (left < kPack && !is_shared) targets.add(targets_of<kPack>(args, row_matches[1], labels, 0, left));
      return PackCorrections<A>{targets, weights_of(args, image, args.positive_weight)};
    };
    sum += static_cast<double>(pack_loss<G, PackMath<T>>(x, is_plain, weights, args.gamma, derivative, corrections));
    if (level.gradient != nullptr) {
      store_pack(level.gradient + current, is_shared ? left : n - current, level.aligned, derivative);
    }
  }
  // The elements that packs shared by two images have of the second image.
  for (int64_t image = args.first_image + 1 + thread; image < args.batch; image += place.blocks * kLossThreads) {
    const int64_t begin = image * level.cells * classes;
    const int64_t past = (begin - start) % kPack;
    const int64_t stop = past == 0 ? begin : begin + kPack - past;
    sum += loss_of_elements<T, G>(args, level, begin, stop < n ? stop : n, 1);
  }
  return sum;
}

// Planar logits: this thread's packs of cells, each in up to kPlaneClasses planes.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_planes(const ClassificationArguments<T>& args, const LossLevel<T>& level,
                                                 const LossPlace& place) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kFocalPack<T>;
  const int64_t classes = args.classes.divisor;
  const int64_t packs = level.by_cells.divisor;
  const int64_t chunks = ceil_div<int64_t>(classes, kPlaneClasses);
  const int64_t items = (args.batch - args.first_image) * level.per_cell * chunks * packs;
  double sum = 0.0;
  for (int64_t item = place.block * kLossThreads + threadIdx.x; item < items; item += place.blocks * kLossThreads) {
    const int64_t group = level.by_cells(item);
    const int64_t cell = (item - group * packs) * kPack;
    const int64_t set = group / chunks;  // a set of planes: one anchor per cell, of one image
    const int64_t first = (group - set * chunks) * kPlaneClasses;
    const int count = static_cast<int>(classes - first < kPlaneClasses ? classes - first : kPlaneClasses);
    const int64_t image_before = level.by_per_cell(set);
    const int64_t in_cell = set - image_before * level.per_cell;
    const int64_t image = args.first_image + image_before;
    const int64_t available = level.cells - cell;
    const PackWeights<A> weights = weights_of(args, image, args.negative_weight);
    PackTargets targets{0u, 0u, 0u};  // the same for all planes, except the positives
    unsigned hit = 0;                 // planes with a positive, one bit each
    unsigned plane_of = 0;            // plane of each cell's positive, four bits each
    unsigned any = 0;                 // cells with a positive in these planes, one bit each
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const int64_t target = i < available ? target_at(args, level, image, (cell + i) * level.per_cell + in_cell)
                                           : static_cast<int32_t>(kIgnoredAnchor);
      targets.ignored |= target == kIgnoredAnchor ? 1u << i : 0u;
      targets.bad |= target == kBadLabel ? 1u << i : 0u;
      if (target >= first && target < first + count) {
        any |= 1u << i;
        plane_of |= static_cast<unsigned>(target - first) << (4 * i);
        hit |= 1u << (target - first);
      }
    }
    int64_t at = ((image * level.per_cell + in_cell) * classes + first) * level.cells + cell;
    Pack<T, kPack> next = read_plane<kPack>(level.values + at, available, level.access);
    for (int k = 0; k < count; ++k) {
      A x[kPack], derivative[kPack];
      convert_pack(next, x);
      const int64_t current = at;
      at += level.cells;
      if (k + 1 < count) next = read_plane<kPack>(level.values + at, available, level.access);
      const bool is_hit = (hit >> k & 1u) != 0;
      const auto corrections = [&] {
        PackTargets plane_targets = targets;
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          plane_targets.positive |=
              (any >> i & 1u) != 0 && static_cast<int>(plane_of >> (4 * i) & 15u) == k ? 1u << i : 0u;
        }
        return PackCorrections<A>{plane_targets, weights_of(args, image, args.positive_weight)};
      };
      sum += static_cast<double>(pack_loss<G, PackMath<T>>(x, !is_hit && (targets.ignored | targets.bad) == 0, weights,
                                                           args.gamma, derivative, corrections));
      if (level.gradient != nullptr) store_plane(level.gradient + current, available, level.access, derivative);
    }
  }
  return sum;
}

// The levels are all planar, or all by anchor. adds: the sum is added to *args.result.
// launch: at least one block of kLossThreads per level; the blocks of a level are contiguous.
template <class T, Gamma G, bool kPlanar>
__global__ void __launch_bounds__(kLossThreads, kLogitBlocks<T, G, kPlanar>)
    retinanet_classification_kernel(ClassificationArguments<T> args, bool adds) {
  const LossPlace place = loss_place(args);
  const LossLevel<T>& level = args.level[place.level];
  clear_gap(level, args.batch * level.cells * level.per_cell * args.classes.divisor, place);
  double sum = 0.0;
  if constexpr (kPlanar) {
    sum = loss_of_planes<T, G>(args, level, place);
  } else {
    sum = loss_of_rows<T, G>(args, level, place);
  }
  double total = 0.0;
  if (args.result == nullptr || !grid_sum<kLossThreads>(sum, args.partial, args.done, total)) return;
  *args.result = static_cast<ArithmeticOf<T>>(total) + (adds ? *args.result : ArithmeticOf<T>(0));
}

}  // namespace retina_ops
