// Floor for float32: 48 bytes a box read and written, and two exponentials or logarithms. Boxes are taken in blocks, a
// block's coordinates apart, so that every formula becomes vectors.
#include "box_coding/box_coding_cpu.h"

#include <algorithm>

#include "box_coding/box_coding.h"
#include "common/box_planes.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kBoxes = kPlaneBoxes;  // a block

template <class T>
RETINA_OPS_HOST_DEVICE Deltas<T> deltas_of(const Planes<T>& planes, int i) {
  return {planes.a[i], planes.b[i], planes.c[i], planes.d[i]};
}
template <class T>
RETINA_OPS_HOST_DEVICE void put_deltas(Planes<T>& planes, int i, const Deltas<T>& deltas) {
  planes.put(i, Box<T>{deltas.dx, deltas.dy, deltas.dw, deltas.dh});
}

template <class T>
struct Block {
  Planes<T> codes, proposals, grad, out, out2;
};

template <class T, BoxCodingOp kOp, class Math>
RETINA_OPS_HOST_DEVICE void compute(const BoxCoding<T>& coding, Block<T>& block) {
  for (int i = 0; i < kBoxes; ++i) {
    const Box<T> proposal = block.proposals.box(i);
    if constexpr (kOp == BoxCodingOp::kEncode) {
      put_deltas(block.out, i, encode_box<T, Math>(coding, block.codes.box(i), proposal));
    } else if constexpr (kOp == BoxCodingOp::kDecode) {
      block.out.put(i, decode_box<T, Math>(coding, deltas_of(block.codes, i), proposal));
    } else if constexpr (kOp == BoxCodingOp::kEncodeBackward) {
      Box<T> for_box, for_proposal;
      encode_box_backward(coding, deltas_of(block.grad, i), block.codes.box(i), proposal, for_box, for_proposal);
      block.out.put(i, for_box);
      block.out2.put(i, for_proposal);
    } else {
      Deltas<T> for_deltas;
      Box<T> for_proposal;
      decode_box_backward<T, Math>(coding, block.grad.box(i), deltas_of(block.codes, i), proposal, for_deltas,
                                   for_proposal);
      put_deltas(block.out, i, for_deltas);
      block.out2.put(i, for_proposal);
    }
  }
}

template <class T, BoxCodingOp kOp, class Math>
RETINA_OPS_HOST_DEVICE void run_of(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin,
                                   int64_t end) {
  constexpr bool kHasGrad = kOp == BoxCodingOp::kEncodeBackward || kOp == BoxCodingOp::kDecodeBackward;
  Block<T> block;
  for (int64_t first = begin; first < end;) {
    const int64_t proposal = first % problem.period;
    const int64_t count = std::min<int64_t>({end - first, problem.period - proposal, kBoxes});
    const int boxes = static_cast<int>(count);
    block.codes.load(problem.codes, problem.code_dtype, first, boxes);
    block.proposals.load(problem.proposals, problem.proposal_dtype, proposal, boxes);
    if constexpr (kHasGrad) block.grad.load(problem.grad, problem.out_dtype, first, boxes);
    compute<T, kOp, Math>(coding, block);
    block.out.store(problem.out, problem.out_dtype, first, boxes);
    if constexpr (kHasGrad) block.out2.store(problem.out2, problem.out_dtype, first, boxes);
    first += count;
  }
}

template <class T, BoxCodingOp kOp>
void run_baseline(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin, int64_t end) {
  run_of<T, kOp, PlainMath>(problem, coding, begin, end);
}
#if RETINA_OPS_HAS_X86_TARGETS
template <class T, BoxCodingOp kOp>
RETINA_OPS_TARGET_AVX2 void run_avx2(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin,
                                     int64_t end) {
  run_of<T, kOp, FusedMath>(problem, coding, begin, end);
}
template <class T, BoxCodingOp kOp>
RETINA_OPS_TARGET_AVX512 void run_avx512(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin,
                                         int64_t end) {
  run_of<T, kOp, FusedMath>(problem, coding, begin, end);
}
#endif

template <class T, BoxCodingOp kOp>
void run_for_isa(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin, int64_t end) {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return run_avx512<T, kOp>(problem, coding, begin, end);
  if (cpu_isa() == Isa::kAvx2) return run_avx2<T, kOp>(problem, coding, begin, end);
#endif
  run_baseline<T, kOp>(problem, coding, begin, end);
}

template <class T>
void run_typed(const BoxCodingProblem& problem, int64_t begin, int64_t end) {
  const BoxCoding<T> coding = coding_of<T>(problem);
  switch (problem.op) {
    case BoxCodingOp::kEncode: return run_for_isa<T, BoxCodingOp::kEncode>(problem, coding, begin, end);
    case BoxCodingOp::kEncodeBackward: return run_for_isa<T, BoxCodingOp::kEncodeBackward>(problem, coding, begin, end);
    case BoxCodingOp::kDecode: return run_for_isa<T, BoxCodingOp::kDecode>(problem, coding, begin, end);
    case BoxCodingOp::kDecodeBackward: return run_for_isa<T, BoxCodingOp::kDecodeBackward>(problem, coding, begin, end);
  }
}

}  // namespace

void box_coding_range(const BoxCodingProblem& problem, int64_t begin, int64_t end) {
  if (problem.out_dtype == Dtype::kFloat64) {
    run_typed<double>(problem, begin, end);
  } else {
    run_typed<float>(problem, begin, end);
  }
}

}  // namespace retina_ops
