// Chooses and launches a kernel by dtype, kind of targets and gamma. No torch.
#pragma once

#include <cstdint>

#include "common/half_block.h"
#include "focal_loss/focal_loss_cpu.h"
#include "focal_loss/focal_loss_kernels.cuh"

namespace retina_ops {

// The outputs and workspace that a CUDA call has beside its FocalProblem; all on the device.
struct FocalDevice {
  const double* upstream_scalar;  // [] or null: `problem.upstream` is per element
  const int64_t* counted;         // [] elements that the mean divides by, or null
  double* partial;                // [kFocalMaxBlocks] workspace of the reduction
  unsigned* done;                 // [] zero
  void* result;                   // [] the sum or mean
  int64_t first;                  // elements [first, n) are computed: 0 but in tests of large indices
  int64_t n;                      // elements
  cudaStream_t stream;
  int64_t most_blocks = kFocalMaxBlocks;  // of the reduction: fewer in tests, so that threads take several packs
};

void launch_focal_loss_labels(const FocalProblem& problem, const FocalDevice& device, bool reduced);
void launch_focal_loss_soft(const FocalProblem& problem, const FocalDevice& device, bool reduced);

template <class T, class TargetT>
FocalKernelArguments<T, TargetT> focal_arguments(const FocalProblem& problem, const FocalDevice& device) {
  FocalKernelArguments<T, TargetT> a{};
  a.logits = static_cast<const T*>(problem.logits);
  a.targets = static_cast<const TargetT*>(problem.labels != nullptr ? problem.labels : problem.soft_targets);
  a.alpha_per_class = static_cast<const ArithmeticOf<T>*>(problem.alpha_per_class);
  a.upstream = static_cast<const T*>(problem.upstream);
  a.upstream_scalar = device.upstream_scalar;
  a.counted = device.counted;
  a.value = static_cast<T*>(problem.loss_out);
  a.derivative = static_cast<T*>(problem.grad_out);
  a.first = device.first;
  a.n = device.n;
  a.classes = Divider::of(problem.classes);
  a.ignore_index = problem.ignore_index;
  a.alpha = static_cast<ArithmeticOf<T>>(problem.alpha);
  a.gamma = problem.gamma;
  a.aligned = is_aligned(a.logits, 16) && (problem.labels != nullptr || is_aligned(a.targets, 16)) &&
              is_aligned(a.upstream, 16) && is_aligned(a.value, 16) && is_aligned(a.derivative, 16);
  return a;
}

inline dim3 focal_grid(int64_t blocks, int64_t most) {
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most));
}

// The reducing kernel of long rows; false where it does not apply.
template <class T, Gamma G>
bool launch_focal_rows(const FocalKernelArguments<T, int64_t>& a, const FocalDevice& device) {
  const int64_t classes = a.classes.divisor;
  if (a.alpha_per_class != nullptr || classes < kRowPack<T> || classes > kMostFocalClasses) return false;
  const int64_t packs = ceil_div<int64_t>(a.n - a.first, kRowPack<T>);
  const auto kernel =
      a.derivative != nullptr ? focal_loss_rows_kernel<T, G, true> : focal_loss_rows_kernel<T, G, false>;
  launch(kernel, focal_grid(ceil_div<int64_t>(packs, kFocalThreads), device.most_blocks), dim3(kFocalThreads), 0,
         device.stream, a, device.partial, device.done, static_cast<ArithmeticOf<T>*>(device.result));
  return true;
}

