// Box coding on CUDA. No torch.
//
// Floor for float32: 48 bytes a box. A thread owns one box: four values are one 16-byte access (8 bytes for half).
#pragma once

#include "box_coding/box_coding.h"
#include "common/vector.cuh"

namespace retina_ops {

constexpr int kBoxCodingThreads = 256;

template <class T, class ProposalT>
struct BoxCodingKernelArguments {
  const T* codes;              // [n, 4]
  const ProposalT* proposals;  // [period, 4]
  const ProposalT* grad;       // [n, 4] or null
  ProposalT* out;              // [n, 4]
  ProposalT* out2;             // [n, 4] or null
  int64_t first;               // boxes [first, n) are computed: 0 but in tests of large indices
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
__device__ __forceinline__ void store_four(T* base, int64_t box, bool aligned, A a, A b, A c, A d) {
  const A values[4] = {a, b, c, d};
  store_pack(base + 4 * box, 4, aligned, values);
}

// launch: one thread a box.
template <class T, class ProposalT, BoxCodingOp kOp>
__global__ void __launch_bounds__(kBoxCodingThreads) box_coding_kernel(BoxCodingKernelArguments<T, ProposalT> a) {
  using A = ArithmeticOf<ProposalT>;
  const int64_t i = a.first + static_cast<int64_t>(blockIdx.x) * kBoxCodingThreads + threadIdx.x;
  if (i >= a.n) return;
  const int64_t at = a.period == a.n ? i : i % a.period;
  const Box<A> proposal = load_four<Box<A>, ProposalT, A>(a.proposals, at, a.aligned);
  if constexpr (kOp == BoxCodingOp::kEncode) {
    const Deltas<A> d = encode_box<A, FusedMath>(a.coding, load_four<Box<A>, T, A>(a.codes, i, a.aligned), proposal);
    store_four(a.out, i, a.aligned, d.dx, d.dy, d.dw, d.dh);
  } else if constexpr (kOp == BoxCodingOp::kDecode) {
    const Deltas<A> deltas = load_four<Deltas<A>, T, A>(a.codes, i, a.aligned);
    const Box<A> b = decode_box<A, FusedMath>(a.coding, deltas, proposal);
    store_four(a.out, i, a.aligned, b.x1, b.y1, b.x2, b.y2);
  } else if constexpr (kOp == BoxCodingOp::kEncodeBackward) {
    const Deltas<A> grad = load_four<Deltas<A>, ProposalT, A>(a.grad, i, a.aligned);
    Box<A> b, p;
    encode_box_backward(a.coding, grad, load_four<Box<A>, T, A>(a.codes, i, a.aligned), proposal, b, p);
    store_four(a.out, i, a.aligned, b.x1, b.y1, b.x2, b.y2);
    store_four(a.out2, i, a.aligned, p.x1, p.y1, p.x2, p.y2);
  } else {
    const Box<A> grad = load_four<Box<A>, ProposalT, A>(a.grad, i, a.aligned);
    Deltas<A> d;
    Box<A> p;
    decode_box_backward<A, FusedMath>(a.coding, grad, load_four<Deltas<A>, T, A>(a.codes, i, a.aligned), proposal, d,
                                      p);
    store_four(a.out, i, a.aligned, d.dx, d.dy, d.dw, d.dh);
    store_four(a.out2, i, a.aligned, p.x1, p.y1, p.x2, p.y2);
  }
}

}  // namespace retina_ops
