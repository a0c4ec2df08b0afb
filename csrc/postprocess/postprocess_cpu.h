// Post-processing of a batch over plain memory, on the CPU. No torch.
#pragma once

#include <algorithm>

#include "box_coding/box_coding_cpu.h"
#include "common/head_levels.h"
#include "nms/nms_cpu.h"

namespace retina_ops {

// One call of the operator. Scores are float, or double for float64 logits.
struct PostprocessProblem {
  HeadLevels logits;        // C: classes
  HeadLevels deltas;        // C: 4
  const void* anchors;      // [anchors of an image, 4] of box_dtype, pixels
  const void* image_sizes;  // [batch, 2] of box_dtype: (height, width) in pixels
  Dtype box_dtype;          // float32 or float64
  double score_threshold;
  int64_t topk;  // of a level of an image
  double nms_threshold;
  int64_t detections;  // D, of an image
  double weights[4];
  void* boxes;      // [batch, D, 4] of box_dtype
  void* scores;     // [batch, D] of float or double
  int64_t* labels;  // [batch, D]
  int64_t* counts;  // [batch]
};

// The weights and the limit of the sizes; an image's borders are not in it.
template <class A>
BoxCoding<A> coding_of(const PostprocessProblem& problem) {
  BoxCodingProblem coding{};
  std::copy(problem.weights, problem.weights + 4, coding.weights);
  coding.image_height = -1.0;
  return coding_of<A>(coding);
}

// Fills the outputs; what is left over becomes 0, labels -1.
void postprocess_images(const PostprocessProblem& problem, const ParallelFor& parallel);

}  // namespace retina_ops
