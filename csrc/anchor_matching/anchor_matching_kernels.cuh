// Anchor matching on CUDA: two kernels, and their launches for any batch. No torch.
//
// Compute-bound. A warp computes 32 neighbouring anchors of one image, one per lane, without shared memory.
// It tests 32 boxes at a time against the bounding box of its anchors, and compares only boxes that may overlap it. The
// highest IoU of each box is a maximum over the bits of non-negative floats, as integers, so that the order of the
// warps does not change it.
#pragma once

#include "anchor_matching/anchor_matching.h"
#include "anchor_matching/anchor_matching_cpu.h"
#include "common/vector.cuh"

namespace retina_ops {

constexpr int kMatchThreads = 256;
constexpr int kMatchBlocks = 4;  // per multiprocessor: without it ptxas aims at 32 registers on sm_80, and spills

// Non-negative floats have the order of their bits.
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
  int64_t first_block;       // added to the index of the block
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

// The anchors of a warp: each lane's own (NaN past the last anchor), and the bounding box of all of them.
template <class A>
struct WarpAnchors {
  Box<A> own;
  A area;
  Bounds<A> bounds;
  int64_t image;
  int64_t index;  // of this lane's anchor in its image
};

// Boxes of an image. A count above the capacity, which the CPU reports as an error, is cut to it: reporting it here
// would make the host wait.
__device__ __forceinline__ int count_within(int32_t count, int64_t capacity) {
  return static_cast<int>(count < capacity ? count : capacity);
}

template <class T>
__device__ __forceinline__ WarpAnchors<ArithmeticOf<T>> load_anchors(const MatchKernelArguments<T>& args) {
  using A = ArithmeticOf<T>;
  WarpAnchors<A> warp;
  const int64_t block = args.first_block + static_cast<int64_t>(blockIdx.x);
  warp.image = block / args.blocks_per_image;
  warp.index = (block - warp.image * args.blocks_per_image) * kMatchThreads + threadIdx.x;
  const A nan = std::numeric_limits<A>::quiet_NaN();
  warp.own = warp.index < args.anchor_count
                 ? match_box(args.anchors, warp.image * args.anchors_stride + warp.index, args.aligned)
                 : Box<A>{nan, nan, nan, nan};
  warp.area = box_area(warp.own);
  Bounds<A> bounds = no_bounds<A>();
  extend(bounds, Bounds<A>{warp.own.x1, warp.own.y1, warp.own.x2, warp.own.y2});
  warp.bounds = {warp_lowest(bounds.x1), warp_lowest(bounds.y1), warp_highest(bounds.x2), warp_highest(bounds.y2)};
  return warp;
}

// Calls visit(index, box) for every box of boxes[0, count) that may overlap the warp's anchors (for every box where
// `all`), in ascending order. All lanes of the warp call it together.
template <class T, class Visit>
__device__ __forceinline__ void for_each_near(const Bounds<ArithmeticOf<T>>& bounds, bool all, const T* boxes,
                                              int count, bool aligned, Visit visit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int start = 0; start < count; start += kWarpSize) {
    const bool in_range = start + lane < count;
    const bool is_near = in_range && (all || may_overlap(bounds, match_box(boxes, start + lane, aligned)));
    for (unsigned rest = __ballot_sync(kFullWarp, is_near); rest != 0; rest &= rest - 1) {
      const int index = start + __ffs(static_cast<int>(rest)) - 1;
      visit(index, match_box(boxes, index, aligned));
    }
  }
}

// Each anchor's best box, provisionally, and the highest IoU of each box.
// launch: batch * blocks_per_image blocks of kMatchThreads.
template <class T>
__global__ void __launch_bounds__(kMatchThreads) match_best_kernel(MatchKernelArguments<T> args) {
  using A = ArithmeticOf<T>;
  const WarpAnchors<A> warp = load_anchors(args);
  const bool all = !only_overlaps_matter(args.thresholds);
  const int count = count_within(args.gt_counts[warp.image], args.gt_capacity);
  A best = all ? -std::numeric_limits<A>::infinity() : A(0);
  int best_index = 0;
  const T* boxes = args.gt_boxes + 4 * warp.image * args.gt_capacity;
  for_each_near(warp.bounds, all, boxes, count, args.aligned, [&](int index, const Box<A>& box) {
    const A iou = box_iou(box, box_area(box), warp.own, warp.area);
    if (iou > best) {
      best = iou;
      best_index = index;
    }
    if (args.allow_low_quality) {
      const A highest = warp_highest(iou > A(0) ? iou : A(0));
      if (threadIdx.x % kWarpSize == 0 && highest > A(0) && highest >= args.thresholds.low_quality) {
        atomicMax(&args.best[warp.image * args.gt_capacity + index], iou_bits(highest));
      }
    }
  });
  if (warp.index < args.anchor_count) {
    args.matches[warp.image * args.anchor_count + warp.index] =
        count > 0 ? provisional_match(best, best_index, args.thresholds) : static_cast<int64_t>(MatchCode::kBackground);
  }
}

