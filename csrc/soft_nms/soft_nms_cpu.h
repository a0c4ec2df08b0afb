// Soft non-maximum suppression over plain memory, on the CPU. No torch.
#pragma once

#include <functional>
#include <vector>

#include "common/half_block.h"

namespace retina_ops {

// One call of the operator. Arrays are contiguous.
struct SoftNmsProblem {
  const void* boxes;  // [n, 4]
  Dtype box_dtype;
  const void* scores;  // [n]
  Dtype score_dtype;
  const int64_t* classes;  // [n], or null: all of one class
  int64_t n;
  double threshold;
  bool gaussian;
  double sigma;
  double min_score;  // at least 0
};

// The taken boxes, in order.
template <class A>
struct SoftNmsTaken {
  std::vector<int32_t> keep;  // input indices
  std::vector<A> scores;      // decayed
  std::vector<A> decays;      // what the input scores were multiplied by
};

// Runs body(begin, end) over the parts of [0, count), on several threads.
using SoftNmsParallelFor = std::function<void(int64_t count, const std::function<void(int64_t, int64_t)>& body)>;

// A: double where boxes or scores are float64, else float.
template <class A>
SoftNmsTaken<A> soft_nms_taken(const SoftNmsProblem& problem, const SoftNmsParallelFor& parallel);

}  // namespace retina_ops
