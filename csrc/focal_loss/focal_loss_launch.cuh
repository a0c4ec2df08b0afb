// Chooses and launches a kernel by dtype, kind of targets and gamma. No torch.
#pragma once

#include <cstdint>

#include "common/half_block.h"
#include "focal_loss/focal_loss_cpu.h"
#include "focal_loss/focal_loss_kernels.cuh"

namespace retina_ops {

// A call on the device. limits.first: the first element that is computed, the first of a row.
struct FocalDevice : FocalProblem {
  int64_t n;                      // elements
  const double* upstream_factor;  // [] or null: `upstream` is per element
  const int64_t* counted;         // [] elements that the mean divides by, or null
  double* partial;                // [kFocalMaxBlocks] workspace of a reduction, or null: elementwise
  unsigned* done;                 // [] zero; of a reduction
  void* result;                   // [] the sum or mean; of a reduction
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class T, class TargetT>
FocalKernelArguments<T, TargetT> focal_arguments(const FocalDevice& device) {
  FocalKernelArguments<T, TargetT> args{};
  args.logits = static_cast<const T*>(device.logits);
  args.targets = static_cast<const TargetT*>(device.labels != nullptr ? device.labels : device.soft_targets);
  args.alpha_per_class = static_cast<const ArithmeticOf<T>*>(device.alpha_per_class);
  args.upstream = static_cast<const T*>(device.upstream);
  args.upstream_factor = device.upstream_factor;
  args.counted = device.counted;
  args.loss_out = static_cast<T*>(device.loss_out);
  args.grad_out = static_cast<T*>(device.grad_out);
  args.first = device.limits.first;
  args.n = device.n;
  args.classes = Divider::of(device.classes);
  args.ignore_index = device.ignore_index;
  args.alpha = static_cast<ArithmeticOf<T>>(device.alpha);
  args.gamma = device.gamma;
  args.aligned = is_aligned(args.logits, 16) && (device.labels != nullptr || is_aligned(args.targets, 16)) &&
                 is_aligned(args.upstream, 16) && is_aligned(args.loss_out, 16) && is_aligned(args.grad_out, 16);
  return args;
}

// The reducing kernel of long rows. Returns false where it does not apply.
template <class T, Gamma G>
bool launch_focal_rows(const FocalKernelArguments<T, int64_t>& args, const FocalDevice& device) {
  const int64_t classes = args.classes.divisor;
  if (args.alpha_per_class != nullptr || classes < kRowPack<T> || classes > kMostFocalClasses) return false;
  const int64_t packs = ceil_div<int64_t>(args.n - args.first, kRowPack<T>);
  const auto kernel =
      args.grad_out != nullptr ? focal_loss_rows_kernel<T, G, true> : focal_loss_rows_kernel<T, G, false>;
  launch(kernel, grid_of(ceil_div<int64_t>(packs, kFocalThreads), kFocalMaxBlocks, device.limits), dim3(kFocalThreads),
         0, device.stream, args, device.partial, device.done, static_cast<ArithmeticOf<T>*>(device.result));
  return true;
}

template <class T, class TargetT, Gamma G>
void launch_focal_loss_gamma(const FocalDevice& device) {
  const FocalKernelArguments<T, TargetT> args = focal_arguments<T, TargetT>(device);
  const int64_t packs = ceil_div<int64_t>(device.n - device.limits.first, kFocalPack<T>);
  const int64_t blocks = ceil_div<int64_t>(packs, kFocalThreads);
  if (device.partial != nullptr) {
    if constexpr (std::is_same_v<TargetT, int64_t>) {
      if (launch_focal_rows<T, G>(args, device)) return;
    }
    const auto kernel = args.grad_out != nullptr ? focal_loss_reduced_kernel<T, TargetT, G, true>
                                                 : focal_loss_reduced_kernel<T, TargetT, G, false>;
    launch(kernel, grid_of(blocks, kFocalMaxBlocks, device.limits), dim3(kFocalThreads), 0, device.stream, args,
           device.partial, device.done, static_cast<ArithmeticOf<T>*>(device.result));
    return;
  }
  if (blocks == 0) return;
  const auto kernel = device.order == 2 ? focal_loss_elementwise_kernel<T, TargetT, G, 2>
                                        : focal_loss_elementwise_kernel<T, TargetT, G, 1>;
  launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kFocalThreads), 0, device.stream, args);
}

