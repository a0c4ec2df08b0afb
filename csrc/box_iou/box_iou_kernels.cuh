// Pairwise IoU, of every kind, on CUDA. No torch.
//
// Lower bound: writing the output, 4 bytes per pair. A block computes kIouRows rows of a tile of columns: a thread
// keeps its kPack columns in registers, the rows come from shared memory, and every store is one 16-byte access where m
// allows it. What depends on one box alone, its area and the angle of its aspect ratio, is computed once per block.
#pragma once

#include "common/box_access.cuh"
#include "common/iou_terms.h"

namespace retina_ops {

constexpr int kIouThreads = 128;
constexpr int kIouRows = 32;

// boxes1: [batch, n, 4] and boxes2: [batch, m, 4] of `dtype`; iou: [batch, n, m]; first_block: added to the index of
// the block. launch: batch * ceil(n / kIouRows) * ceil(m / (kIouThreads * kPack)) blocks of kIouThreads.
template <class A, IouKind K, int kPack>
__global__ void __launch_bounds__(kIouThreads)
    box_iou_kernel(const void* boxes1, const void* boxes2, Dtype dtype, int64_t n, int64_t m, IouEps<A> eps, A* iou,
                   bool aligned, int64_t first_block) {
  RETINA_OPS_SHARED(MeasuredBox<A>[kIouRows], rows);
  const int64_t column_tiles = ceil_div<int64_t>(m, kIouThreads * kPack);
  const int64_t row_tiles = ceil_div<int64_t>(n, kIouRows);
  const int64_t block = first_block + static_cast<int64_t>(blockIdx.x);
  const int64_t row_tile = block / column_tiles;
  const int64_t column = (block - row_tile * column_tiles) * (kIouThreads * kPack) + threadIdx.x * kPack;
  const int64_t image = row_tile / row_tiles;
  const int64_t row = (row_tile - image * row_tiles) * kIouRows;
  const int count = static_cast<int>(n - row < kIouRows ? n - row : kIouRows);
  if (threadIdx.x < static_cast<unsigned>(count)) {
    rows[threadIdx.x] =
        measured<K, A, FusedMath>(load_box_of<A>(boxes1, dtype, image * n + row + threadIdx.x, aligned));
  }
  MeasuredBox<A> own[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const Box<A> none{A(0), A(0), A(0), A(0)};
    own[i] = measured<K, A, FusedMath>(column + i < m ? load_box_of<A>(boxes2, dtype, image * m + column + i, aligned)
                                                      : none);
  }
  __syncthreads();
  if (column >= m) return;
  A* out = iou + (image * n + row) * m + column;
  for (int r = 0; r < count; ++r) {
    A values[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      values[i] = iou_terms<K, IouReading::kPairwise, A, FusedMath>(rows[r], own[i], eps).value;
    }
    store_pack(out + r * m, m - column, kPack > 1, values);
  }
}

}  // namespace retina_ops
