// Soft non-maximum suppression on the CPU, over plain memory. No torch.
#pragma once

#include <vector>

#include "common/half_block.h"
#include "common/parallel.h"

namespace retina_ops {

// One call of the operator. Arrays are contiguous.
struct SoftNmsProblem {
  const void* boxes;  // [n, 4]
  Dtype box_dtype;
  const void* scores;  // [n]
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null: all boxes are of one class
  int64_t n;
  double threshold;
  bool gaussian;
  double sigma;
  double min_score;  // at least 0
};

// The boxes that were taken, in order.
template <class A>
struct SoftNmsTaken {
  std::vector<int32_t> keep;  // input indices
  std::vector<A> scores;      // decayed scores
  std::vector<A> decays;      // decayed score = input score * decay
};

// A is double if boxes or scores are float64, else float.
template <class A>
SoftNmsTaken<A> soft_nms_taken(const SoftNmsProblem& problem, ParallelFor parallel);

}  // namespace retina_ops
