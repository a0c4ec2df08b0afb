// The gradient of pairwise IoU on CUDA. No torch.
//
// Lower bound: reading the upstream gradient, 4 bytes per pair. About 90 operations and 3 divisions per pair take
// nearly as long. A block computes a tile of kIouGradRows rows and kIouThreads columns: a thread keeps its column and
// that column's sums in registers, and the rows come from shared memory. A row's sums are added over the warp by
// shuffles that leave the four coordinates in different lanes: 6 shuffles per row, where one reduction per coordinate
// takes 20. A second kernel adds the tiles' partial sums, in order and in double.
#pragma once

#include "box_iou/box_iou_kernels.cuh"

namespace retina_ops {

constexpr int kIouGradRows = 64;
constexpr int kIouWarps = kIouThreads / kWarpSize;

// Sums over the warp of its lanes' four values: lanes 0 to 7 return that of x1, the next eights those of y1, x2 and y2.
template <class A>
__device__ __forceinline__ A warp_sum_of_four(A x1, A y1, A x2, A y2) {
  const unsigned lane = threadIdx.x % kWarpSize;
  const bool upper = (lane & 16u) != 0;
  A first = upper ? x2 : x1;
  A second = upper ? y2 : y1;
  first += __shfl_xor_sync(kFullWarp, upper ? x1 : x2, 16);
  second += __shfl_xor_sync(kFullWarp, upper ? y1 : y2, 16);
  const bool odd = (lane & 8u) != 0;
  A sum = odd ? second : first;
  sum += __shfl_xor_sync(kFullWarp, odd ? first : second, 8);
  for (int offset = 4; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
  return sum;
}

// Arrays are contiguous.
template <class A>
struct IouGradArguments {
  const void* boxes1;  // [batch, n, 4] of `dtype`
  const void* boxes2;  // [batch, m, 4] of `dtype`
  Dtype dtype;
  const A* grad;  // [batch, n, m]
  int64_t batch, n, m;
  double* row_sums;     // [column tiles, batch * n, 4], or null
  double* column_sums;  // [row tiles, batch * m, 4], or null
  IouEps<A> eps;
  bool aligned;         // boxes allow accesses of four values
  int64_t first_block;  // added to the index of the block
};

// launch: batch * ceil(n / kIouGradRows) * ceil(m / kIouThreads) blocks of kIouThreads.
template <class A, IouKind K>
__global__ void __launch_bounds__(kIouThreads) box_iou_grad_kernel(IouGradArguments<A> args) {
  RETINA_OPS_SHARED(MeasuredBox<A>[kIouGradRows], rows);
  RETINA_OPS_SHARED(A[kIouGradRows][kIouWarps][4], sums);
  const int64_t column_tiles = ceil_div<int64_t>(args.m, kIouThreads);
  const int64_t row_tiles = ceil_div<int64_t>(args.n, kIouGradRows);
  const int64_t block = args.first_block + static_cast<int64_t>(blockIdx.x);
  const int64_t column_tile = block % column_tiles;
  const int64_t row_tile = block / column_tiles % row_tiles;
  const int64_t image = block / column_tiles / row_tiles;
  const int64_t row = row_tile * kIouGradRows;
  const int64_t column = column_tile * kIouThreads + threadIdx.x;
  const int count = static_cast<int>(args.n - row < kIouGradRows ? args.n - row : kIouGradRows);
  if (threadIdx.x < static_cast<unsigned>(count)) {
    rows[threadIdx.x] = measured<K, A, FusedMath>(
        load_box_of<A>(args.boxes1, args.dtype, image * args.n + row + threadIdx.x, args.aligned));
  }
  const bool exists = column < args.m;
  const Box<A> none{A(0), A(0), A(0), A(0)};
  const MeasuredBox<A> own = measured<K, A, FusedMath>(
      exists ? load_box_of<A>(args.boxes2, args.dtype, image * args.m + column, args.aligned) : none);
  const A* grad = args.grad + (image * args.n + row) * args.m + column;
  Box<A> total = none;
  __syncthreads();
  for (int r = 0; r < count; ++r) {
    const IouTerms<A> terms = iou_terms<K, IouReading::kPairwise, A, FusedMath>(rows[r], own, args.eps);
    const A factor = exists ? -grad[r * args.m] : A(0);  // the terms are of 1 - similarity
    // Where the upstream gradient is 0, the pair has no gradient, even if its terms are NaN.
    const bool counts = factor != A(0);
    total.x1 += counts ? factor * terms.for_b.x1 : A(0);
    total.y1 += counts ? factor * terms.for_b.y1 : A(0);
    total.x2 += counts ? factor * terms.for_b.x2 : A(0);
    total.y2 += counts ? factor * terms.for_b.y2 : A(0);
    const A sum = warp_sum_of_four(counts ? factor * terms.for_a.x1 : A(0), counts ? factor * terms.for_a.y1 : A(0),
                                   counts ? factor * terms.for_a.x2 : A(0), counts ? factor * terms.for_a.y2 : A(0));
    if (threadIdx.x % 8 == 0) sums[r][threadIdx.x / kWarpSize][threadIdx.x % kWarpSize / 8] = sum;
  }
  if (args.column_sums != nullptr && exists) {
    double* to = args.column_sums + 4 * ((row_tile * args.batch + image) * args.m + column);
    to[0] = static_cast<double>(total.x1);
    to[1] = static_cast<double>(total.y1);
    to[2] = static_cast<double>(total.x2);
    to[3] = static_cast<double>(total.y2);
  }
  if (args.row_sums == nullptr) return;
  __syncthreads();
  double* to = args.row_sums + 4 * ((column_tile * args.batch + image) * args.n + row);
  for (int i = static_cast<int>(threadIdx.x); i < 4 * count; i += kIouThreads) {
    double sum = 0.0;
    for (int warp = 0; warp < kIouWarps; ++warp) sum += static_cast<double>(sums[i / 4][warp][i % 4]);
    to[i] = sum;
  }
}

constexpr int kTileLanes = kWarpSize / 4;  // lanes that read the same coordinate, of different tiles

// values[i] = the sum of sums[tile][i] over the tiles, for i in [first, count), both multiples of 4.
// launch: one warp per box. Four lanes next to each other read its four coordinates, each group of four another tile.
template <class T>
__global__ void __launch_bounds__(kIouThreads)
    add_tiles_kernel(const double* sums, int64_t tiles, int64_t first, int64_t count, T* values) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kIouThreads + threadIdx.x) / kWarpSize;
  const int64_t i = first + 4 * warp + lane % 4;
  if (i >= count) return;  // the whole warp returns
  double sum = 0.0;
  for (int64_t tile = lane / 4; tile < tiles; tile += kTileLanes) sum += sums[tile * count + i];
  for (int offset = 4; offset < kWarpSize; offset *= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
  if (lane < 4) values[i] = from_arithmetic<T>(static_cast<ArithmeticOf<T>>(sum));
}

}  // namespace retina_ops
