// nms and nms_padded for CPU tensors: checks, threads, outputs, registration.
#include "nms/nms_op.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "common/cpu_op.h"
#include "nms/nms.h"

namespace retina_ops {
namespace {

std::vector<int32_t> run(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs, double threshold,
                         int64_t limit) {
  const Tensor contiguous_boxes = boxes.is_contiguous() ? boxes : torch::stable::contiguous(boxes);
  const Tensor contiguous_scores = scores.is_contiguous() ? scores : torch::stable::contiguous(scores);
  std::optional<Tensor> classes;
  if (idxs.has_value()) classes = torch::stable::contiguous(*idxs);
  const NmsProblem problem{contiguous_boxes.const_data_ptr(),
                           dtype_of(boxes),
                           contiguous_scores.const_data_ptr(),
                           dtype_of(scores),
                           classes ? classes->const_data_ptr<int64_t>() : nullptr,
                           boxes.size(0),
                           threshold};
  return nms_keep(problem, limit, parallel_for);
}

Tensor nms_cpu(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs, double iou_threshold) {
  check_nms("nms", boxes, scores, idxs);
  const std::vector<int32_t> kept = run(boxes, scores, idxs, iou_threshold, boxes.size(0));
  Tensor keep = torch::stable::new_empty(boxes, {static_cast<int64_t>(kept.size())}, ScalarType::Long);
  std::copy(kept.begin(), kept.end(), keep.mutable_data_ptr<int64_t>());
  return keep;
}

std::tuple<Tensor, Tensor> nms_padded_cpu(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs,
                                          double iou_threshold, int64_t max_output) {
  check_nms("nms_padded", boxes, scores, idxs);
  check_max_output("nms_padded", max_output);
  const std::vector<int32_t> kept = run(boxes, scores, idxs, iou_threshold, max_output);
  Tensor keep = torch::stable::new_empty(boxes, {max_output}, ScalarType::Long);
  Tensor count = torch::stable::new_empty(boxes, {}, ScalarType::Long);
  int64_t* out = keep.mutable_data_ptr<int64_t>();
  std::fill(std::copy(kept.begin(), kept.end(), out), out + max_output, int64_t(-1));
  *count.mutable_data_ptr<int64_t>() = static_cast<int64_t>(kept.size());
  return {keep, count};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms_cpu));
  m.impl("nms_padded", TORCH_BOX(&nms_padded_cpu));
}

}  // namespace retina_ops

// boxes [N, 4], scores [N], idxs int64 [N] or none.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The kept indices, int64, by descending score.
  m.def("nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold) -> Tensor");
  // The same, padded with -1 to [max_output], and how many were kept.
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, int max_output) -> (Tensor, Tensor)");
}
