// Box coding on CUDA: the kernel and its launch. No torch.
//
// Lower bound for float32: 48 bytes per box. A thread computes one box: its four values are one 16-byte access (8 bytes
// for half dtypes).
#pragma once

#include "box_coding/box_coding.h"
#include "common/vector.cuh"

namespace retina_ops {

constexpr int kBoxCodingThreads = 256;

// T: dtype of the codes; ProposalT: of everything else.
template <class T, class ProposalT>
struct BoxCodingKernelArguments {
  const T* codes;              // [n, 4]
  const ProposalT* proposals;  // [period, 4]
  const ProposalT* grad;       // [n, 4] or null
  ProposalT* out;              // [n, 4]
  ProposalT* out2;             // [n, 4] or null
  int64_t first;               // boxes [first, n) are computed
  int64_t n;
  int64_t period;
  BoxCoding<ArithmeticOf<ProposalT>> coding;
  bool aligned;  // every array allows accesses of four values
};

template <class Four, class T, class A>
__device__ __forceinline__ Four load_four(const T* base, int64_t box, bool aligned) {
  A values[4];
  load_pack(base + 4 * box, 4, aligned, values);
  return Four{values[0], values[1], values[2], values[3]};
}

template <class T, class A>
__device__ __forceinline__ void store_four(T* base, int64_t box, bool aligned, A first, A second, A third, A fourth) {
  const A values[4] = {first, second, third, fourth};
  store_pack(base + 4 * box, 4, aligned, values);
}

// launch: one thread per box.
template <class T, class ProposalT, BoxCodingOp kOp>
__global__ void __launch_bounds__(kBoxCodingThreads) box_coding_kernel(BoxCodingKernelArguments<T, ProposalT> args) {
  using A = ArithmeticOf<ProposalT>;
  const int64_t i = args.first + static_cast<int64_t>(blockIdx.x) * kBoxCodingThreads + threadIdx.x;
  if (i >= args.n) return;
  const int64_t at = args.period == args.n ? i : i % args.period;
  const Box<A> proposal = load_four<Box<A>, ProposalT, A>(args.proposals, at, args.aligned);
  if constexpr (kOp == BoxCodingOp::kEncode) {
    const Box<A> box = load_four<Box<A>, T, A>(args.codes, i, args.aligned);
    const Deltas<A> deltas = encode_box<A, FusedMath>(args.coding, box, proposal);
    store_four(args.out, i, args.aligned, deltas.dx, deltas.dy, deltas.dw, deltas.dh);
  } else if constexpr (kOp == BoxCodingOp::kDecode) {
    const Deltas<A> deltas = load_four<Deltas<A>, T, A>(args.codes, i, args.aligned);
    const Box<A> box = decode_box<A, FusedMath>(args.coding, deltas, proposal);
    store_four(args.out, i, args.aligned, box.x1, box.y1, box.x2, box.y2);
  } else if constexpr (kOp == BoxCodingOp::kEncodeBackward) {
    const Deltas<A> grad = load_four<Deltas<A>, ProposalT, A>(args.grad, i, args.aligned);
    Box<A> for_box, for_proposal;
    encode_box_backward(args.coding, grad, load_four<Box<A>, T, A>(args.codes, i, args.aligned), proposal, for_box,
                        for_proposal);
    store_four(args.out, i, args.aligned, for_box.x1, for_box.y1, for_box.x2, for_box.y2);
    store_four(args.out2, i, args.aligned, for_proposal.x1, for_proposal.y1, for_proposal.x2, for_proposal.y2);
  } else {
    const Box<A> grad = load_four<Box<A>, ProposalT, A>(args.grad, i, args.aligned);
    Deltas<A> for_deltas;
    Box<A> for_proposal;
    decode_box_backward<A, FusedMath>(args.coding, grad, load_four<Deltas<A>, T, A>(args.codes, i, args.aligned),
                                      proposal, for_deltas, for_proposal);
    store_four(args.out, i, args.aligned, for_deltas.dx, for_deltas.dy, for_deltas.dw, for_deltas.dh);
    store_four(args.out2, i, args.aligned, for_proposal.x1, for_proposal.y1, for_proposal.x2, for_proposal.y2);
  }
}

// A call on the device. limits.first: the first box that is computed.
struct BoxCodingDevice : BoxCodingProblem {
  int64_t n;  // boxes
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class T, class ProposalT, BoxCodingOp kOp>
void launch_box_coding_op(const BoxCodingDevice& device) {
  BoxCodingKernelArguments<T, ProposalT> args{};
  args.codes = static_cast<const T*>(device.codes);
  args.proposals = static_cast<const ProposalT*>(device.proposals);
  args.grad = static_cast<const ProposalT*>(device.grad);
  args.out = static_cast<ProposalT*>(device.out);
  args.out2 = static_cast<ProposalT*>(device.out2);
  args.n = device.n;
  args.period = device.period;
  args.coding = box_coding_of<ArithmeticOf<ProposalT>>(device.weights, device.image_height, device.image_width);
  args.aligned = is_aligned(args.codes, 16) && is_aligned(args.proposals, 16) && is_aligned(args.grad, 16) &&
                 is_aligned(args.out, 16) && is_aligned(args.out2, 16);
  args.first = device.limits.first;
  const int64_t blocks = ceil_div<int64_t>(device.n - device.limits.first, kBoxCodingThreads);
  launch(box_coding_kernel<T, ProposalT, kOp>, dim3(static_cast<unsigned>(blocks)), dim3(kBoxCodingThreads), 0,
         device.stream, args);
}

template <class T, class ProposalT>
void launch_box_coding_typed(const BoxCodingDevice& device) {
  switch (device.op) {
    case BoxCodingOp::kEncode: return launch_box_coding_op<T, ProposalT, BoxCodingOp::kEncode>(device);
    case BoxCodingOp::kEncodeBackward: return launch_box_coding_op<T, ProposalT, BoxCodingOp::kEncodeBackward>(device);
    case BoxCodingOp::kDecode: return launch_box_coding_op<T, ProposalT, BoxCodingOp::kDecode>(device);
    case BoxCodingOp::kDecodeBackward: return launch_box_coding_op<T, ProposalT, BoxCodingOp::kDecodeBackward>(device);
  }
}

// Half codes may stand beside float32 proposals.
template <class T>
void launch_box_coding_half(const BoxCodingDevice& device) {
  if (device.proposal_dtype == Dtype::kFloat32) {
    launch_box_coding_typed<T, float>(device);
  } else {
    launch_box_coding_typed<T, T>(device);
  }
}

// At least one box.
inline void launch_box_coding(const BoxCodingDevice& device) {
  switch (device.code_dtype) {
    case Dtype::kFloat32: return launch_box_coding_typed<float, float>(device);
    case Dtype::kFloat64: return launch_box_coding_typed<double, double>(device);
    case Dtype::kFloat16: return launch_box_coding_half<__half>(device);
    case Dtype::kBFloat16: return launch_box_coding_half<__nv_bfloat16>(device);
  }
}
RETINA_OPS_LAUNCH(launch_box_coding, BoxCodingDevice, op, codes, code_dtype, proposals, proposal_dtype, period, grad,
                  out, out2, weights, image_height, image_width, n, limits);

}  // namespace retina_ops
