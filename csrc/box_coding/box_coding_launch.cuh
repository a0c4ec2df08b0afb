// Chooses and launches the kernel of box coding. No torch.
#pragma once

#include "box_coding/box_coding_kernels.cuh"

namespace retina_ops {

// n: boxes. first: the first of them that is computed, 0 but in tests of large indices.
template <class T, class ProposalT, BoxCodingOp kOp>
void launch_box_coding_op(const BoxCodingProblem& problem, int64_t first, int64_t n, cudaStream_t stream) {
  using A = ArithmeticOf<ProposalT>;
  BoxCodingKernelArguments<T, ProposalT> a{};
  a.codes = static_cast<const T*>(problem.codes);
  a.proposals = static_cast<const ProposalT*>(problem.proposals);
  a.grad = static_cast<const ProposalT*>(problem.grad);
  a.out = static_cast<ProposalT*>(problem.out);
  a.out2 = static_cast<ProposalT*>(problem.out2);
  a.first = first;
  a.n = n;
  a.period = problem.period;
  a.coding = box_coding_of<A>(problem.weights, problem.image_height, problem.image_width);
  a.aligned = is_aligned(a.codes, 16) && is_aligned(a.proposals, 16) && is_aligned(a.grad, 16) &&
              is_aligned(a.out, 16) && is_aligned(a.out2, 16);
  launch(box_coding_kernel<T, ProposalT, kOp>,
         dim3(static_cast<unsigned>(ceil_div<int64_t>(n - first, kBoxCodingThreads))), dim3(kBoxCodingThreads), 0,
         stream, a);
}

template <class T, class ProposalT>
void launch_box_coding(const BoxCodingProblem& problem, int64_t first, int64_t n, cudaStream_t stream) {
  switch (problem.op) {
    case BoxCodingOp::kEncode:
      return launch_box_coding_op<T, ProposalT, BoxCodingOp::kEncode>(problem, first, n, stream);
    case BoxCodingOp::kEncodeBackward:
      return launch_box_coding_op<T, ProposalT, BoxCodingOp::kEncodeBackward>(problem, first, n, stream);
    case BoxCodingOp::kDecode:
      return launch_box_coding_op<T, ProposalT, BoxCodingOp::kDecode>(problem, first, n, stream);
    case BoxCodingOp::kDecodeBackward:
      return launch_box_coding_op<T, ProposalT, BoxCodingOp::kDecodeBackward>(problem, first, n, stream);
  }
}

template <class T>
void launch_box_coding_half(const BoxCodingProblem& problem, int64_t first, int64_t n, cudaStream_t stream) {
  if (problem.proposal_dtype == Dtype::kFloat32) {
    launch_box_coding<T, float>(problem, first, n, stream);
  } else {
    launch_box_coding<T, T>(problem, first, n, stream);
  }
}

inline void launch_box_coding(const BoxCodingProblem& problem, int64_t first, int64_t n, cudaStream_t stream) {
  switch (problem.code_dtype) {
    case Dtype::kFloat32: return launch_box_coding<float, float>(problem, first, n, stream);
    case Dtype::kFloat64: return launch_box_coding<double, double>(problem, first, n, stream);
    case Dtype::kFloat16: return launch_box_coding_half<__half>(problem, first, n, stream);
    case Dtype::kBFloat16: return launch_box_coding_half<__nv_bfloat16>(problem, first, n, stream);
  }
}

}  // namespace retina_ops
