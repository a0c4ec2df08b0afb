// The focal loss of all logits of the RetinaNet loss on CUDA, in one launch for any batch and levels of one memory
// format. No torch.
//
// Floors: 8 bytes a float32 logit (4 for half), and about 45 (25) fused operations. A block works on one level. By
// anchor, a thread takes packs of the flat logits; planar, it takes 16 bytes of neighbouring cells through
// kPlaneClasses planes, so that their class targets, which lie far apart, are found once.
#pragma once

#include "focal_loss/focal_loss_pack.cuh"
#include "retinanet_loss/retinanet_loss_levels.cuh"

namespace retina_ops {

// Blocks that a multiprocessor must hold, which is how many registers ptxas may use before it spills.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000  // where the same code takes more of them
template <class T, Gamma G, bool kPlanar>
constexpr int kLogitBlocks = 2;
#else
template <class T, Gamma G, bool kPlanar>
constexpr int kLogitBlocks = sizeof(T) == 8 || G == Gamma::kAny ? 2
                             : sizeof(T) == 4 && kPlanar        ? 4
                                                                : 3;
#endif
constexpr int kPlaneClasses = 16;  // planes that a thread takes with one pack of cells: numbers of four bits

template <class T>
struct ClassificationArguments : LossArguments<T> {
  using A = ArithmeticOf<T>;
  Divider classes;
  A positive_weight;
  A negative_weight;
  double gamma;
};

template <class T>
__device__ __forceinline__ int32_t target_at(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                             int64_t image, int64_t anchor) {
  const int64_t match = a.matches[image * a.anchors + level.first_anchor + anchor];
  return static_cast<int32_t>(class_target(match, a.labels + image * a.capacity, a.capacity, a.classes.divisor));
}

// Of one image's logits, of the positives or of the negatives.
template <class T>
__device__ __forceinline__ PackWeights<ArithmeticOf<T>> weights_of(const LossArguments<T>& a, int64_t image,
                                                                   ArithmeticOf<T> weight) {
  const LossScale<ArithmeticOf<T>> scale = scale_of(a, image);
  return {weight * scale.loss, weight * scale.gradient};
}

// Of an anchor's logits in a pack; labels: of its image.
template <int kPack, class T>
__device__ __forceinline__ PackTargets targets_of(const ClassificationArguments<T>& a, int64_t match,
                                                  const int64_t* labels, int column, int first) {
  const int64_t classes = a.classes.divisor;
  return row_targets<kPack>(class_target(match, labels, a.capacity, classes), static_cast<int>(classes), kIgnoredAnchor,
                            column, first);
}

// Elements [begin, end) of a level by anchor, one by one: of rows shorter than a pack, and where two images share one.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_elements(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                                   int64_t begin, int64_t end, int64_t stride) {
  using A = ArithmeticOf<T>;
  double sum = 0.0;
  for (int64_t at = begin; at < end; at += stride) {
    const int64_t row = a.classes(at);
    const int64_t image = level.by_cells(row);
    const int64_t match = a.matches[image * (a.anchors - level.cells) + level.first_anchor + row];
    const A x[1] = {to_arithmetic(level.values[at])};
    A derivative[1];
    const auto others = [&] {
      const int column = static_cast<int>(at - row * a.classes.divisor);
      return PackOthers<A>{targets_of<1>(a, match, a.labels + image * a.capacity, column, 0),
                           weights_of(a, image, a.positive_weight)};
    };
    sum += static_cast<double>(
        pack_loss<G, PackMath<T>>(x, false, weights_of(a, image, a.negative_weight), a.gamma, derivative, others));
    if (level.gradient != nullptr) level.gradient[at] = from_arithmetic<T>(derivative[0]);
  }
  return sum;
}

