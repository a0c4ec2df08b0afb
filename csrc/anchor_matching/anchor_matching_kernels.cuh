// Anchor matching on CUDA, in two launches for any batch. No torch.
//
// Operations bound it. A warp owns 32 neighbouring anchors of one image, one a lane, and needs no shared memory: it
// tests 32 boxes at a time against the bounds of its anchors and compares only those that may overlap. The highest IoU
// of each box is an integer maximum over the bits of a non-negative float, which no order of warps can change.
#pragma once

#include "anchor_matching/anchor_matching.h"
#include "common/vector.cuh"

namespace retina_ops {

constexpr int kMatchThreads = 256;
constexpr int kMatchBlocks = 4;  // of a multiprocessor: without it ptxas aims at 32 registers on sm_80, and spills

// Non-negative floats order as their bits do.
__device__ __forceinline__ unsigned iou_bits(float iou) { return bit_copy<unsigned>(iou); }
__device__ __forceinline__ unsigned long long iou_bits(double iou) { return bit_copy<unsigned long long>(iou); }
template <class T>
using IouBits = decltype(iou_bits(T()));

template <class T>
struct MatchKernelArguments {
  using A = ArithmeticOf<T>;
  const T* anchors;                // [anchor_count, 4], or [batch, anchor_count, 4]
  const T* gt_boxes;               // [batch, gt_capacity, 4]
  const int32_t* gt_counts;        // [batch]
  const T* regions;                // [batch, region_capacity, 4] or null
  const int32_t* region_counts;    // [batch] or null
  IouBits<A>* best;                // [batch, gt_capacity] highest IoU of each box, zero before
  int64_t* matches;                // [batch, anchor_count]: provisional after the first kernel, final after the second
  unsigned long long* foreground;  // [batch] foreground anchors of each image, zero before
  int64_t anchor_count;
  int64_t gt_capacity;
  int64_t region_capacity;
  int64_t anchors_stride;    // boxes from one image's anchors to the next: anchor_count or 0
  int64_t blocks_per_image;  // ceil(anchor_count / kMatchThreads)
  int64_t first_block;       // added to the block's index: 0 but in tests of large indices
  MatchThresholds<A> thresholds;
  bool allow_low_quality;
  bool aligned;  // boxes may be read in one access
};

template <class A>
__device__ __forceinline__ A warp_lowest(A value) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const A other = __shfl_xor_sync(kFullWarp, value, offset);
    value = other < value ? other : value;
  }
  return value;
}
template <class A>
__device__ __forceinline__ A warp_highest(A value) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const A other = __shfl_xor_sync(kFullWarp, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

template <class T>
__device__ __forceinline__ Box<ArithmeticOf<T>> match_box(const T* boxes, int64_t index, bool aligned) {
  ArithmeticOf<T> values[4];
  load_pack(boxes + 4 * index, 4, aligned, values);
  return {values[0], values[1], values[2], values[3]};
}

// A warp's anchors: one a lane, NaN past the last, and the bounds of all.
template <class A>
struct WarpAnchors {
  Box<A> mine;
  A area;
  Bounds<A> bounds;
  int64_t image;
  int64_t index;  // of this lane's anchor in its image
};

// Boxes of an image; a count past the array, an error on the CPU, cannot be one here without a wait.
__device__ __forceinline__ int count_within(int32_t count, int64_t capacity) {
  return static_cast<int>(count < capacity ? count : capacity);
}

template <class T>
__device__ __forceinline__ WarpAnchors<ArithmeticOf<T>> load_anchors(const MatchKernelArguments<T>& a) {
  using A = ArithmeticOf<T>;
  WarpAnchors<A> warp;
  const int64_t block = a.first_block + static_cast<int64_t>(blockIdx.x);
  warp.image = block / a.blocks_per_image;
  warp.index = (block - warp.image * a.blocks_per_image) * kMatchThreads + threadIdx.x;
  const A nan = std::numeric_limits<A>::quiet_NaN();
  warp.mine = warp.index < a.anchor_count ? match_box(a.anchors, warp.image * a.anchors_stride + warp.index, a.aligned)
                                          : Box<A>{nan, nan, nan, nan};
  warp.area = box_area(warp.mine);
  Bounds<A> bounds = no_bounds<A>();
  extend(bounds, Bounds<A>{warp.mine.x1, warp.mine.y1, warp.mine.x2, warp.mine.y2});
  warp.bounds = {warp_lowest(bounds.x1), warp_lowest(bounds.y1), warp_highest(bounds.x2), warp_highest(bounds.y2)};
  return warp;
}

// Calls visit(index, box) for every box of boxes[0, count) that may overlap the warp's anchors (all where `all`), in
// ascending order, all lanes together.
template <class T, class Visit>
__device__ __forceinline__ void for_each_near(const Bounds<ArithmeticOf<T>>& bounds, bool all, const T* boxes,
                                              int count, bool aligned, Visit visit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int start = 0; start < count; start += kWarpSize) {
    const bool here = start + lane < count;
    const bool is_near = here && (all || may_overlap(bounds, match_box(boxes, start + lane, aligned)));
    for (unsigned rest = __ballot_sync(kFullWarp, is_near); rest != 0; rest &= rest - 1) {
      const int index = start + __ffs(static_cast<int>(rest)) - 1;
      visit(index, match_box(boxes, index, aligned));
    }
  }
}

