// The launches of one soft NMS call, over workspace that the caller gives. No torch.
#pragma once

#include "common/half_block.h"
#include "soft_nms/soft_nms_kernels.cuh"

namespace retina_ops {

constexpr int64_t kSoftNmsBlocks = 512;      // of segments at once; more are taken in turn
constexpr int64_t kSoftNmsWideBoxes = 4096;  // boxes of one segment from which a block is wide

// Arrays on the device.
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
  int64_t first;  // boxes [first, n) are taken: 0 but in tests of large indices
  int64_t n;
  // Workspace; A is double where boxes or scores are float64, else float.
  void* slot_boxes;         // [n, 4] A
  void* slot_scores;        // [n] A
  void* slot_decays;        // [n] A
  int64_t* slot_inputs;     // [n]
  int64_t* slot_classes;    // [n]; unused without classes
  int64_t* segment_starts;  // [n]
  int32_t* segments;        // [] zero
  // What comes out, by input index.
  void* taken_scores;  // [n] A: -1 where the box is dropped
  void* taken_decays;  // [n] A
  int64_t* count;      // [] zero
  cudaStream_t stream;
};

inline bool is_double(const SoftNmsDevice& d) {
  return d.box_dtype == Dtype::kFloat64 || d.score_dtype == Dtype::kFloat64;
}

inline unsigned soft_nms_grid(int64_t count) {
  return static_cast<unsigned>(ceil_div<int64_t>(count, kSoftNmsThreads));
}

template <class A>
SoftNmsSlots<A> soft_nms_slots(const SoftNmsDevice& d) {
  return {static_cast<Box<A>*>(d.slot_boxes),
          static_cast<A*>(d.slot_scores),
          static_cast<A*>(d.slot_decays),
          d.slot_inputs,
          d.rank != nullptr ? d.slot_classes : nullptr,
          d.segment_starts,
          d.segments,
          static_cast<A*>(d.taken_scores),
          static_cast<A*>(d.taken_decays),
          d.count,
          d.first,
          d.n,
          soft_nms_rule<A>(d.threshold, d.sigma, d.min_score)};
}

template <class T, class ScoreT>
void launch_soft_nms_gather(const SoftNmsDevice& d) {
  launch(soft_nms_gather_kernel<T, ScoreT>, dim3(soft_nms_grid(d.n - d.first)), dim3(kSoftNmsThreads), 0, d.stream,
         static_cast<const T*>(d.boxes), static_cast<const ScoreT*>(d.scores), d.classes, d.rank,
         soft_nms_slots<SoftNmsArithmetic<T, ScoreT>>(d), is_aligned(d.boxes, 16));
}

template <class T>
void launch_soft_nms_gather(const SoftNmsDevice& d) {
  switch (d.score_dtype) {
    case Dtype::kFloat32: return launch_soft_nms_gather<T, float>(d);
    case Dtype::kFloat64: return launch_soft_nms_gather<T, double>(d);
    case Dtype::kFloat16: return launch_soft_nms_gather<T, __half>(d);
    case Dtype::kBFloat16: return launch_soft_nms_gather<T, __nv_bfloat16>(d);
  }
}

template <bool kGaussian, class A>
void launch_soft_nms_take(const SoftNmsDevice& d) {
  const int64_t n = d.n - d.first;
  const int64_t most = d.rank == nullptr ? 1 : n < kSoftNmsBlocks ? n : kSoftNmsBlocks;
  const SoftNmsSlots<A> slots = soft_nms_slots<A>(d);
  if (d.rank == nullptr && n >= kSoftNmsWideBoxes) {
    launch(soft_nms_take_kernel<kGaussian, kSoftNmsWideThreads, A>, dim3(1), dim3(kSoftNmsWideThreads), 0, d.stream,
           slots);
  } else {
    launch(soft_nms_take_kernel<kGaussian, kSoftNmsThreads, A>, dim3(static_cast<unsigned>(most)),
           dim3(kSoftNmsThreads), 0, d.stream, slots);
  }
}

// Leaves what is taken by input index, and how many. At least one box.
inline void launch_soft_nms(const SoftNmsDevice& d) {
  switch (d.box_dtype) {
    case Dtype::kFloat32: launch_soft_nms_gather<float>(d); break;
    case Dtype::kFloat64: launch_soft_nms_gather<double>(d); break;
    case Dtype::kFloat16: launch_soft_nms_gather<__half>(d); break;
    case Dtype::kBFloat16: launch_soft_nms_gather<__nv_bfloat16>(d); break;
  }
  if (is_double(d)) {
    d.gaussian ? launch_soft_nms_take<true, double>(d) : launch_soft_nms_take<false, double>(d);
  } else {
    d.gaussian ? launch_soft_nms_take<true, float>(d) : launch_soft_nms_take<false, float>(d);
  }
}

// order: [count] input indices of the taken boxes; scores: [count] of score_dtype; decays: [count] A. count > 0.
template <class A>
void launch_soft_nms_write(const SoftNmsDevice& d, const int64_t* order, int64_t count, void* scores, void* decays) {
  const dim3 grid(soft_nms_grid(count)), block(kSoftNmsThreads);
  const auto* taken_scores = static_cast<const A*>(d.taken_scores);
  const auto* taken_decays = static_cast<const A*>(d.taken_decays);
  auto* out = static_cast<A*>(decays);
  const auto write = [&](auto* to) {
    using ScoreT = std::remove_pointer_t<decltype(to)>;
    launch(soft_nms_write_kernel<ScoreT, A>, grid, block, 0, d.stream, order, taken_scores, taken_decays, count, to,
           out);
  };
  switch (d.score_dtype) {
    case Dtype::kFloat32: return write(static_cast<float*>(scores));
    case Dtype::kFloat64: return write(static_cast<double*>(scores));
    case Dtype::kFloat16: return write(static_cast<__half*>(scores));
    case Dtype::kBFloat16: return write(static_cast<__nv_bfloat16*>(scores));
  }
}

inline void launch_soft_nms_write(const SoftNmsDevice& d, const int64_t* order, int64_t count, void* scores,
                                  void* decays) {
  is_double(d) ? launch_soft_nms_write<double>(d, order, count, scores, decays)
               : launch_soft_nms_write<float>(d, order, count, scores, decays);
}

}  // namespace retina_ops
