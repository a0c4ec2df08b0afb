// Pairwise IoU over a range of rows of plain memory, on the CPU. No torch.
#pragma once

#include "common/half_block.h"

namespace retina_ops {

// All arrays are contiguous. Arithmetic and output are float, or double for float64 boxes.
struct BoxIouProblem {
  const void* boxes1;  // [batch, n, 4]
  const void* boxes2;  // [batch, m, 4]
  Dtype dtype;
  int64_t n;
  int64_t m;
  void* iou;  // [batch, n, m] float32 or float64
};

// Rows [begin, end) of the batch * n rows.
void box_iou_range(const BoxIouProblem& problem, int64_t begin, int64_t end);

}  // namespace retina_ops
