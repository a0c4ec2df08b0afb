// Box coding for CUDA tensors: launches and registration.
#include <torch/csrc/stable/library.h>

#include "box_coding/box_coding_kernels.cuh"
#include "box_coding/box_coding_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

template <class T, class ProposalT, BoxCodingOp kOp>
void launch_box_coding(const BoxCodingCall& call, cudaStream_t stream) {
  using A = ArithmeticOf<ProposalT>;
  const BoxCodingProblem& problem = call.problem;
  BoxCodingKernelArguments<T, ProposalT> a{};
  a.codes = static_cast<const T*>(problem.codes);
  a.proposals = static_cast<const ProposalT*>(problem.proposals);
  a.grad = static_cast<const ProposalT*>(problem.grad);
  a.out = static_cast<ProposalT*>(problem.out);
  a.out2 = static_cast<ProposalT*>(problem.out2);
  a.n = call.n;
  a.period = problem.period;
  a.coding = BoxCoding<A>{static_cast<A>(problem.weights[0]),   static_cast<A>(problem.weights[1]),
                          static_cast<A>(problem.weights[2]),   static_cast<A>(problem.weights[3]),
                          static_cast<A>(kBoxLogLimit),         problem.image_height >= 0.0,
                          static_cast<A>(problem.image_height), static_cast<A>(problem.image_width)};
  a.aligned = is_aligned(a.codes, 16) && is_aligned(a.proposals, 16) && is_aligned(a.grad, 16) &&
              is_aligned(a.out, 16) && is_aligned(a.out2, 16);
  launch(box_coding_kernel<T, ProposalT, kOp>,
         dim3(static_cast<unsigned>(ceil_div<int64_t>(call.n, kBoxCodingThreads))), dim3(kBoxCodingThreads), 0, stream,
         a);
  RETINA_OPS_LAUNCH_CHECK();
}

template <class T, class ProposalT>
void launch_for_op(const BoxCodingCall& call, cudaStream_t stream) {
  switch (call.problem.op) {
    case BoxCodingOp::kEncode: return launch_box_coding<T, ProposalT, BoxCodingOp::kEncode>(call, stream);
    case BoxCodingOp::kEncodeBackward:
      return launch_box_coding<T, ProposalT, BoxCodingOp::kEncodeBackward>(call, stream);
    case BoxCodingOp::kDecode: return launch_box_coding<T, ProposalT, BoxCodingOp::kDecode>(call, stream);
    case BoxCodingOp::kDecodeBackward:
      return launch_box_coding<T, ProposalT, BoxCodingOp::kDecodeBackward>(call, stream);
  }
}

template <class T>
void launch_for_proposals(const BoxCodingCall& call, cudaStream_t stream) {
  if (call.problem.proposal_dtype == Dtype::kFloat32) {
    launch_for_op<T, float>(call, stream);
  } else {
    launch_for_op<T, T>(call, stream);
  }
}

void run_on_cuda(const BoxCodingCall& call) {
  if (call.n == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(call.codes.get_device_index());
  const cudaStream_t stream = current_stream(call.codes);
  switch (call.problem.code_dtype) {
    case Dtype::kFloat32: return launch_for_op<float, float>(call, stream);
    case Dtype::kFloat64: return launch_for_op<double, double>(call, stream);
    case Dtype::kFloat16: return launch_for_proposals<__half>(call, stream);
    case Dtype::kBFloat16: return launch_for_proposals<__nv_bfloat16>(call, stream);
  }
}

using Operators = BoxCodingOperators<run_on_cuda>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("encode_boxes", TORCH_BOX(&Operators::encode));
  m.impl("encode_boxes_backward", TORCH_BOX(&Operators::encode_backward));
  m.impl("decode_boxes", TORCH_BOX(&Operators::decode));
  m.impl("decode_boxes_backward", TORCH_BOX(&Operators::decode_backward));
}

}  // namespace retina_ops
