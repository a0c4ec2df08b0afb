// Floor for float32: 48 bytes a box read and written. Two exponentials a decoded box, vectorised; logarithms are
// libm's.
#include "box_coding/box_coding_cpu.h"

#include <algorithm>

#include "box_coding/box_coding.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kBoxes = 32;  // a block
constexpr int kWidth = 4 * kBoxes;

template <class T>
struct Block {
  alignas(64) T codes[kWidth];
  alignas(64) T proposals[kWidth];
  alignas(64) T grad[kWidth];
  alignas(64) T out[kWidth];
  alignas(64) T out2[kWidth];
};

template <class T>
BoxCoding<T> coding_of(const BoxCodingProblem& problem) {
  const double* w = problem.weights;
  return {static_cast<T>(w[0]),
          static_cast<T>(w[1]),
          static_cast<T>(w[2]),
          static_cast<T>(w[3]),
          static_cast<T>(kBoxLogLimit),
          problem.image_height >= 0.0,
          static_cast<T>(problem.image_height),
          static_cast<T>(problem.image_width)};
}

template <class T>
RETINA_OPS_HOST_DEVICE Box<T> box_at(const T* values) {
  return {values[0], values[1], values[2], values[3]};
}
template <class T>
RETINA_OPS_HOST_DEVICE Deltas<T> deltas_at(const T* values) {
  return {values[0], values[1], values[2], values[3]};
}
template <class T, class Four>
RETINA_OPS_HOST_DEVICE void put(T* values, const Four& four) {
  memcpy(values, &four, sizeof(four));
}

template <class T, BoxCodingOp kOp, class Math>
RETINA_OPS_HOST_DEVICE void compute(const BoxCoding<T>& coding, Block<T>& block) {
  for (int i = 0; i < kWidth; i += 4) {
    const Box<T> proposal = box_at(block.proposals + i);
    if constexpr (kOp == BoxCodingOp::kEncode) {
      put(block.out + i, encode_box(coding, box_at(block.codes + i), proposal));
    } else if constexpr (kOp == BoxCodingOp::kDecode) {
      put(block.out + i, decode_box<T, Math>(coding, deltas_at(block.codes + i), proposal));
    } else if constexpr (kOp == BoxCodingOp::kEncodeBackward) {
      Box<T> for_box, for_proposal;
      encode_box_backward(coding, deltas_at(block.grad + i), box_at(block.codes + i), proposal, for_box, for_proposal);
      put(block.out + i, for_box);
      put(block.out2 + i, for_proposal);
    } else {
      Deltas<T> for_deltas;
      Box<T> for_proposal;
      decode_box_backward<T, Math>(coding, box_at(block.grad + i), deltas_at(block.codes + i), proposal, for_deltas,
                                   for_proposal);
      put(block.out + i, for_deltas);
      put(block.out2 + i, for_proposal);
    }
  }
}

template <class T, BoxCodingOp kOp, class Math>
RETINA_OPS_HOST_DEVICE void run_of(const BoxCodingProblem& problem, const BoxCoding<T>& coding, int64_t begin,
                                   int64_t end) {
  Block<T> block;
  for (int64_t first = begin; first < end;) {
    const int64_t proposal = first % problem.period;
    const int64_t count = std::min<int64_t>({end - first, problem.period - proposal, kBoxes});
    const int values = static_cast<int>(4 * count);
    load_block<kWidth>(problem.codes, problem.code_dtype, 4 * first, block.codes, values);
    load_block<kWidth>(problem.proposals, problem.proposal_dtype, 4 * proposal, block.proposals, values);
    if (problem.grad != nullptr) load_block<kWidth>(problem.grad, problem.out_dtype, 4 * first, block.grad, values);
    compute<T, kOp, Math>(coding, block);
    store_block<kWidth>(problem.out, problem.out_dtype, 4 * first, block.out, values);
    if (problem.out2 != nullptr) store_block<kWidth>(problem.out2, problem.out_dtype, 4 * first, block.out2, values);
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
  if constexpr (sizeof(T) == sizeof(float)) {
    if (cpu_isa() == Isa::kAvx512) return run_avx512<T, kOp>(problem, coding, begin, end);
    if (cpu_isa() == Isa::kAvx2) return run_avx2<T, kOp>(problem, coding, begin, end);
  }
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
