// Box coding over a range of plain memory, on the CPU. No torch.
#pragma once

#include "box_coding/box_coding.h"
#include "common/half_block.h"

namespace retina_ops {

enum class BoxCodingOp { kEncode, kEncodeBackward, kDecode, kDecodeBackward };

// One call of an operator. All arrays are contiguous; n = number of boxes. Arithmetic is in float, or in double where
// an input is float64.
struct BoxCodingProblem {
  BoxCodingOp op;
  const void* codes;  // [n, 4] boxes to encode, or deltas to decode
  Dtype code_dtype;
  const void* proposals;  // [period, 4]: row i belongs to proposal i % period
  Dtype proposal_dtype;
  int64_t period;
  const void* grad;  // [n, 4] of `out_dtype`: upstream gradient of the backwards, else null
  void* out;         // [n, 4] of `out_dtype`: result, or the gradient by codes
  void* out2;        // [n, 4] of `out_dtype`: the gradient by proposals, of the backwards, else null
  Dtype out_dtype;
  double weights[4];
  double image_height;  // pixels; negative: decoded boxes are not clipped
  double image_width;
};

// Largest log of the ratio of a decoded size to its proposal's: torchvision's log(1000 / 16).
constexpr double kBoxLogLimit = 4.135166556742356;

// What the kernels need of the problem.
template <class T>
BoxCoding<T> coding_of(const BoxCodingProblem& problem) {
  const double* w = problem.weights;
  const bool clips = problem.image_height >= 0.0;
  const T infinity = std::numeric_limits<T>::infinity();
  return {static_cast<T>(w[0]),
          static_cast<T>(w[1]),
          static_cast<T>(w[2]),
          static_cast<T>(w[3]),
          static_cast<T>(kBoxLogLimit),
          clips ? T(0) : -infinity,
          clips ? static_cast<T>(problem.image_height) : infinity,
          clips ? static_cast<T>(problem.image_width) : infinity};
}

void box_coding_range(const BoxCodingProblem& problem, int64_t begin, int64_t end);

}  // namespace retina_ops
