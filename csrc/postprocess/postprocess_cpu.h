// The problem that a call of post-processing describes, and its solution on the CPU. No torch.
#pragma once

#include "common/head_levels.h"
#include "common/parallel.h"

namespace retina_ops {

// One call of the operator. All arrays are contiguous. Scores are float, or double for float64 logits.
struct PostprocessProblem {
  HeadLevels logits;        // C: classes
  HeadLevels deltas;        // C: 4
  const void* anchors;      // [anchors per image, 4] of box_dtype, in pixels
  const void* image_sizes;  // [batch, 2] of box_dtype, (height, width) in pixels
  Dtype box_dtype;          // float32 or float64
  double score_threshold;
  int64_t topk;  // candidates per level and image
  double nms_threshold;
  int64_t detections;  // D, per image
  double weights[4];   // of the box coding
  void* boxes;         // [batch, D, 4] of box_dtype
  void* scores;        // [batch, D] of float or double
  int64_t* labels;     // [batch, D]
  int64_t* counts;     // [batch]
  int64_t* indices;    // [batch, D]: the anchor of each detection, among those of all levels
};

// Fills the outputs. Past the last detection of an image they are 0, labels and indices -1.
void postprocess_images(const PostprocessProblem& problem, ParallelFor parallel);

}  // namespace retina_ops
