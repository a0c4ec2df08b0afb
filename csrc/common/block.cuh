// Reductions over a block. Deterministic: the order of the additions depends on the block size alone. No torch.
#pragma once

#include "common/launch.cuh"

namespace retina_ops {

// Sum of `value` over the block's kThreads threads (a multiple of 32, at most 1024); the result is thread 0's alone.
// All threads of the block must call it, and __syncthreads() must stand between two calls.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T value) {
  RETINA_OPS_SHARED(T[kThreads / 32], partial);
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value += __shfl_down_sync(kFullWarp, value, offset);
  }
  if (threadIdx.x % kWarpSize == 0) {
    partial[threadIdx.x / kWarpSize] = value;
  }
  __syncthreads();
  if (threadIdx.x < kWarpSize) {
    value = threadIdx.x < kThreads / kWarpSize ? partial[threadIdx.x] : T(0);
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
      value += __shfl_down_sync(kFullWarp, value, offset);
    }
  }
  return value;
}

// Sum of `value` over all threads of the launch, in an order that depends on the launch's shape alone: the last block
// to finish adds the blocks' sums. True, with the sum in `total`, for one thread of the launch. All threads must call
// it. partial: [gridDim.x] workspace; done: [] zero before and after.
template <int kThreads>
__device__ __forceinline__ bool grid_sum(double value, double* partial, unsigned* done, double& total) {
  RETINA_OPS_SHARED(bool, is_last);
  value = block_sum<kThreads>(value);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = value;
    __threadfence();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    __threadfence();  // the other blocks' sums are read after their counts
  }
  __syncthreads();
  if (!is_last) return false;
  value = 0.0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) value += partial[i];
  total = block_sum<kThreads>(value);
  if (threadIdx.x != 0) return false;
  *done = 0;
  return true;
}

}  // namespace retina_ops