// Low-quality matches, regions to ignore, and the final values. launch: as match_best_kernel, after it.
template <class T>
__global__ void __launch_bounds__(kMatchThreads, kMatchBlocks) match_decide_kernel(MatchKernelArguments<T> args) {
  using A = ArithmeticOf<T>;
  const WarpAnchors<A> warp = load_anchors(args);
  const bool in_range = warp.index < args.anchor_count;
  int64_t match = in_range ? args.matches[warp.image * args.anchor_count + warp.index] : 0;
  if (args.allow_low_quality && __any_sync(kFullWarp, !is_foreground(match))) {
    bool attains = false;
    const int count = count_within(args.gt_counts[warp.image], args.gt_capacity);
    const auto* best = args.best + warp.image * args.gt_capacity;
    for_each_near(warp.bounds, false, args.gt_boxes + 4 * warp.image * args.gt_capacity, count, args.aligned,
                  [&](int index, const Box<A>& box) {
                    const A iou = box_iou(box, box_area(box), warp.own, warp.area);
                    attains = attains || (iou > A(0) && iou_bits(iou) == best[index]);
                  });
    if (attains) match &= ~int64_t(3);  // MatchCode::kForeground
  }
  if (args.regions != nullptr) {
    bool covered = false;
    const int count = count_within(args.region_counts[warp.image], args.region_capacity);
    for_each_near(warp.bounds, false, args.regions + 4 * warp.image * args.region_capacity, count, args.aligned,
                  [&](int, const Box<A>& region) {
                    covered = covered || div_rn(box_intersection(region, warp.own), warp.area) >= args.thresholds.iof;
                  });
    if (covered && !is_foreground(match)) match = static_cast<int64_t>(MatchCode::kBetween);
  }
  if (!in_range) return;
  args.matches[warp.image * args.anchor_count + warp.index] = final_match(match);
  // Few anchors are foreground, so each adds itself. The sum is one of integers: its order does not matter.
  if (is_foreground(match)) atomicAdd(&args.foreground[warp.image], 1ull);
}

// A call on the device. limits.first: the first image that is computed.
struct MatchDevice : MatchProblem {
  void* best;  // [batch, gt_capacity] of unsigned, or of unsigned long long for float64 boxes; zero
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class T>
void launch_match_anchors_typed(const MatchDevice& device) {
  using A = ArithmeticOf<T>;
  MatchKernelArguments<T> args{};
  args.anchors = static_cast<const T*>(device.anchors);
  args.gt_boxes = static_cast<const T*>(device.gt_boxes);
  args.gt_counts = device.gt_counts;
  args.regions = static_cast<const T*>(device.regions);
  args.region_counts = device.region_counts;
  args.best = static_cast<IouBits<A>*>(device.best);
  args.matches = device.matches;
  args.foreground = reinterpret_cast<unsigned long long*>(device.foreground);
  args.anchor_count = device.anchor_count;
  args.gt_capacity = device.gt_capacity;
  args.region_capacity = device.region_capacity;
  args.anchors_stride = device.anchors_per_image ? device.anchor_count : 0;
  args.blocks_per_image = ceil_div<int64_t>(device.anchor_count, kMatchThreads);
  args.first_block = device.limits.first * args.blocks_per_image;
  args.thresholds = {static_cast<A>(device.fg_iou), static_cast<A>(device.bg_iou), static_cast<A>(device.ignore_iof),
                     static_cast<A>(device.min_pos_iou)};
  args.allow_low_quality = device.allow_low_quality;
  args.aligned = is_aligned(args.anchors, 16) && is_aligned(args.gt_boxes, 16) && is_aligned(args.regions, 16);
  const dim3 grid(static_cast<unsigned>((device.batch - device.limits.first) * args.blocks_per_image));
  launch(match_best_kernel<T>, grid, dim3(kMatchThreads), 0, device.stream, args);
  launch(match_decide_kernel<T>, grid, dim3(kMatchThreads), 0, device.stream, args);
}

// At least one image and one anchor.
inline void launch_match_anchors(const MatchDevice& device) {
  switch (device.dtype) {
    case Dtype::kFloat32: return launch_match_anchors_typed<float>(device);
    case Dtype::kFloat64: return launch_match_anchors_typed<double>(device);
    case Dtype::kFloat16: return launch_match_anchors_typed<__half>(device);
    case Dtype::kBFloat16: return launch_match_anchors_typed<__nv_bfloat16>(device);
  }
}
RETINA_OPS_LAUNCH(launch_match_anchors, MatchDevice, anchors, anchors_per_image, gt_boxes, gt_counts, regions,
                  region_counts, dtype, batch, anchor_count, gt_capacity, region_capacity, fg_iou, bg_iou, ignore_iof,
                  allow_low_quality, min_pos_iou, matches, foreground, best, limits);

}  // namespace retina_ops
