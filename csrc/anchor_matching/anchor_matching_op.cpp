// match_anchors for CPU tensors: checks, threads, registration.
#include "anchor_matching/anchor_matching_op.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/cpu_op.h"

namespace retina_ops {
namespace {

void check_counts(const char* name, const int32_t* counts, int64_t batch, int64_t capacity) {
  for (int64_t image = 0; image < batch; ++image) {
    check(counts[image] >= 0 && counts[image] <= capacity, "match_anchors: counts of ", name, " must be in [0, ",
          capacity, "], got ", counts[image], " for image ", image);
  }
}

template <class T>
void run(const MatchProblem& problem) {
  MatchWork<T> work = prepare_matching<T>(problem);
  parallel_for(work.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) match_find_best(work, group);
  });
  match_merge(work);
  parallel_for(work.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) match_decide(work, group);
  });
  match_count(work);
}

std::tuple<Tensor, Tensor> match_anchors_cpu(const Tensor& anchors, const Tensor& gt_boxes, const Tensor& gt_counts,
                                             std::optional<Tensor> regions, std::optional<Tensor> region_counts,
                                             double fg_iou_thresh, double bg_iou_thresh, bool allow_low_quality,
                                             double ignore_iof, double min_pos_iou) {
  const MatchCall call = check_match_anchors(anchors, gt_boxes, gt_counts, regions, region_counts, fg_iou_thresh,
                                             bg_iou_thresh, allow_low_quality, ignore_iof, min_pos_iou);
  const MatchProblem& problem = call.problem;
  check_counts("gt_boxes", problem.gt_counts, problem.batch, problem.gt_capacity);
  if (problem.regions != nullptr) {
    check_counts("ignore_regions", problem.region_counts, problem.batch, problem.region_capacity);
  }
  if (call.matches.numel() == 0) return {call.matches, call.foreground};
  if (problem.dtype == Dtype::kFloat64) {
    run<double>(problem);
  } else {
    run<float>(problem);
  }
  return {call.matches, call.foreground};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) { m.impl("match_anchors", TORCH_BOX(&match_anchors_cpu)); }

}  // namespace retina_ops

// anchors are [A, 4] or [B, A, 4]. gt_boxes [B, M, 4] and regions [B, R, 4] are padded; gt_counts and region_counts,
// int32 [B], say how many rows of each image are used.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The match of each anchor, int64 [B, A], and the number of foreground anchors of each image, int64 [B].
  m.def(
      "match_anchors(Tensor anchors, Tensor gt_boxes, Tensor gt_counts, Tensor? regions, Tensor? region_counts, "
      "float fg_iou_thresh, float bg_iou_thresh, bool allow_low_quality, float ignore_iof, "
      "float min_pos_iou) -> (Tensor, Tensor)");
}
