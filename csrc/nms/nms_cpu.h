// Non-maximum suppression over plain memory, on the CPU. No torch.
#pragma once

#include <functional>
#include <vector>

#include "common/half_block.h"

namespace retina_ops {

// One call of the operator. Arrays are contiguous; arithmetic is in float, or double for float64 boxes.
struct NmsProblem {
  const void* boxes;  // [n, 4]
  Dtype box_dtype;
  const void* scores;  // [n]
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null: all of one class
  int64_t n;
  double threshold;
};

// Runs body(begin, end) over the parts of [0, count), on several threads.
using ParallelFor = std::function<void(int64_t count, const std::function<void(int64_t, int64_t)>& body)>;

// Indices of the kept boxes in descending order of score, at most `limit` of them.
std::vector<int32_t> nms_keep(const NmsProblem& problem, int64_t limit, const ParallelFor& parallel);

}  // namespace retina_ops
