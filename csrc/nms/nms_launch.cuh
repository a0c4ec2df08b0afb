// The launches of one NMS call, chunk after chunk, over workspace that the caller allocates. No torch.
#pragma once

#include "common/half_block.h"
#include "nms/nms_kernels.cuh"

namespace retina_ops {

constexpr int kNmsCompactThreads = 256;

// A call on the device. limits.first: the first box that is taken, a multiple of kNmsChunk.
struct NmsDevice {
  const void* boxes;  // [n, 4] of box_dtype
  Dtype box_dtype;
  const void* scores;  // [n] of score_dtype
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null
  const int64_t* order;    // [n] by descending score
  const int64_t* rank;     // [n] positions in `order`, by class; null without classes
  double threshold;
  int64_t n;
  int64_t* output;  // [max_output] kept indices, then -1
  int64_t max_output;
  int64_t* count;  // [] kept indices
  // Workspace. Bit arrays are of words = nms_words(n) words of 32 boxes.
  void* sorted_boxes;       // [n, 4] of float, or double for float64 boxes
  int64_t* sorted_classes;  // [n]; unused without classes
  uint32_t* struck;         // [words]
  uint32_t* kept;           // [words]
  uint64_t* mask;           // [ceil(rows / kNmsTile), rows], rows = nms_mask_rows(n)
  uint32_t* by_score;       // [words] zero; unused without classes
  LaunchLimits limits;
  cudaStream_t stream;
};

inline int64_t nms_words(int64_t n) { return ceil_div<int64_t>(n, 32); }
inline int64_t nms_mask_rows(int64_t n) {
  return n < kNmsChunk ? ceil_div<int64_t>(n, kNmsTile) * kNmsTile : kNmsChunk;
}
inline unsigned nms_blocks(int64_t n) { return static_cast<unsigned>(ceil_div<int64_t>(n, kNmsThreads)); }

template <class T, class ScoreT>
void launch_nms_gather(const NmsDevice& device, const NmsBoxes<ArithmeticOf<T>>& sorted) {
  launch(nms_gather_kernel<T, ScoreT>, dim3(nms_blocks(device.n - device.limits.first)), dim3(kNmsThreads), 0,
         device.stream, static_cast<const T*>(device.boxes), static_cast<const ScoreT*>(device.scores), device.classes,
         device.order, device.rank, sorted, device.limits.first, is_aligned(device.boxes, 16));
}

// Writes the bits of the kept boxes in the order of the scores; returns where they are.
template <class T>
const uint32_t* launch_nms_bits(const NmsDevice& device) {
  using A = ArithmeticOf<T>;
  const NmsBoxes<A> sorted{static_cast<Box<A>*>(device.sorted_boxes),
                           device.rank != nullptr ? device.sorted_classes : nullptr,
                           device.struck,
                           device.kept,
                           device.n,
                           threshold_below<A>(device.threshold)};
  switch (device.score_dtype) {
    case Dtype::kFloat32: launch_nms_gather<T, float>(device, sorted); break;
    case Dtype::kFloat64: launch_nms_gather<T, double>(device, sorted); break;
    case Dtype::kFloat16: launch_nms_gather<T, __half>(device, sorted); break;
    case Dtype::kBFloat16: launch_nms_gather<T, __nv_bfloat16>(device, sorted); break;
  }
  const int64_t first = device.limits.first;
  const int stride = static_cast<int>(nms_mask_rows(device.n - first));
  for (int64_t begin = first; begin < device.n; begin += kNmsChunk) {
    const int64_t rows = device.n - begin < kNmsChunk ? device.n - begin : kNmsChunk;
    const int64_t tiles = ceil_div<int64_t>(rows, kNmsTile);
    launch(nms_mask_kernel<A>, dim3(static_cast<unsigned>(tiles * (stride / kNmsTile))), dim3(kNmsTile), 0,
           device.stream, sorted, begin, device.mask, stride);
    launch(nms_sweep_kernel<A>, dim3(1), dim3(kNmsThreads), 0, device.stream, sorted, begin, device.mask, stride);
    const int64_t end = begin + kNmsChunk;
    if (end < device.n) {
      launch(nms_suppress_kernel<A>, dim3(nms_blocks(device.n - end) * (kNmsChunk / kNmsThreads)), dim3(kNmsThreads), 0,
             device.stream, sorted, begin, end);
    }
  }
  if (device.rank == nullptr) return device.kept;
  launch(nms_scatter_kernel<kNmsThreads>, dim3(nms_blocks(device.n - first)), dim3(kNmsThreads), 0, device.stream,
         device.kept, device.rank, first, device.n, device.by_score);
  return device.by_score;
}

// At least one box.
inline void launch_nms(const NmsDevice& device) {
  const uint32_t* kept = nullptr;
  switch (device.box_dtype) {
    case Dtype::kFloat32: kept = launch_nms_bits<float>(device); break;
    case Dtype::kFloat64: kept = launch_nms_bits<double>(device); break;
    case Dtype::kFloat16: kept = launch_nms_bits<__half>(device); break;
    case Dtype::kBFloat16: kept = launch_nms_bits<__nv_bfloat16>(device); break;
  }
  const int64_t blocks = ceil_div<int64_t>(device.n - device.limits.first, kNmsCompactThreads);
  launch(nms_compact_kernel<kNmsCompactThreads>, dim3(static_cast<unsigned>(blocks)), dim3(kNmsCompactThreads), 0,
         device.stream, kept, device.order, device.limits.first, device.n, device.output, device.max_output,
         device.count);
}
RETINA_OPS_LAUNCH(launch_nms, NmsDevice, boxes, box_dtype, scores, score_dtype, classes, order, rank, threshold, n,
                  output, max_output, count, sorted_boxes, sorted_classes, struck, kept, mask, by_score, limits);

}  // namespace retina_ops
