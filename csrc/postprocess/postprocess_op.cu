// Post-processing for CUDA tensors: workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include "common/cuda_op.cuh"
#include "postprocess/postprocess_launch.cuh"
#include "postprocess/postprocess_op.h"

namespace retina_ops {
namespace {

void run_on_cuda(const PostprocessCall& call) {
  const PostprocessProblem& problem = call.problem;
  check(problem.topk <= kPostprocessMaxTopk, "postprocess: topk_candidates must be at most ", kPostprocessMaxTopk,
        " on CUDA, got ", problem.topk);
  if (problem.logits.batch == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(call.anchors.get_device_index());
  const PostprocessBytes bytes = postprocess_bytes(problem);
  Tensor zeros = torch::stable::new_zeros(call.anchors, {bytes.states + bytes.bins}, ScalarType::Byte);
  Tensor space = torch::stable::new_empty(
      call.anchors, {bytes.keys + bytes.candidates + bytes.scores + bytes.labels + bytes.indices}, ScalarType::Byte);
  auto* zeroed = static_cast<uint8_t*>(zeros.mutable_data_ptr());
  auto* memory = static_cast<uint8_t*>(space.mutable_data_ptr());
  PostprocessDevice device{problem};
  device.capacity = bytes.capacity;
  device.states = zeroed;
  device.bins = reinterpret_cast<unsigned*>(zeroed + bytes.states);
  device.keys = memory;
  device.candidates = memory + bytes.keys;
  device.candidate_scores = memory + bytes.keys + bytes.candidates;
  device.candidate_labels = reinterpret_cast<int32_t*>(memory + bytes.keys + bytes.candidates + bytes.scores);
  device.candidate_indices =
      reinterpret_cast<int64_t*>(memory + bytes.keys + bytes.candidates + bytes.scores + bytes.labels);
  device.stream = current_stream(call.anchors);
  launch_postprocess(device);
  RETINA_OPS_LAUNCH_CHECK();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) { m.impl("postprocess", TORCH_BOX(&postprocess<run_on_cuda>)); }

}  // namespace retina_ops