// Each anchor's best box, provisionally, and the highest IoU of each box.
// launch: batch * blocks_per_image blocks of kMatchThreads.
template <class T>
__global__ void __launch_bounds__(kMatchThreads) match_best_kernel(MatchKernelArguments<T> a) {
  using A = ArithmeticOf<T>;
  const WarpAnchors<A> warp = load_anchors(a);
  const bool all = !only_overlaps_matter(a.thresholds);
  const int count = count_within(a.gt_counts[warp.image], a.gt_capacity);
  A best = all ? -std::numeric_limits<A>::infinity() : A(0);
  int best_index = 0;
  const T* boxes = a.gt_boxes + 4 * warp.image * a.gt_capacity;
  for_each_near(warp.bounds, all, boxes, count, a.aligned, [&](int index, const Box<A>& box) {
    const A iou = box_iou(box, box_area(box), warp.mine, warp.area);
    if (iou > best) {
      best = iou;
      best_index = index;
    }
    if (a.allow_low_quality) {
      const A highest = warp_highest(iou > A(0) ? iou : A(0));
      if (threadIdx.x % kWarpSize == 0 && highest > A(0)) {
        atomicMax(&a.best[warp.image * a.gt_capacity + index], iou_bits(highest));
      }
    }
  });
  if (warp.index < a.anchor_count) {
    a.matches[warp.image * a.anchor_count + warp.index] =
        count > 0 ? provisional_match(best, best_index, a.thresholds) : static_cast<int64_t>(MatchCode::kBackground);
  }
}

// Low-quality matches, regions to ignore, and the final values. launch: as match_best_kernel, after it.
template <class T>
__global__ void __launch_bounds__(kMatchThreads, kMatchBlocks) match_decide_kernel(MatchKernelArguments<T> a) {
  using A = ArithmeticOf<T>;
  const WarpAnchors<A> warp = load_anchors(a);
  const bool here = warp.index < a.anchor_count;
  int64_t match = here ? a.matches[warp.image * a.anchor_count + warp.index] : 0;
  if (a.allow_low_quality && __any_sync(kFullWarp, !is_foreground(match))) {
    bool attains = false;
    const int count = count_within(a.gt_counts[warp.image], a.gt_capacity);
    for_each_near(warp.bounds, false, a.gt_boxes + 4 * warp.image * a.gt_capacity, count, a.aligned,
                  [&](int index, const Box<A>& box) {
                    const A iou = box_iou(box, box_area(box), warp.mine, warp.area);
                    attains = attains || (iou > A(0) && iou_bits(iou) == a.best[warp.image * a.gt_capacity + index]);
                  });
    if (attains) match &= ~int64_t(3);  // MatchCode::kForeground
  }
  if (a.regions != nullptr) {
    bool covered = false;
    const int count = count_within(a.region_counts[warp.image], a.region_capacity);
    for_each_near(warp.bounds, false, a.regions + 4 * warp.image * a.region_capacity, count, a.aligned,
                  [&](int, const Box<A>& region) {
                    covered = covered || div_rn(box_intersection(region, warp.mine), warp.area) >= a.thresholds.iof;
                  });
    if (covered && !is_foreground(match)) match = static_cast<int64_t>(MatchCode::kBetween);
  }
  if (!here) return;
  a.matches[warp.image * a.anchor_count + warp.index] = final_match(match);
  // Few are foreground, so one by one; a sum of integers, which no order of threads can change.
  if (is_foreground(match)) atomicAdd(&a.foreground[warp.image], 1ull);
}

}  // namespace retina_ops
