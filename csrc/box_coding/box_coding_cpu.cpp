// Box coding on the CPU. Lower bound for float32: 48 bytes per box are read and written, and there are two exponentials
// or logarithms. Boxes are taken in blocks with one array per coordinate, so that the compiler vectorises every
// formula.
#include "box_coding/box_coding.h"

#include <algorithm>

#include "common/box_block.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

// Deltas in a BoxBlock.
template <class T>
RETINA_OPS_HOST_DEVICE Deltas<T> deltas_at(const BoxBlock<T>& block, int i) {
  return {block.x1[i], block.y1[i], block.x2[i], block.y2[i]};
}
template <class T>
RETINA_OPS_HOST_DEVICE void set_deltas(BoxBlock<T>& block, int i, const Deltas<T>& deltas) {
  block.set(i, Box<T>{deltas.dx, deltas.dy, deltas.dw, deltas.dh});
}

template <class T>
struct Block {
  BoxBlock<T> codes, proposals, grad, out, out2;
};

template <class T, BoxCodingOp kOp, class Math>
RETINA_OPS_HOST_DEVICE void compute_block(const BoxCoding<T>& coding, Block<T>& block) {
  for (int i = 0; i < kBlockBoxes; ++i) {
    const Box<T> proposal = block.proposals.box(i);
    if constexpr (kOp == BoxCodingOp::kEncode) {
      set_deltas(block.out, i, encode_box<T, Math>(coding, block.codes.box(i), proposal));
    } else if constexpr (kOp == BoxCodingOp::kDecode) {
      block.out.set(i, decode_box<T, Math>(coding, deltas_at(block.codes, i), proposal));
    } else if constexpr (kOp == BoxCodingOp::kEncodeBackward) {
      Box<T> for_box, for_proposal;
      encode_box_backward(coding, deltas_at(block.grad, i), block.codes.box(i), proposal, for_box, for_proposal);
      block.out.set(i, for_box);
      block.out2.set(i, for_proposal);
    } else {
      Deltas<T> for_deltas;
      Box<T> for_proposal;
      decode_box_backward<T, Math>(coding, block.grad.box(i), deltas_at(block.codes, i), proposal, for_deltas,
                                   for_proposal);
      set_deltas(block.out, i, for_deltas);
      block.out2.set(i, for_proposal);
    }
  }
}

template <class T, BoxCodingOp kOp, class Math>
RETINA_OPS_HOST_DEVICE void coding_range(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin,
                                         int64_t end) {
  constexpr bool kHasGrad = kOp == BoxCodingOp::kEncodeBackward || kOp == BoxCodingOp::kDecodeBackward;
  Block<T> block;
  for (int64_t first = begin; first < end;) {
    const int64_t proposal = first % problem.period;
    const int64_t count = std::min<int64_t>({end - first, problem.period - proposal, kBlockBoxes});
    const int boxes = static_cast<int>(count);
    block.codes.load(problem.codes, problem.code_dtype, first, boxes);
    block.proposals.load(problem.proposals, problem.proposal_dtype, proposal, boxes);
    if constexpr (kHasGrad) block.grad.load(problem.grad, problem.out_dtype, first, boxes);
    compute_block<T, kOp, Math>(coding, block);
    block.out.store(problem.out, problem.out_dtype, first, boxes);
    if constexpr (kHasGrad) block.out2.store(problem.out2, problem.out_dtype, first, boxes);
    first += count;
  }
}

template <class T, BoxCodingOp kOp>
void range_for_isa(const BoxCodingProblem& problem, int64_t begin, int64_t end) {
  const BoxCoding<T> coding = box_coding_of<T>(problem.weights, problem.image_height, problem.image_width);
  isa_variant<coding_range<T, kOp, PlainMath>, coding_range<T, kOp, FusedMath>>()(problem, coding, begin, end);
}

template <class T>
void typed_range(const BoxCodingProblem& problem, int64_t begin, int64_t end) {
  switch (problem.op) {
    case BoxCodingOp::kEncode: return range_for_isa<T, BoxCodingOp::kEncode>(problem, begin, end);
    case BoxCodingOp::kEncodeBackward: return range_for_isa<T, BoxCodingOp::kEncodeBackward>(problem, begin, end);
    case BoxCodingOp::kDecode: return range_for_isa<T, BoxCodingOp::kDecode>(problem, begin, end);
    case BoxCodingOp::kDecodeBackward: return range_for_isa<T, BoxCodingOp::kDecodeBackward>(problem, begin, end);
  }
}

}  // namespace

void box_coding_range(const BoxCodingProblem& problem, int64_t begin, int64_t end) {
  if (problem.out_dtype == Dtype::kFloat64) {
    typed_range<double>(problem, begin, end);
  } else {
    typed_range<float>(problem, begin, end);
  }
}

}  // namespace retina_ops