template <class T, class TargetT, Gamma G>
void launch_focal_loss(const FocalProblem& problem, const FocalDevice& device, bool reduced) {
  const FocalKernelArguments<T, TargetT> a = focal_arguments<T, TargetT>(problem, device);
  const int64_t packs = ceil_div<int64_t>(device.n - device.first, kFocalPack<T>);
  const int64_t blocks = ceil_div<int64_t>(packs, kFocalThreads);
  if (reduced) {
    if constexpr (std::is_same_v<TargetT, int64_t>) {
      if (launch_focal_rows<T, G>(a, device)) return;
    }
    const dim3 grid = focal_grid(blocks, device.most_blocks);
    const auto kernel = a.derivative != nullptr ? focal_loss_reduced_kernel<T, TargetT, G, true>
                                                : focal_loss_reduced_kernel<T, TargetT, G, false>;
    launch(kernel, grid, dim3(kFocalThreads), 0, device.stream, a, device.partial, device.done,
           static_cast<ArithmeticOf<T>*>(device.result));
    return;
  }
  if (blocks == 0) return;
  const auto kernel = problem.order == 2 ? focal_loss_elementwise_kernel<T, TargetT, G, 2>
                                         : focal_loss_elementwise_kernel<T, TargetT, G, 1>;
  launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kFocalThreads), 0, device.stream, a);
}

// The exponents with a kernel of their own: those of the paper's experiments that are used most.
template <class T, class TargetT>
void launch_for_gamma(const FocalProblem& problem, const FocalDevice& device, bool reduced) {
  switch (gamma_case(problem.gamma)) {
    case Gamma::kZero: return launch_focal_loss<T, TargetT, Gamma::kZero>(problem, device, reduced);
    case Gamma::kTwo: return launch_focal_loss<T, TargetT, Gamma::kTwo>(problem, device, reduced);
    case Gamma::kOne:
      if constexpr (sizeof(T) < 8) return launch_focal_loss<T, TargetT, Gamma::kOne>(problem, device, reduced);
      [[fallthrough]];
    case Gamma::kThreeHalves:
      if constexpr (sizeof(T) < 8) {
        if (problem.gamma == 1.5) return launch_focal_loss<T, TargetT, Gamma::kThreeHalves>(problem, device, reduced);
      }
      [[fallthrough]];
    default: return launch_focal_loss<T, TargetT, Gamma::kAny>(problem, device, reduced);
  }
}

constexpr int64_t kFocalCountBlocks = 512;  // at most

// counts: [2] zero; elements of labels [first, rows) that are not ignored, and labels out of range.
inline void launch_focal_count(const int64_t* labels, int64_t first, int64_t rows, int64_t classes,
                               int64_t ignore_index, int64_t* counts, cudaStream_t stream) {
  const int64_t blocks = ceil_div<int64_t>(rows - first, kFocalThreads);
  if (blocks == 0) return;
  auto* counted = reinterpret_cast<unsigned long long*>(counts);
  launch(focal_loss_count_kernel<kFocalThreads>,
         dim3(static_cast<unsigned>(blocks < kFocalCountBlocks ? blocks : kFocalCountBlocks)), dim3(kFocalThreads), 0,
         stream, labels, first, rows, classes, ignore_index, counted, counted + 1);
}

// grad: elements [first, n) are scaled.
template <class T>
void launch_scale_gradient(void* grad, const double* scale, int64_t first, int64_t n, cudaStream_t stream,
                           int64_t most_blocks) {
  const int64_t packs = ceil_div<int64_t>(n - first, kFocalPack<T>);
  launch(scale_gradient_kernel<T>, focal_grid(ceil_div<int64_t>(packs, kFocalThreads), most_blocks),
         dim3(kFocalThreads), 0, stream, static_cast<T*>(grad), scale, first, n, is_aligned(grad, 16));
}

inline void launch_scale_gradient(void* grad, Dtype dtype, const double* scale, int64_t first, int64_t n,
                                  cudaStream_t stream, int64_t most_blocks = kFocalMaxBlocks) {
  switch (dtype) {
    case Dtype::kFloat32: return launch_scale_gradient<float>(grad, scale, first, n, stream, most_blocks);
    case Dtype::kFloat64: return launch_scale_gradient<double>(grad, scale, first, n, stream, most_blocks);
    case Dtype::kFloat16: return launch_scale_gradient<__half>(grad, scale, first, n, stream, most_blocks);
    case Dtype::kBFloat16: return launch_scale_gradient<__nv_bfloat16>(grad, scale, first, n, stream, most_blocks);
  }
}

}  // namespace retina_ops
