// soft_nms for CPU tensors: checks, threads, outputs, registration.
#include "soft_nms/soft_nms_op.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "common/cpu_op.h"
#include "soft_nms/soft_nms_cpu.h"

namespace retina_ops {
namespace {

using Outputs = std::tuple<Tensor, Tensor, Tensor>;

// Writes the scores in the dtype of `to`, which may be narrower than A.
template <class A>
void store_scores(const std::vector<A>& values, const Tensor& to) {
  constexpr int kBlock = 64;
  const Dtype dtype = dtype_of(to);
  const auto n = static_cast<int64_t>(values.size());
  for (int64_t first = 0; first < n; first += kBlock) {
    const int count = block_count<kBlock>(first, n);
    A wide[kBlock] = {};
    std::copy_n(values.begin() + first, count, wide);
    if (sizeof(A) == 8 && dtype != Dtype::kFloat64) {
      float narrow[kBlock];
      for (int i = 0; i < kBlock; ++i) narrow[i] = static_cast<float>(wide[i]);
      store_block<kBlock>(to.mutable_data_ptr(), dtype, first, narrow, count);
    } else {
      store_block<kBlock>(to.mutable_data_ptr(), dtype, first, wide, count);
    }
  }
}

template <class A>
Outputs run(const SoftNmsProblem& problem, const Tensor& boxes, const Tensor& scores) {
  const SoftNmsTaken<A> taken = soft_nms_taken<A>(problem, parallel_for);
  const auto count = static_cast<int64_t>(taken.keep.size());
  Tensor keep = torch::stable::new_empty(boxes, {count}, ScalarType::Long);
  Tensor decayed = torch::stable::new_empty(scores, {count});
  Tensor decays = torch::stable::new_empty(boxes, {count}, soft_nms_arithmetic(boxes, scores));
  std::copy(taken.keep.begin(), taken.keep.end(), keep.mutable_data_ptr<int64_t>());
  std::copy(taken.decays.begin(), taken.decays.end(), decays.mutable_data_ptr<A>());
  store_scores(taken.scores, decayed);
  return {keep, decayed, decays};
}

Outputs soft_nms_cpu(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs, double iou_threshold,
                     bool gaussian, double sigma, double min_score) {
  check_soft_nms(boxes, scores, idxs, min_score);
  const Tensor contiguous_boxes = torch::stable::contiguous(boxes);
  const Tensor contiguous_scores = torch::stable::contiguous(scores);
  std::optional<Tensor> classes;
  if (idxs.has_value()) classes = torch::stable::contiguous(*idxs);
  const SoftNmsProblem problem{contiguous_boxes.const_data_ptr(),
                               dtype_of(boxes),
                               contiguous_scores.const_data_ptr(),
                               dtype_of(scores),
                               classes ? classes->const_data_ptr<int64_t>() : nullptr,
                               boxes.size(0),
                               iou_threshold,
                               gaussian,
                               sigma,
                               min_score};
  return soft_nms_arithmetic(boxes, scores) == ScalarType::Double ? run<double>(problem, boxes, scores)
                                                                  : run<float>(problem, boxes, scores);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms_cpu)); }

}  // namespace retina_ops

// boxes [N, 4], scores [N], idxs int64 [N] or none.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // By descending decayed score: the kept indices, their decayed scores, and the factors between the input scores and
  // the decayed scores (float32; float64 where boxes or scores are float64).
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, bool gaussian, float sigma, "
      "float min_score) -> (Tensor, Tensor, Tensor)");
}
