// The launches of one NMS call, chunk after chunk, over workspace that the caller gives. No torch.
#pragma once

#include "common/half_block.h"
#include "nms/nms_kernels.cuh"

namespace retina_ops {

constexpr int kNmsCompactThreads = 256;

// Arrays on the device. Words are 32 bits of one box each.
struct NmsDevice {
  const void* boxes;  // [n, 4] of box_dtype
  Dtype box_dtype;
  const void* scores;  // [n] of score_dtype
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null
  const int64_t* order;    // [n] by descending score
  const int64_t* rank;     // [n] positions in `order`, by class; null without classes
  double threshold;
  int64_t first;  // boxes [first, n) are taken: 0 but in tests of large indices, a multiple of kNmsChunk
  int64_t n;
  // Workspace.
  void* sorted_boxes;       // [n, 4] of float, or double for float64 boxes
  int64_t* sorted_classes;  // [n]; unused without classes
  uint32_t* struck;         // [words]
  uint32_t* kept;           // [words]
  uint64_t* mask;           // [ceil(rows / kNmsTile), rows], rows = nms_mask_rows(n)
  uint32_t* by_score;       // [words] zero; unused without classes
  cudaStream_t stream;
};

inline int64_t nms_words(int64_t n) { return ceil_div<int64_t>(n, 32); }
inline int64_t nms_mask_rows(int64_t n) {
  return n < kNmsChunk ? ceil_div<int64_t>(n, kNmsTile) * kNmsTile : kNmsChunk;
}
inline unsigned nms_blocks(int64_t n) { return static_cast<unsigned>(ceil_div<int64_t>(n, kNmsThreads)); }

template <class T, class ScoreT>
void launch_nms_gather(const NmsDevice& d, const NmsBoxes<ArithmeticOf<T>>& sorted) {
  launch(nms_gather_kernel<T, ScoreT>, dim3(nms_blocks(d.n - d.first)), dim3(kNmsThreads), 0, d.stream,
         static_cast<const T*>(d.boxes), static_cast<const ScoreT*>(d.scores), d.classes, d.order, d.rank, sorted,
         d.first, is_aligned(d.boxes, 16));
}

// Leaves the bits of the kept boxes in the order of the scores; returns where.
template <class T>
const uint32_t* launch_nms_bits(const NmsDevice& d) {
  using A = ArithmeticOf<T>;
  const NmsBoxes<A> sorted{
      static_cast<Box<A>*>(d.sorted_boxes), d.rank != nullptr ? d.sorted_classes : nullptr, d.struck, d.kept, d.n,
      threshold_below<A>(d.threshold)};
  switch (d.score_dtype) {
    case Dtype::kFloat32: launch_nms_gather<T, float>(d, sorted); break;
    case Dtype::kFloat64: launch_nms_gather<T, double>(d, sorted); break;
    case Dtype::kFloat16: launch_nms_gather<T, __half>(d, sorted); break;
    case Dtype::kBFloat16: launch_nms_gather<T, __nv_bfloat16>(d, sorted); break;
  }
  const int stride = static_cast<int>(nms_mask_rows(d.n - d.first));
  for (int64_t begin = d.first; begin < d.n; begin += kNmsChunk) {
    const int64_t rows = d.n - begin < kNmsChunk ? d.n - begin : kNmsChunk;
    const int64_t tiles = ceil_div<int64_t>(rows, kNmsTile);
    launch(nms_mask_kernel<A>, dim3(static_cast<unsigned>(tiles * (stride / kNmsTile))), dim3(kNmsTile), 0, d.stream,
           sorted, begin, d.mask, stride);
    launch(nms_sweep_kernel<A>, dim3(1), dim3(kNmsThreads), 0, d.stream, sorted, begin, d.mask, stride);
    const int64_t end = begin + kNmsChunk;
    if (end < d.n) {
      launch(nms_suppress_kernel<A>, dim3(nms_blocks(d.n - end) * (kNmsChunk / kNmsThreads)), dim3(kNmsThreads), 0,
             d.stream, sorted, begin, end);
    }
  }
  if (d.rank == nullptr) return d.kept;
  launch(nms_scatter_kernel<kNmsThreads>, dim3(nms_blocks(d.n - d.first)), dim3(kNmsThreads), 0, d.stream, d.kept,
         d.rank, d.first, d.n, d.by_score);
  return d.by_score;
}

// Kept indices padded with -1 to [max_output], and their count.
inline void launch_nms(const NmsDevice& d, int64_t* output, int64_t max_output, int64_t* count) {
  const uint32_t* bits = nullptr;
  switch (d.box_dtype) {
    case Dtype::kFloat32: bits = launch_nms_bits<float>(d); break;
    case Dtype::kFloat64: bits = launch_nms_bits<double>(d); break;
    case Dtype::kFloat16: bits = launch_nms_bits<__half>(d); break;
    case Dtype::kBFloat16: bits = launch_nms_bits<__nv_bfloat16>(d); break;
  }
  launch(nms_compact_kernel<kNmsCompactThreads>,
         dim3(static_cast<unsigned>(ceil_div<int64_t>(d.n - d.first, kNmsCompactThreads))), dim3(kNmsCompactThreads), 0,
         d.stream, bits, d.order, d.first, d.n, output, max_output, count);
}

}  // namespace retina_ops
