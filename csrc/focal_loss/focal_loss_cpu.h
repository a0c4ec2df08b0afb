// The problem that a call of the focal loss describes, and its solution on the CPU over ranges of plain memory. No
// torch.
#pragma once

#include "common/half_block.h"

namespace retina_ops {

// One call of an operator. All arrays are contiguous; n is the number of logits.
struct FocalProblem {
  const void* logits;           // [n] of `dtype`
  Dtype dtype;                  // of logits, loss_out, grad_out and upstream
  int64_t classes;              // K: logits are [n / K, K]
  const int64_t* labels;        // [n / K] class of each row in [0, K], or ignore_index; null for soft targets
  const void* soft_targets;     // [n] of `soft_dtype`; null for labels
  Dtype soft_dtype;             // `dtype`, or float32 with float16 or bfloat16 logits
  int64_t ignore_index;         // rows with this label have loss 0 and derivative 0
  const void* alpha_per_class;  // [K] float32 (float64 for float64 logits), or null: use `alpha`
  double alpha;                 // weight of positives in [0, 1], 1 - alpha is that of negatives; negative: no weights
  double gamma;                 // >= 0
  int order;                    // 0: no derivative; 1 or 2: derivative of that order by the logit
  void* loss_out;               // [n] loss per element, or null
  void* grad_out;               // [n] upstream * derivative; null where order is 0
  const void* upstream;         // [n], or null: use upstream_scalar
  double upstream_scalar;
};

// Elements per chunk. Chunks are the units of parallel work and of summation, so that results do not depend on the
// number of threads.
constexpr int64_t kFocalChunk = 16384;

// Computes elements [begin, end) and returns the sum of their losses. begin must be a multiple of kFocalChunk.
double focal_loss_range(const FocalProblem& problem, int64_t begin, int64_t end);

// Logits of consecutive anchors in planes, one plane per class: plane k begins `stride` elements after plane k - 1. The
// labels are those of these anchors; those of the problem are not used.
struct FocalPlanes {
  int64_t first;          // index, in logits and grad_out, of the first anchor's logit of class 0
  int64_t stride;         // at least count
  int64_t count;          // anchors
  const int64_t* labels;  // [count] class in [0, K), K for background, or the problem's ignore_index
};

// Computes planes and returns the sum of their losses, for order 0 and 1, without alpha_per_class, loss_out and
// upstream.
double focal_loss_planes(const FocalProblem& problem, const FocalPlanes& planes);

// The first row of [begin, end) whose label is neither in [0, K] nor ignore_index; -1 if there is none or there are no
// labels.
int64_t first_bad_label(const FocalProblem& problem, int64_t begin, int64_t end);

// Multiplies elements [begin, end) of `data`, of `dtype`, by the factor.
void scale_range(void* data, Dtype dtype, double factor, int64_t begin, int64_t end);

}  // namespace retina_ops
