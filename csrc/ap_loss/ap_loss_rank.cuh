// The AP loss on CUDA: the kernel that turns the sums over the segments into the loss and the lines of the update. No
// torch. One block scans the segments: seven prefix sums and a running minimum, with two barriers per 1,024 segments
// each.
#pragma once

#include "ap_loss/ap_loss_kernels.cuh"

namespace retina_ops {

struct ApLossPlus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct ApLossLeast {
  __device__ __forceinline__ double operator()(double a, double b) const { return a < b ? a : b; }
};

// Calls write(k, in(0) op ... op in(k)) for k in [0, n), in an order of operations that depends on n alone. All threads
// of the block call it; afterwards they see what the others wrote.
template <class T, class Op, class In, class Write>
__device__ __forceinline__ void scan(int64_t n, T identity, const Op& op, const In& in, const Write& write) {
  constexpr int kWarps = kApLossWide / kWarpSize;
  RETINA_OPS_SHARED(T[kWarps], of_warps);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  T carry = identity;
  for (int64_t tile = 0; tile < n; tile += kApLossWide) {
    const int64_t k = tile + threadIdx.x;
    T value = k < n ? in(k) : identity;
    for (int by = 1; by < kWarpSize; by *= 2) {
      const T before = __shfl_up_sync(kFullWarp, value, by);
      if (lane >= by) value = op(before, value);
    }
    if (lane == kWarpSize - 1) of_warps[warp] = value;
    __syncthreads();
    // Every warp scans the sums of all warps.
    T sum = of_warps[lane];
    for (int by = 1; by < kWarpSize; by *= 2) {
      const T before = __shfl_up_sync(kFullWarp, sum, by);
      if (lane >= by) sum = op(before, sum);
    }
    const T of_previous = __shfl_sync(kFullWarp, sum, warp > 0 ? warp - 1 : 0);
    if (warp > 0) value = op(of_previous, value);
    if (k < n) write(k, op(carry, value));
    carry = op(carry, __shfl_sync(kFullWarp, sum, kWarpSize - 1));
    __syncthreads();  // of_warps is written again
  }
}

// Sums over a segment become sums over it and all before: counts, and positions from the first breakpoint.
__device__ __forceinline__ void scan_cells(ApLossCell* cells, const uint64_t* units, int64_t points) {
  const auto cell_total = [&](int64_t k) { return cells[k + 1].total + cells[k + 1].count * units[k]; };
  const auto put_total = [&](int64_t k, uint64_t sum) { cells[k + 1].total = sum; };
  scan(points, uint64_t(0), ApLossPlus{}, cell_total, put_total);
  const auto cell_count = [&](int64_t k) { return cells[k + 1].count; };
  const auto put_count = [&](int64_t k, uint64_t sum) { cells[k + 1].count = sum; };
  scan(points, uint64_t(0), ApLossPlus{}, cell_count, put_count);
}

template <class A>
__device__ __forceinline__ double height_of(const ApLossKernelArguments<A>& args, int64_t i) {
  return height_at_begin(args.values[args.order[i]], args.breakpoints[args.begins[i]], args.problem.delta);
}

// Errors, weights and the loss. cell k holds the sums before breakpoint k.
template <class A>
__device__ __forceinline__ void rank_positives(const ApLossKernelArguments<A>& args, int64_t positives, double unit) {
  const auto rank = [&](const ApLossCell* cells, int64_t i) {
    const ApLossCell& begin = cells[args.begins[i]];
    const ApLossCell& end = cells[args.ends[i]];
    const uint64_t start = args.units[args.begins[i]] - ap_loss_units(height_of(args, i) * unit);
    return ap_loss_rank(ApLossPrefix{begin.count, begin.total}, ApLossPrefix{end.count, end.total},
                        cells[2 * positives].count, start, unit);
  };
  const double count = static_cast<double>(positives);
  const auto error_of = [&](int64_t i) {
    const double above = rank(args.of_negatives, i);
    const double b = above > 0.0 ? above : 0.0;
    args.weights[i] = rank(args.of_positives, i) + 0.5 + b;
    args.errors[i] = b / args.weights[i];
    return args.errors[i];
  };
  const auto interpolate = [&](int64_t i, double least) {
    const double error = args.errors[i];
    args.weights[i] = error > 0.0 ? least / error / args.weights[i] / count : 0.0;
    args.errors[i] = least;
  };
  scan(positives, 1.0, ApLossLeast{}, error_of, interpolate);
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < positives; i += kApLossWide) sum += args.errors[i] / count;
  sum = block_sum<kApLossWide>(sum);
  if (threadIdx.x == 0) *args.result = *args.has_nan != 0 ? not_a_number<A>() : static_cast<A>(sum);
}

// H(x - s) of every positive, with its weight, added up: a piecewise linear function.
template <class A>
__device__ __forceinline__ void add_up_windows(const ApLossKernelArguments<A>& args, int64_t points, double unit) {
  const double delta = args.problem.delta;
  const double upstream = args.upstream != nullptr ? *args.upstream : 1.0;
  const auto weight_of = [&](int64_t k) {
    const int64_t owner = args.owners[k];
    return owner >= 0 ? args.weights[owner] : -args.weights[-1 - owner];
  };
  const auto put_slope = [&](int64_t k, double slope) { args.slopes[k] = is_covered(args, k) ? slope : 0.0; };
  scan(points, 0.0, ApLossPlus{}, weight_of, put_slope);
  const auto step_to = [&](int64_t k) {
    const double length = k > 0 ? segment_length(args.breakpoints[k - 1], args.breakpoints[k], delta) : 0.0;
    const double grown = k > 0 ? args.slopes[k - 1] * length : 0.0;
    const int64_t owner = args.owners[k];
    if (owner >= 0) return grown + args.weights[owner] * height_of(args, owner);
    const int64_t i = -1 - owner;
    const double width = static_cast<double>(args.units[k] - args.units[args.begins[i]]) / unit;
    return grown + args.weights[i] * (1.0 - (height_of(args, i) + width));  // a window ends at H = 1
  };
  const auto put_line = [&](int64_t k, double value) {
    const double most = static_cast<double>(std::numeric_limits<A>::max());  // a product with 0 must stay 0
    const double steepness = args.slopes[k] / (2.0 * delta);
    args.lines[k + 1] = {is_covered(args, k) ? args.breakpoints[k] : A(0),
                         static_cast<A>(static_cast<double>(static_cast<A>(value)) * upstream),
                         static_cast<A>((steepness < most ? steepness : most) * upstream)};
  };
  scan(points, 0.0, ApLossPlus{}, step_to, put_line);
}

// From the sums over the segments to the loss, and to the lines where the update is wanted. launch: one block.
template <class A>
__global__ void __launch_bounds__(kApLossWide) ap_loss_rank_kernel(ApLossKernelArguments<A> args, double unit) {
  const int64_t positives = static_cast<int64_t>(*args.positives);
  const int64_t points = 2 * positives;
  const auto length_before = [&](int64_t k) {
    return k == 0
               ? uint64_t(0)
               : ap_loss_units(segment_length(args.breakpoints[k - 1], args.breakpoints[k], args.problem.delta) * unit);
  };
  const auto put_units = [&](int64_t k, uint64_t sum) { args.units[k] = sum; };
  scan(points, uint64_t(0), ApLossPlus{}, length_before, put_units);
  scan_cells(args.of_negatives, args.units, points);
  scan_cells(args.of_positives, args.units, points);
  rank_positives(args, positives, unit);
  if (args.problem.grad != nullptr) add_up_windows(args, points, unit);
}

}  // namespace retina_ops