// Logits by anchor: this thread's packs of the flat array. The next pack is on its way while one is computed.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_rows(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                               const LossPlace& place) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kRowPack<T>;
  const int classes = static_cast<int>(a.classes.divisor);
  const int64_t n = a.batch * level.cells * classes;
  const int64_t start = a.first_image * level.cells * classes;
  const int64_t thread = place.block * kLossThreads + threadIdx.x;
  if (classes < kPack) return loss_of_elements<T, G>(a, level, start + thread, n, place.blocks * kLossThreads);
  const int64_t stride = place.blocks * kLossThreads * kPack;
  int64_t at = start + thread * kPack;
  RowCursor cursor(a.classes, at, stride);
  // Of the image at hand: where its rows end, its rows' matches by the row's number, its negatives' weights.
  int64_t end = 0;
  const int64_t* matches = nullptr;
  PackWeights<A> weights{};
  bool is_new = false;  // an image whose weights are not there yet
  const auto matches_of = [&](int64_t image) {
    return a.matches + image * (a.anchors - level.cells) + level.first_anchor;
  };
  double sum = 0.0;
  Pack<T, kPack> next;
  int64_t match = 0, match_after = 0;  // of the pack's row and of the one after it, where it is of the same image
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
    if (is_new) weights = weights_of(a, level.by_cells(cursor.row), a.negative_weight);
    is_new = false;
    const int64_t here = at;
    const int column = cursor.column;
    const int left = classes - column;                             // elements to the end of the row
    const bool is_shared = left < kPack && cursor.row + 1 == end;  // by two images, or past the last
    const bool is_plain = match == kBackgroundMatch && match_after == kBackgroundMatch && !is_shared;
    at += stride;
    cursor.advance(classes);
    if (at < n) read();
    const auto others = [&] {  // found anew: seldom asked for
      const int64_t row = a.classes(here);
      const int64_t image = level.by_cells(row);
      const int64_t* labels = a.labels + image * a.capacity;
      const int64_t* its = matches_of(image) + row;
      PackTargets targets = targets_of<kPack>(a, its[0], labels, column, 0);
      if (left < kPack) targets.keep_before(left);
      if (is_shared) targets.ignore_from(left);
      if (left < kPack && !is_shared) targets.add(targets_of<kPack>(a, its[1], labels, 0, left));
      return PackOthers<A>{targets, weights_of(a, image, a.positive_weight)};
    };
    sum += static_cast<double>(pack_loss<G, PackMath<T>>(x, is_plain, weights, a.gamma, derivative, others));
    if (level.gradient != nullptr) {
      store_pack(level.gradient + here, is_shared ? left : n - here, level.aligned, derivative);
    }
  }
  // What packs of two images have of the second.
  for (int64_t image = a.first_image + 1 + thread; image < a.batch; image += place.blocks * kLossThreads) {
    const int64_t begin = image * level.cells * classes;
    const int64_t past = (begin - start) % kPack;
    const int64_t stop = past == 0 ? begin : begin + kPack - past;
    sum += loss_of_elements<T, G>(a, level, begin, stop < n ? stop : n, 1);
  }
  return sum;
}

// Planar logits: this thread's packs of cells, each through some of the planes.
template <class T, Gamma G>
__device__ __forceinline__ double loss_of_planes(const ClassificationArguments<T>& a, const LossLevel<T>& level,
                                                 const LossPlace& place) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kFocalPack<T>;
  const int64_t classes = a.classes.divisor;
  const int64_t packs = level.by_cells.divisor;
  const int64_t chunks = ceil_div<int64_t>(classes, kPlaneClasses);
  const int64_t items = (a.batch - a.first_image) * level.per_cell * chunks * packs;
  double sum = 0.0;
  for (int64_t item = place.block * kLossThreads + threadIdx.x; item < items; item += place.blocks * kLossThreads) {
    const int64_t group = level.by_cells(item);
    const int64_t cell = (item - group * packs) * kPack;
    const int64_t set = group / chunks;  // of planes: an anchor of the cells of an image
    const int64_t first = (group - set * chunks) * kPlaneClasses;
    const int count = static_cast<int>(classes - first < kPlaneClasses ? classes - first : kPlaneClasses);
    const int64_t image_before = level.by_per_cell(set);
    const int64_t in_cell = set - image_before * level.per_cell;
    const int64_t image = a.first_image + image_before;
    const int64_t available = level.cells - cell;
    const PackWeights<A> weights = weights_of(a, image, a.negative_weight);
    PackTargets targets{0u, 0u, 0u};  // but for the positives, the same for all planes
    unsigned hit = 0;                 // planes with a positive, a bit each
    unsigned plane_of = 0;            // of each cell's positive, four bits each
    unsigned any = 0;                 // cells with a positive in these planes
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const int64_t target = i < available ? target_at(a, level, image, (cell + i) * level.per_cell + in_cell)
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
      const int64_t here = at;
      at += level.cells;
      if (k + 1 < count) next = read_plane<kPack>(level.values + at, available, level.access);
      const bool is_hit = (hit >> k & 1u) != 0;
      const auto others_of_plane = [&] {
        PackTargets its = targets;
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          its.positive |= (any >> i & 1u) != 0 && static_cast<int>(plane_of >> (4 * i) & 15u) == k ? 1u << i : 0u;
        }
        return PackOthers<A>{its, weights_of(a, image, a.positive_weight)};
      };
      sum += static_cast<double>(pack_loss<G, PackMath<T>>(x, !is_hit && (targets.ignored | targets.bad) == 0, weights,
                                                           a.gamma, derivative, others_of_plane));
      if (level.gradient != nullptr) store_plane(level.gradient + here, available, level.access, derivative);
    }
  }
  return sum;
}

// Of levels that are all planar, or all by anchor. adds: *a.result is there already.
// launch: a block of kLossThreads for each level at least; blocks of a level follow each other.
template <class T, Gamma G, bool kPlanar>
__global__ void __launch_bounds__(kLossThreads, kLogitBlocks<T, G, kPlanar>)
    retinanet_classification_kernel(ClassificationArguments<T> a, bool adds) {
  const LossPlace place = loss_place(a);
  const LossLevel<T>& level = a.level[place.level];
  clear_gap(level, a.batch * level.cells * level.per_cell * a.classes.divisor, place);
  double sum = 0.0;
  if constexpr (kPlanar) {
    sum = loss_of_planes<T, G>(a, level, place);
  } else {
    sum = loss_of_rows<T, G>(a, level, place);
  }
  double total = 0.0;
  if (a.result == nullptr || !grid_sum<kLossThreads>(sum, a.partial, a.done, total)) return;
  *a.result = static_cast<ArithmeticOf<T>>(total) + (adds ? *a.result : ArithmeticOf<T>(0));
}

}  // namespace retina_ops
