// Pairwise IoU, of every kind, and its gradient: the problem that a call describes, and its solution on the CPU. No
// torch. The formulas: common/iou_terms.h.
#pragma once

#include "common/half_block.h"
#include "common/iou_terms.h"

namespace retina_ops {

// All arrays are contiguous. Arithmetic and output are float, or double for float64 boxes.
struct BoxIouProblem {
  const void* boxes1;  // [batch, n, 4]
  const void* boxes2;  // [batch, m, 4]
  Dtype dtype;
  int64_t n;
  int64_t m;
  void* iou;  // [batch, n, m] float32 or float64; null in a backward
  IouKind kind = IouKind::kPlain;
  double eps = 0.0;  // for kDistance and kComplete
};

template <class T>
IouEps<T> pairwise_eps(const BoxIouProblem& problem) {
  return {T(0), static_cast<T>(problem.eps), static_cast<T>(problem.eps)};
}

// Computes rows [begin, end) of the batch * n rows of the output.
void box_iou_range(const BoxIouProblem& problem, int64_t begin, int64_t end);

// The gradient is computed in tiles of kGradRows x kGradColumns pairs. Each tile writes partial sums for its rows and
// its columns, which are added in order afterwards. So sums depend neither on the threads nor on the order of the
// tiles.
constexpr int64_t kGradRows = 64;
constexpr int64_t kGradColumns = 1024;

struct BoxIouGradProblem {
  BoxIouProblem forward;
  const void* grad;  // [batch, n, m] of the dtype of the output: the upstream gradient
  int64_t batch;
  double* row_sums;     // [column tiles, batch * n, 4] workspace, or null: no gradient by boxes1
  double* column_sums;  // [row tiles, batch * m, 4] workspace, or null: no gradient by boxes2

  int64_t row_tiles() const { return (forward.n + kGradRows - 1) / kGradRows; }
  int64_t column_tiles() const { return (forward.m + kGradColumns - 1) / kGradColumns; }
  int64_t tiles() const { return batch * row_tiles() * column_tiles(); }
};

// Computes tiles [begin, end) of all tiles.
void box_iou_grad_range(const BoxIouGradProblem& problem, int64_t begin, int64_t end);

// Sets values[i], of `dtype`, to the sum over the tiles of sums[tile][i], for i in [begin, end). sums: [tiles, count].
void add_tiles_range(const double* sums, int64_t tiles, int64_t count, void* values, Dtype dtype, int64_t begin,
                     int64_t end);

}  // namespace retina_ops
