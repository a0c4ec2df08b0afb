// The launches of one soft NMS call, over workspace that the caller allocates. No torch.
#pragma once

#include "common/half_block.h"
#include "soft_nms/soft_nms_kernels.cuh"

namespace retina_ops {

constexpr int64_t kSoftNmsBlocks = 512;      // at most; a block may process several segments
constexpr int64_t kSoftNmsWideBoxes = 4096;  // a single segment of at least so many boxes has a wide block

// A call on the device. A, the type of the arithmetic: double where boxes or scores are float64, else float.
// limits.first: the first box that is taken.
struct SoftNmsDevice {
  const void* boxes;  // [n, 4] of box_dtype
  Dtype box_dtype;
  const void* scores;  // [n] of score_dtype
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null
  const int64_t* rank;     // [n] input indices by class; null without classes
  double threshold;
  bool gaussian;
  double sigma;
  double min_score;
  int64_t n;
  // Workspace.
  void* slot_boxes;         // [n, 4] A
  void* slot_scores;        // [n] A
  void* slot_decays;        // [n] A
  int64_t* slot_inputs;     // [n]
  int64_t* slot_classes;    // [n]; unused without classes
  int64_t* segment_starts;  // [n]
  int32_t* segments;        // [] zero
  // What launch_soft_nms writes, by input index.
  void* taken_scores;  // [n] A: -1 where the box is dropped
  void* taken_decays;  // [n] A
  int64_t* count;      // [] zero
  // What launch_soft_nms_write reads and writes.
  const int64_t* order;  // [size] input indices of the taken boxes
  int64_t size;          // > 0
  void* out_scores;      // [size] of score_dtype
  void* out_decays;      // [size] A
  LaunchLimits limits;
  cudaStream_t stream;
};

inline bool is_double(const SoftNmsDevice& device) {
  return device.box_dtype == Dtype::kFloat64 || device.score_dtype == Dtype::kFloat64;
}

inline dim3 soft_nms_grid(int64_t boxes) {
  return dim3(static_cast<unsigned>(ceil_div<int64_t>(boxes, kSoftNmsThreads)));
}

template <class A>
SoftNmsSlots<A> soft_nms_slots(const SoftNmsDevice& device) {
  return {static_cast<Box<A>*>(device.slot_boxes),
          static_cast<A*>(device.slot_scores),
          static_cast<A*>(device.slot_decays),
          device.slot_inputs,
          device.rank != nullptr ? device.slot_classes : nullptr,
          device.segment_starts,
          device.segments,
          static_cast<A*>(device.taken_scores),
          static_cast<A*>(device.taken_decays),
          device.count,
          device.limits.first,
          device.n,
          soft_nms_rule<A>(device.threshold, device.sigma, device.min_score)};
}

template <class T, class ScoreT>
void launch_soft_nms_gather(const SoftNmsDevice& device) {
  launch(soft_nms_gather_kernel<T, ScoreT>, soft_nms_grid(device.n - device.limits.first), dim3(kSoftNmsThreads), 0,
         device.stream, static_cast<const T*>(device.boxes), static_cast<const ScoreT*>(device.scores), device.classes,
         device.rank, soft_nms_slots<SoftNmsArithmetic<T, ScoreT>>(device), is_aligned(device.boxes, 16));
}

template <class T>
void launch_soft_nms_gather_typed(const SoftNmsDevice& device) {
  switch (device.score_dtype) {
    case Dtype::kFloat32: return launch_soft_nms_gather<T, float>(device);
    case Dtype::kFloat64: return launch_soft_nms_gather<T, double>(device);
    case Dtype::kFloat16: return launch_soft_nms_gather<T, __half>(device);
    case Dtype::kBFloat16: return launch_soft_nms_gather<T, __nv_bfloat16>(device);
  }
}

template <bool kGaussian, class A>
void launch_soft_nms_take(const SoftNmsDevice& device) {
  const int64_t n = device.n - device.limits.first;
  const SoftNmsSlots<A> slots = soft_nms_slots<A>(device);
  if (device.rank == nullptr && n >= kSoftNmsWideBoxes) {
    launch(soft_nms_take_kernel<kGaussian, kSoftNmsWideThreads, A>, dim3(1), dim3(kSoftNmsWideThreads), 0,
           device.stream, slots);
  } else {
    const int64_t most_segments = device.rank == nullptr ? 1 : n;
    launch(soft_nms_take_kernel<kGaussian, kSoftNmsThreads, A>, grid_of(most_segments, kSoftNmsBlocks, device.limits),
           dim3(kSoftNmsThreads), 0, device.stream, slots);
  }
}

// Writes what is taken, by input index, and how many boxes are taken. At least one box.
inline void launch_soft_nms(const SoftNmsDevice& device) {
  switch (device.box_dtype) {
    case Dtype::kFloat32: launch_soft_nms_gather_typed<float>(device); break;
    case Dtype::kFloat64: launch_soft_nms_gather_typed<double>(device); break;
    case Dtype::kFloat16: launch_soft_nms_gather_typed<__half>(device); break;
    case Dtype::kBFloat16: launch_soft_nms_gather_typed<__nv_bfloat16>(device); break;
  }
  if (is_double(device)) {
    device.gaussian ? launch_soft_nms_take<true, double>(device) : launch_soft_nms_take<false, double>(device);
  } else {
    device.gaussian ? launch_soft_nms_take<true, float>(device) : launch_soft_nms_take<false, float>(device);
  }
}
RETINA_OPS_LAUNCH(launch_soft_nms, SoftNmsDevice, boxes, box_dtype, scores, score_dtype, classes, rank, threshold,
                  gaussian, sigma, min_score, n, slot_boxes, slot_scores, slot_decays, slot_inputs, slot_classes,
                  segment_starts, segments, taken_scores, taken_decays, count, limits);

template <class ScoreT, class A>
void launch_soft_nms_write_typed(const SoftNmsDevice& device) {
  launch(soft_nms_write_kernel<ScoreT, A>, soft_nms_grid(device.size), dim3(kSoftNmsThreads), 0, device.stream,
         device.order, static_cast<const A*>(device.taken_scores), static_cast<const A*>(device.taken_decays),
         device.size, static_cast<ScoreT*>(device.out_scores), static_cast<A*>(device.out_decays));
}

template <class A>
void launch_soft_nms_write_scores(const SoftNmsDevice& device) {
  switch (device.score_dtype) {
    case Dtype::kFloat32: return launch_soft_nms_write_typed<float, A>(device);
    case Dtype::kFloat64: return launch_soft_nms_write_typed<double, A>(device);
    case Dtype::kFloat16: return launch_soft_nms_write_typed<__half, A>(device);
    case Dtype::kBFloat16: return launch_soft_nms_write_typed<__nv_bfloat16, A>(device);
  }
}

// Writes the scores and decays of the taken boxes in order.
inline void launch_soft_nms_write(const SoftNmsDevice& device) {
  is_double(device) ? launch_soft_nms_write_scores<double>(device) : launch_soft_nms_write_scores<float>(device);
}
RETINA_OPS_LAUNCH(launch_soft_nms_write, SoftNmsDevice, box_dtype, score_dtype, taken_scores, taken_decays, order, size,
                  out_scores, out_decays);

}  // namespace retina_ops
