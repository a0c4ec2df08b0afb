// box_iou for CUDA tensors: launches and registration.
#include <torch/csrc/stable/library.h>

#include "box_iou/box_iou_kernels.cuh"
#include "box_iou/box_iou_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

template <class T, int kPack>
void launch_pack(const BoxIouCall& call, cudaStream_t stream) {
  const BoxIouProblem& problem = call.problem;
  const auto* boxes1 = static_cast<const T*>(problem.boxes1);
  const auto* boxes2 = static_cast<const T*>(problem.boxes2);
  const int64_t blocks =
      call.batch * ceil_div<int64_t>(problem.n, kIouRows) * ceil_div<int64_t>(problem.m, int64_t(kIouThreads) * kPack);
  launch(box_iou_kernel<T, kPack>, dim3(static_cast<unsigned>(blocks)), dim3(kIouThreads), 0, stream, boxes1, boxes2,
         problem.n, problem.m, static_cast<ArithmeticOf<T>*>(problem.iou),
         is_aligned(boxes1, 16) && is_aligned(boxes2, 16), int64_t(0));
  RETINA_OPS_LAUNCH_CHECK();
}

template <class T>
void launch_box_iou(const BoxIouCall& call, cudaStream_t stream) {
  constexpr int kPack = 16 / sizeof(ArithmeticOf<T>);
  // The output comes from torch's allocator, aligned; every row is where m is a multiple of the pack.
  if (call.problem.m % kPack == 0) {
    launch_pack<T, kPack>(call, stream);
  } else {
    launch_pack<T, 1>(call, stream);
  }
}

Tensor box_iou_cuda(const Tensor& boxes1, const Tensor& boxes2) {
  const torch::stable::accelerator::DeviceGuard guard(boxes1.get_device_index());
  const BoxIouCall call = check_box_iou(boxes1, boxes2);
  if (call.iou.numel() == 0) return call.iou;
  const cudaStream_t stream = current_stream(boxes1);
  switch (call.problem.dtype) {
    case Dtype::kFloat32: launch_box_iou<float>(call, stream); break;
    case Dtype::kFloat64: launch_box_iou<double>(call, stream); break;
    case Dtype::kFloat16: launch_box_iou<__half>(call, stream); break;
    case Dtype::kBFloat16: launch_box_iou<__nv_bfloat16>(call, stream); break;
  }
  return call.iou;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) { m.impl("box_iou", TORCH_BOX(&box_iou_cuda)); }

}  // namespace retina_ops
