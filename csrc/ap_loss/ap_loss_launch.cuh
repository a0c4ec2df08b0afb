// The launches of one call of the AP loss, over workspace that the caller allocates. No torch.
#pragma once

#include "ap_loss/ap_loss_rank.cuh"

namespace retina_ops {

constexpr int64_t kApLossCountBlocks = 1024;  // at most, of the kernel that counts in shared memory

// A call on the device: launch_ap_loss_gather, a stable sort of `values`, launch_ap_loss. A is double for float64
// logits and float for others. Dense targets have rows of one class. slots = rows - limits.first, at least 1.
// limits.first: the first row.
struct ApLossDevice : ApLossProblem {
  void* values;                   // [rows] A
  const int64_t* order;           // [slots] slots by ascending value
  uint64_t* positives;            // [] zero
  uint64_t* has_nan;              // [] zero
  void* breakpoints;              // [2 slots] A
  int64_t* owners;                // [2 slots]
  int64_t* begins;                // [slots]
  int64_t* ends;                  // [slots]
  uint64_t* of_negatives;         // [2 slots + 1, 2]
  uint64_t* of_positives;         // [2 slots + 1, 2]
  uint64_t* units;                // [2 slots]
  double* slopes;                 // [2 slots]
  double* errors;                 // [slots]
  double* weights;                // [slots]
  void* lines;                    // [2 slots + 1, 3] A
  const double* upstream_scalar;  // [] on the device, or null: 1
  void* result;                   // [] A
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class A>
ApLossKernelArguments<A> ap_loss_arguments(const ApLossDevice& device) {
  ApLossKernelArguments<A> args{};
  args.problem = device;
  args.by_classes = Divider::of(device.classes);
  args.first = device.limits.first;
  args.values = static_cast<A*>(device.values);
  args.order = device.order;
  args.positives = reinterpret_cast<unsigned long long*>(device.positives);
  args.has_nan = reinterpret_cast<unsigned long long*>(device.has_nan);
  args.breakpoints = static_cast<A*>(device.breakpoints);
  args.owners = device.owners;
  args.begins = device.begins;
  args.ends = device.ends;
  args.of_negatives = reinterpret_cast<ApLossCell*>(device.of_negatives);
  args.of_positives = reinterpret_cast<ApLossCell*>(device.of_positives);
  args.units = device.units;
  args.slopes = device.slopes;
  args.errors = device.errors;
  args.weights = device.weights;
  args.lines = static_cast<ApLossLine<A>*>(device.lines);
  args.upstream = device.upstream_scalar;
  args.result = static_cast<A*>(device.result);
  return args;
}

inline dim3 ap_loss_grid(int64_t threads) {
  return dim3(static_cast<unsigned>(ceil_div<int64_t>(threads, kApLossThreads)));
}

template <class S>
void launch_ap_loss_gather_typed(const ApLossDevice& device) {
  launch(ap_loss_gather_kernel<S>, ap_loss_grid(device.rows - device.limits.first), dim3(kApLossThreads), 0,
         device.stream, ap_loss_arguments<ArithmeticOf<S>>(device));
}

template <class S>
void launch_ap_loss_typed(const ApLossDevice& device) {
  using A = ArithmeticOf<S>;
  const ApLossKernelArguments<A> args = ap_loss_arguments<A>(device);
  const int64_t slots = device.rows - device.limits.first;
  const int64_t n = slots * device.classes;
  const double unit = ap_loss_unit(n);
  const dim3 threads(kApLossThreads);
  launch(ap_loss_windows_kernel<A>, ap_loss_grid(slots), threads, 0, device.stream, args);
  launch(ap_loss_count_kernel<S>, grid_of(ceil_div<int64_t>(n, kApLossThreads), kApLossCountBlocks, device.limits),
         threads, 0, device.stream, args, unit);
  launch(ap_loss_rank_kernel<A>, dim3(1), dim3(kApLossWide), 0, device.stream, args, unit);
  if (device.grad == nullptr) return;
  launch(ap_loss_update_kernel<S>, ap_loss_grid(n), threads, 0, device.stream, args);
  launch(ap_loss_update_positives_kernel<S>, ap_loss_grid(slots), threads, 0, device.stream, args);
}

inline void launch_ap_loss_gather(const ApLossDevice& device) {
  switch (device.dtype) {
    case Dtype::kFloat32: return launch_ap_loss_gather_typed<float>(device);
    case Dtype::kFloat64: return launch_ap_loss_gather_typed<double>(device);
    case Dtype::kFloat16: return launch_ap_loss_gather_typed<__half>(device);
    case Dtype::kBFloat16: return launch_ap_loss_gather_typed<__nv_bfloat16>(device);
  }
}
RETINA_OPS_LAUNCH(launch_ap_loss_gather, ApLossDevice, logits, dtype, rows, classes, labels, dense, dense_dtype,
                  ignore_index, values, positives, has_nan, limits);

inline void launch_ap_loss(const ApLossDevice& device) {
  switch (device.dtype) {
    case Dtype::kFloat32: return launch_ap_loss_typed<float>(device);
    case Dtype::kFloat64: return launch_ap_loss_typed<double>(device);
    case Dtype::kFloat16: return launch_ap_loss_typed<__half>(device);
    case Dtype::kBFloat16: return launch_ap_loss_typed<__nv_bfloat16>(device);
  }
}
RETINA_OPS_LAUNCH(launch_ap_loss, ApLossDevice, logits, dtype, rows, classes, labels, dense, dense_dtype, ignore_index,
                  delta, grad, values, order, positives, has_nan, breakpoints, owners, begins, ends, of_negatives,
                  of_positives, units, slopes, errors, weights, lines, upstream_scalar, result, limits);

}  // namespace retina_ops
