// The AP loss on CUDA: the kernels over slots and logits. No torch.
//
// A slot is a row for class-index targets and a logit for dense ones; it has at most one positive. The number P of
// positives is known on the device alone, so that grids and workspace are sized for as many positives as slots, and
// threads without work leave. Lower bounds for float32: 8 bytes per logit for two reads, 4 for the update, and two
// binary searches among 2 P breakpoints, which the caches hold. Sums over segments are integers: the order of the
// atomics does not matter. Not yet timed on a GPU.
#pragma once

#include "ap_loss/ap_loss.h"
#include "common/block.cuh"
#include "common/divider.cuh"
#include "common/vector.cuh"

namespace retina_ops {

constexpr int kApLossThreads = 256;
constexpr int kApLossWide = 1024;             // threads of the single block that scans the segments
constexpr int64_t kApLossSharedCells = 1024;  // up to so many segments, a block counts in shared memory

// One call. A is the type of the arithmetic; slots [first, rows) are used, and workspace without `first` begins at 0.
template <class A>
struct ApLossKernelArguments {
  ApLossProblem problem;
  Divider by_classes;
  int64_t first;
  A* values;                      // [rows] logit of the slot's positive; infinity where there is none
  const int64_t* order;           // [slots] slots by ascending value
  unsigned long long* positives;  // [] P; zero before
  unsigned long long* has_nan;    // [] zero before
  A* breakpoints;                 // [2 slots] ascending
  int64_t* owners;                // [2 slots] positive i where its window begins, -1 - i where it ends
  int64_t* begins;                // [slots] breakpoint at which the window of a positive begins
  int64_t* ends;                  // [slots] and ends
  ApLossCell* of_negatives;       // [2 slots + 1] sums over a segment, then over it and all before
  ApLossCell* of_positives;       // [2 slots + 1]
  uint64_t* units;                // [2 slots] position of a breakpoint
  double* slopes;                 // [2 slots] of the update
  double* errors;                 // [slots] e of a positive, then interpolated
  double* weights;                // [slots] a + b of a positive, then w
  ApLossLine<A>* lines;           // [2 slots + 1]
  const double* upstream;         // [], or null: 1
  A* result;                      // []
};

// --- targets ---

template <class A>
__device__ __forceinline__ A dense_target(const ApLossProblem& problem, int64_t i) {
  switch (problem.dense_dtype) {
    case Dtype::kFloat32: return static_cast<A>(static_cast<const float*>(problem.dense)[i]);
    case Dtype::kFloat64: return static_cast<A>(static_cast<const double*>(problem.dense)[i]);
    case Dtype::kFloat16: return static_cast<A>(to_arithmetic(static_cast<const __half*>(problem.dense)[i]));
    default: return static_cast<A>(to_arithmetic(static_cast<const __nv_bfloat16*>(problem.dense)[i]));
  }
}

enum class ApLossRole { kIgnored, kNegative, kPositive };

template <class A>
__device__ __forceinline__ ApLossRole role_of(const ApLossKernelArguments<A>& args, int64_t i) {
  const ApLossProblem& problem = args.problem;
  if (problem.labels == nullptr) {
    const A target = dense_target<A>(problem, i);
    return target > A(0) ? ApLossRole::kPositive : target < A(0) ? ApLossRole::kIgnored : ApLossRole::kNegative;
  }
  const int64_t row = args.by_classes(i);
  const int64_t label = problem.labels[row];
  if (label == problem.ignore_index) return ApLossRole::kIgnored;
  return i - row * problem.classes == label ? ApLossRole::kPositive : ApLossRole::kNegative;
}

// The logit of the slot's positive; -1 where it has none, -2 where its label is out of range.
template <class A>
__device__ __forceinline__ int64_t positive_of_slot(const ApLossKernelArguments<A>& args, int64_t slot) {
  const ApLossProblem& problem = args.problem;
  if (problem.labels == nullptr) return dense_target<A>(problem, slot) > A(0) ? slot : -1;
  const int64_t label = problem.labels[slot];
  if (label == problem.ignore_index || label == problem.classes) return -1;
  return label < 0 || label > problem.classes ? -2 : slot * problem.classes + label;
}

// --- the windows ---

// Finds and counts the positives. launch: one thread per slot.
template <class S>
__global__ void __launch_bounds__(kApLossThreads) ap_loss_gather_kernel(ApLossKernelArguments<ArithmeticOf<S>> args) {
  using A = ArithmeticOf<S>;
  const int64_t slot = args.first + static_cast<int64_t>(blockIdx.x) * kApLossThreads + threadIdx.x;
  bool is_positive = false;
  if (slot < args.problem.rows) {
    const int64_t i = positive_of_slot(args, slot);
    A value = std::numeric_limits<A>::infinity();
    if (i >= 0) {
      const A x = ap_loss_clamped(to_arithmetic(static_cast<const S*>(args.problem.logits)[i]));
      is_positive = x == x;
      if (is_positive) value = x;
    }
    if (i == -2) atomicOr(args.has_nan, 1ull);  // a NaN logit is found by the pass over all of them
    args.values[slot] = value;
  }
  const int count = block_sum<kApLossThreads>(is_positive ? 1 : 0);
  if (threadIdx.x == 0 && count > 0) atomicAdd(args.positives, static_cast<unsigned long long>(count));
}

// How many of the P windows, ascending, begin at most at `point`, or end before it.
template <bool kEnds, class A>
__device__ __forceinline__ int64_t windows_before(const ApLossKernelArguments<A>& args, int64_t positives, A point) {
  int64_t low = 0, high = positives;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    const A s = args.values[args.order[middle]];
    const bool before =
        kEnds ? window_end(s, args.problem.delta) < point : window_begin(s, args.problem.delta) <= point;
    if (before) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sorts the breakpoints: each window knows how many others come before. launch: one thread per slot.
template <class A>
__global__ void __launch_bounds__(kApLossThreads) ap_loss_windows_kernel(ApLossKernelArguments<A> args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kApLossThreads + threadIdx.x;
  const int64_t positives = static_cast<int64_t>(*args.positives);
  if (i == 0) {
    args.of_negatives[0] = args.of_positives[0] = ApLossCell{0, 0};
    args.lines[0] = ApLossLine<A>{A(0), A(0), A(0)};
  }
  if (i >= positives) return;
  const A s = args.values[args.order[i]];
  const A begin = window_begin(s, args.problem.delta), end = window_end(s, args.problem.delta);
  const int64_t begin_at = i + windows_before<true>(args, positives, begin);
  const int64_t end_at = i + windows_before<false>(args, positives, end);
  args.breakpoints[begin_at] = begin;
  args.breakpoints[end_at] = end;
  args.owners[begin_at] = i;
  args.owners[end_at] = -1 - i;
  args.begins[i] = begin_at;
  args.ends[i] = end_at;
  for (int64_t k = 2 * i + 1; k <= 2 * i + 2; ++k) args.of_negatives[k] = args.of_positives[k] = ApLossCell{0, 0};
}

// Whether a window covers the segment that begins at breakpoint k: more windows have begun there than ended.
template <class A>
__device__ __forceinline__ bool is_covered(const ApLossKernelArguments<A>& args, int64_t k) {
  const int64_t owner = args.owners[k];
  return owner >= 0 || k - 2 * (-1 - owner) - 1 > 0;
}

// --- the sums over the segments ---

template <class A>
__device__ __forceinline__ int64_t segment_of(const A* breakpoints, int64_t points, A x) {
  int64_t low = 0, high = points;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (breakpoints[middle] <= x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

__device__ __forceinline__ void add_atomically(ApLossCell* cell, uint64_t count, uint64_t total) {
  atomicAdd(reinterpret_cast<unsigned long long*>(&cell->count), static_cast<unsigned long long>(count));
  atomicAdd(reinterpret_cast<unsigned long long*>(&cell->total), static_cast<unsigned long long>(total));
}

// Adds all logits that are not ignored to the sums of their segments. launch: any number of blocks.
template <class S>
__global__ void __launch_bounds__(kApLossThreads)
    ap_loss_count_kernel(ApLossKernelArguments<ArithmeticOf<S>> args, double unit) {
  using A = ArithmeticOf<S>;
  RETINA_OPS_SHARED(ApLossCell[kApLossSharedCells], shared);
  const int64_t points = 2 * static_cast<int64_t>(*args.positives);
  const bool is_shared = points < kApLossSharedCells;
  ApLossCell* of_negatives = is_shared ? shared : args.of_negatives;
  if (is_shared) {
    for (int64_t k = threadIdx.x; k <= points; k += kApLossThreads) shared[k] = ApLossCell{0, 0};
    __syncthreads();
  }
  const double scale = unit / (2.0 * args.problem.delta);
  const int64_t n = args.problem.rows * args.problem.classes;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kApLossThreads;
  for (int64_t i = args.first * args.problem.classes + static_cast<int64_t>(blockIdx.x) * kApLossThreads + threadIdx.x;
       i < n; i += stride) {
    const ApLossRole role = role_of(args, i);
    if (role == ApLossRole::kIgnored) continue;
    const A x = ap_loss_clamped(to_arithmetic(static_cast<const S*>(args.problem.logits)[i]));
    if (x != x) {
      atomicOr(args.has_nan, 1ull);
      continue;
    }
    const int64_t segment = segment_of(args.breakpoints, points, x);
    if (segment == 0) continue;
    uint64_t total = 0;
    if (is_covered(args, segment - 1)) {
      total = ap_loss_units((static_cast<double>(x) - static_cast<double>(args.breakpoints[segment - 1])) * scale);
    }
    add_atomically((role == ApLossRole::kPositive ? args.of_positives : of_negatives) + segment, 1, total);
  }
  if (is_shared) {
    __syncthreads();
    for (int64_t k = threadIdx.x; k <= points; k += kApLossThreads) {
      if (shared[k].count > 0) add_atomically(args.of_negatives + k, shared[k].count, shared[k].total);
    }
  }
}

// --- the update ---

// Of negatives, and 0 where a logit is ignored. launch: one thread per logit.
template <class S>
__global__ void __launch_bounds__(kApLossThreads) ap_loss_update_kernel(ApLossKernelArguments<ArithmeticOf<S>> args) {
  using A = ArithmeticOf<S>;
  const int64_t i = args.first * args.problem.classes + static_cast<int64_t>(blockIdx.x) * kApLossThreads + threadIdx.x;
  if (i >= args.problem.rows * args.problem.classes) return;
  const ApLossRole role = role_of(args, i);
  A update = A(0);
  if (role != ApLossRole::kIgnored && *args.has_nan != 0) {
    update = not_a_number<A>();
  } else if (role == ApLossRole::kPositive) {
    return;  // of the next kernel
  } else if (role == ApLossRole::kNegative) {
    const A x = ap_loss_clamped(to_arithmetic(static_cast<const S*>(args.problem.logits)[i]));
    const int64_t points = 2 * static_cast<int64_t>(*args.positives);
    const ApLossLine<A> line = args.lines[segment_of(args.breakpoints, points, x)];
    update = line.value + line.slope * (x - line.base);
  }
  static_cast<S*>(args.problem.grad)[i] = from_arithmetic<S>(update);
}

// Of positives. launch: one thread per slot.
template <class S>
__global__ void __launch_bounds__(kApLossThreads)
    ap_loss_update_positives_kernel(ApLossKernelArguments<ArithmeticOf<S>> args) {
  using A = ArithmeticOf<S>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kApLossThreads + threadIdx.x;
  const int64_t positives = static_cast<int64_t>(*args.positives);
  if (i >= positives || *args.has_nan != 0) return;
  const double upstream = args.upstream != nullptr ? *args.upstream : 1.0;
  const A update = static_cast<A>(args.errors[i] * (-upstream / static_cast<double>(positives)));
  static_cast<S*>(args.problem.grad)[positive_of_slot(args, args.order[i])] = from_arithmetic<S>(update);
}

}  // namespace retina_ops
