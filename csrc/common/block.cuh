// Sums over a block and over a launch. They are deterministic: the order of the additions depends on the number of
// threads and blocks alone. No torch.
#pragma once

#include "common/launch.cuh"

namespace retina_ops {

// Returns to thread 0 the sum of `value` over the kThreads threads of the block (a multiple of 32, at most 1024). All
// threads of the block must call it, and __syncthreads() must stand between two calls.
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

// Sum of `value` over all threads of the launch: the last block to finish adds the sums of the blocks. It returns true
// to one thread of the launch, and writes the sum into that thread's `total`. All threads must call it. partial:
// [gridDim.x] workspace; done: [] zero before and after.
template <int kThreads>
__device__ __forceinline__ bool grid_sum(double value, double* partial, unsigned* done, double& total) {
  RETINA_OPS_SHARED(bool, is_last);
  value = block_sum<kThreads>(value);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = value;
    __threadfence();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    __threadfence();  // the sums of the other blocks are read after their increments of `done`
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