// The values of gamma with kernels of their own are the most used ones of the paper's experiments.
template <class T, class TargetT>
void launch_focal_loss_typed(const FocalDevice& device) {
  switch (gamma_case(device.gamma)) {
    case Gamma::kZero: return launch_focal_loss_gamma<T, TargetT, Gamma::kZero>(device);
    case Gamma::kTwo: return launch_focal_loss_gamma<T, TargetT, Gamma::kTwo>(device);
    case Gamma::kOne:
      if constexpr (sizeof(T) < 8) return launch_focal_loss_gamma<T, TargetT, Gamma::kOne>(device);
      [[fallthrough]];
    case Gamma::kThreeHalves:
      if constexpr (sizeof(T) < 8) {
        if (device.gamma == 1.5) return launch_focal_loss_gamma<T, TargetT, Gamma::kThreeHalves>(device);
      }
      [[fallthrough]];
    default: return launch_focal_loss_gamma<T, TargetT, Gamma::kAny>(device);
  }
}

// In focal_loss_labels.cu and focal_loss_soft.cu.
void launch_focal_loss_labels(const FocalDevice& device);
void launch_focal_loss_soft(const FocalDevice& device);

inline void launch_focal_loss(const FocalDevice& device) {
  if (device.labels != nullptr) {
    launch_focal_loss_labels(device);
  } else {
    launch_focal_loss_soft(device);
  }
}
RETINA_OPS_LAUNCH(launch_focal_loss, FocalDevice, logits, dtype, classes, labels, soft_targets, soft_dtype,
                  ignore_index, alpha_per_class, alpha, gamma, order, loss_out, grad_out, upstream, n, upstream_factor,
                  counted, partial, done, result, limits);

constexpr int64_t kFocalCountBlocks = 512;  // at most

// Counting labels on the device. limits.first: the first row that is counted.
struct FocalCount {
  const int64_t* labels;  // [rows]
  int64_t rows;
  int64_t classes;
  int64_t ignore_index;
  int64_t* counts;  // [2] zero before: elements of rows that are not ignored, and rows with a label out of range
  LaunchLimits limits;
  cudaStream_t stream;
};

inline void launch_focal_count(const FocalCount& count) {
  const int64_t blocks = ceil_div<int64_t>(count.rows - count.limits.first, kFocalThreads);
  if (blocks == 0) return;
  auto* counted = reinterpret_cast<unsigned long long*>(count.counts);
  launch(focal_loss_count_kernel<kFocalThreads>, grid_of(blocks, kFocalCountBlocks, count.limits), dim3(kFocalThreads),
         0, count.stream, count.labels, count.limits.first, count.rows, count.classes, count.ignore_index, counted,
         counted + 1);
}
RETINA_OPS_LAUNCH(launch_focal_count, FocalCount, labels, rows, classes, ignore_index, counts, limits);

// Scaling a gradient in place. limits.first: the first element that is scaled.
struct ScaleGradient {
  void* grad;  // [n] of dtype
  Dtype dtype;
  const double* scale;  // []
  int64_t n;
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class T>
void launch_scale_gradient_typed(const ScaleGradient& call) {
  const int64_t packs = ceil_div<int64_t>(call.n - call.limits.first, kFocalPack<T>);
  launch(scale_gradient_kernel<T>, grid_of(ceil_div<int64_t>(packs, kFocalThreads), kFocalMaxBlocks, call.limits),
         dim3(kFocalThreads), 0, call.stream, static_cast<T*>(call.grad), call.scale, call.limits.first, call.n,
         is_aligned(call.grad, 16));
}

inline void launch_scale_gradient(const ScaleGradient& call) {
  switch (call.dtype) {
    case Dtype::kFloat32: return launch_scale_gradient_typed<float>(call);
    case Dtype::kFloat64: return launch_scale_gradient_typed<double>(call);
    case Dtype::kFloat16: return launch_scale_gradient_typed<__half>(call);
    case Dtype::kBFloat16: return launch_scale_gradient_typed<__nv_bfloat16>(call);
  }
}
RETINA_OPS_LAUNCH(launch_scale_gradient, ScaleGradient, grad, dtype, scale, n, limits);

}  // namespace retina_ops
