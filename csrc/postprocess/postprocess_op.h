// What the CPU and the CUDA operators of post-processing share: argument checks, outputs and the problem for the
// kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/head_outputs.h"
#include "nms/nms_op.h"
#include "postprocess/postprocess.h"
#include "postprocess/postprocess_cpu.h"

namespace retina_ops {

// The arguments of a call, checked and contiguous, and its outputs.
struct PostprocessCall {
  HeadOutputs logits;
  HeadOutputs deltas;
  Tensor anchors;
  Tensor image_sizes;
  Tensor boxes;
  Tensor scores;
  Tensor labels;
  Tensor counts;
  Tensor indices;
  PostprocessProblem problem;
};

// The options of the operator, as in its schema.
struct PostprocessOptions {
  double score_thresh;
  int64_t topk_candidates;
  double nms_thresh;
  int64_t detections_per_img;
  double weights[4];
};

inline PostprocessCall check_postprocess(const std::vector<Tensor>& cls_logits,
                                         const std::vector<Tensor>& bbox_regression, const Tensor& anchors,
                                         const Tensor& image_sizes, const PostprocessOptions& options) {
  const char* op = "postprocess";
  PostprocessCall call{};
  call.logits = check_head_outputs(op, "cls_logits", cls_logits);
  call.deltas = check_head_outputs(op, "bbox_regression", bbox_regression);
  check_same_levels(op, call.logits, call.deltas, anchors);
  const HeadLevels& logits = call.logits.levels;
  const ScalarType dtype = anchors.scalar_type();
  check(dtype == ScalarType::Double || (dtype == ScalarType::Float && call.deltas.levels.dtype != Dtype::kFloat64), op,
        ": anchors must be float32, or float64 as bbox_regression, got ", dtype_name(dtype));
  check(image_sizes.dim() == 2 && image_sizes.size(0) == logits.batch && image_sizes.size(1) == 2, op,
        ": image_sizes must be [", logits.batch, ", 2], got ", shape_string(image_sizes));
  check(image_sizes.scalar_type() == dtype && same_device(image_sizes, anchors), op,
        ": image_sizes must be on the device of anchors, ", dtype_name(dtype), ", got ",
        dtype_name(image_sizes.scalar_type()));
  check(options.topk_candidates >= 0, op, ": topk_candidates must be at least 0, got ", options.topk_candidates);
  check(options.detections_per_img >= 0, op, ": detections_per_img must be at least 0, got ",
        options.detections_per_img);
  for (const double weight : options.weights) {
    check(std::isfinite(weight) && weight != 0.0, op, ": bbox_reg_weights must be finite and not 0, got ", weight);
  }
  int64_t most = 0;
  for (int i = 0; i < logits.count; ++i) most = std::max(most, logits.level[i].anchors() * logits.channels);
  check(most <= kMaxPlaces, op, ": a level of cls_logits must have at most ", kMaxPlaces, " logits per image, got ",
        most);
  const int64_t topk = std::min(options.topk_candidates, most);
  check(topk * logits.count <= kNmsMaxBoxes, op, ": topk_candidates times the number of levels must be at most ",
        kNmsMaxBoxes, ", got ", topk * logits.count);
  call.anchors = torch::stable::contiguous(anchors);
  call.image_sizes = torch::stable::contiguous(image_sizes);
  const int64_t batch = logits.batch, d = options.detections_per_img;
  call.boxes = torch::stable::new_empty(anchors, {batch, d, 4}, dtype);
  call.scores = torch::stable::new_empty(anchors, {batch, d}, accumulate_dtype(call.logits.tensors[0]));
  call.labels = torch::stable::new_empty(anchors, {batch, d}, ScalarType::Long);
  call.counts = torch::stable::new_empty(anchors, {batch}, ScalarType::Long);
  call.indices = torch::stable::new_empty(anchors, {batch, d}, ScalarType::Long);
  PostprocessProblem& problem = call.problem;
  problem.logits = logits;
  problem.deltas = call.deltas.levels;
  problem.anchors = call.anchors.const_data_ptr();
  problem.image_sizes = call.image_sizes.const_data_ptr();
  problem.box_dtype = dtype_of(anchors);
  problem.score_threshold = options.score_thresh;
  problem.topk = topk;
  problem.nms_threshold = options.nms_thresh;
  problem.detections = d;
  std::copy(options.weights, options.weights + 4, problem.weights);
  problem.boxes = call.boxes.mutable_data_ptr();
  problem.scores = call.scores.mutable_data_ptr();
  problem.labels = call.labels.mutable_data_ptr<int64_t>();
  problem.counts = call.counts.mutable_data_ptr<int64_t>();
  problem.indices = call.indices.mutable_data_ptr<int64_t>();
  return call;
}

using PostprocessOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// The operator of one backend; `run` computes a call.
template <void (*run)(const PostprocessCall&)>
PostprocessOutputs postprocess(std::vector<Tensor> cls_logits, std::vector<Tensor> bbox_regression,
                               const Tensor& anchors, const Tensor& image_sizes, double score_thresh,
                               int64_t topk_candidates, double nms_thresh, int64_t detections_per_img, double wx,
                               double wy, double ww, double wh) {
  const PostprocessCall call =
      check_postprocess(cls_logits, bbox_regression, anchors, image_sizes,
                        {score_thresh, topk_candidates, nms_thresh, detections_per_img, {wx, wy, ww, wh}});
  run(call);
  return {call.boxes, call.scores, call.labels, call.counts, call.indices};
}

}  // namespace retina_ops
