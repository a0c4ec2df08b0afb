// The kernels of postprocess/, launched as by their operator.
#include "postprocess/postprocess_launch.cuh"

#include "case_levels.h"

using namespace retina_ops;

void run_postprocess(const Case& c) {
  const int64_t first = c.integer("first");
  PostprocessProblem problem{};
  problem.logits = levels_of(c, "logits", c.integer("classes"), first);
  problem.deltas = levels_of(c, "deltas", 4, first);
  problem.box_dtype = c.dtype("box_dtype");
  problem.score_threshold = c.number("score_threshold");
  problem.topk = c.integer("topk");
  problem.nms_threshold = c.number("nms_threshold");
  problem.detections = c.integer("detections");
  for (int i = 0; i < 4; ++i) problem.weights[i] = c.number("w" + std::to_string(i));
  const int64_t box = bytes_of_box(problem.box_dtype);
  const int64_t score = problem.logits.dtype == Dtype::kFloat64 ? 8 : 4;
  problem.anchors = c.array("anchors");
  problem.image_sizes = c.array("image_sizes", first * box / 2);
  problem.boxes = c.array("boxes", first * problem.detections * box);
  problem.scores = c.array("scores", first * problem.detections * score);
  problem.labels = c.array<int64_t>("labels", first * problem.detections * 8);
  problem.counts = c.array<int64_t>("counts", first * 8);
  // The workspace's sizes are multiples of its number of slabs, so those of one image are moved as well.
  PostprocessProblem skipped = problem;
  skipped.logits.batch = first;
  const PostprocessBytes moved = postprocess_bytes(skipped);
  PostprocessDevice d{};
  d.states = c.array("states", moved.states);
  d.bins = c.array<unsigned>("bins", moved.bins);
  d.keys = c.array("keys", moved.keys);
  d.candidates = c.array("candidates", moved.candidates);
  d.scores = c.array("candidate_scores", moved.scores);
  d.labels = c.array<int32_t>("candidate_labels", moved.labels);
  d.first_image = first;
  launch_postprocess(problem, d, moved.capacity);
}
