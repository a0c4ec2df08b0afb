// The focal loss over a range of plain memory, on the CPU. No torch.
#pragma once

#include "common/half_block.h"

namespace retina_ops {

// One call of the operator. All arrays are contiguous; n = number of logits.
struct FocalProblem {
  const void* logits;           // [n] of `dtype`
  Dtype dtype;                  // of logits, value, derivative and upstream
  int64_t classes;              // K: logits are [n / K, K]
  const int64_t* labels;        // [n / K] class of each row in [0, K], or ignore_index; null for soft targets
  const void* soft_targets;     // [n] of `soft_dtype`; null for labels
  Dtype soft_dtype;             // `dtype`, or float32 beside half logits
  int64_t ignore_index;         // rows with this label give no loss and no derivative
  const void* alpha_per_class;  // [K] float32 (float64 for float64 logits), or null: use `alpha`
  double alpha;                 // weight of positives in [0, 1], 1 - alpha for negatives; negative: no weights
  double gamma;                 // >= 0
  int order;                    // 0: no derivative; 1 or 2: derivative of that order by the logit
  void* value;                  // [n] loss per element, or null
  void* derivative;             // [n] upstream * derivative, or null where order is 0
  const void* upstream;         // [n], or null: use upstream_scalar
  double upstream_scalar;       //
};

// Elements of one chunk: the unit of parallel work and of summation, so that results do not depend on the threads.
constexpr int64_t kFocalChunk = 16384;

// Computes elements [begin, end) and returns the sum of their losses. begin must be a multiple of kFocalChunk.
double focal_loss_range(const FocalProblem& problem, int64_t begin, int64_t end);

// Logits of neighbouring anchors in planes, one a class: plane k begins `stride` elements after plane k - 1. The labels
// are the anchors' own, not those of the problem.
struct FocalPlanes {
  int64_t first;          // index of the first anchor's logit of class 0, in logits and derivative
  int64_t stride;         // at least count
  int64_t count;          // anchors
  const int64_t* labels;  // [count] class in [0, K), K for background, or the problem's ignore_index
};

// The same over planes, for order 0 and 1, without alpha_per_class, value and upstream.
double focal_loss_planes(const FocalProblem& problem, const FocalPlanes& planes);

// The first of rows [begin, end) whose label is neither a class, nor K, nor ignore_index; -1 if there is none, or no
// labels.
int64_t first_bad_label(const FocalProblem& problem, int64_t begin, int64_t end);

// data[begin, end) *= factor, data of `dtype`.
void scale_range(void* data, Dtype dtype, double factor, int64_t begin, int64_t end);

}  // namespace retina_ops
