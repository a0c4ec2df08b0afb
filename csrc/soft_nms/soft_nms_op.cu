// soft_nms for CUDA tensors: sorts, workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/cuda_op.cuh"
#include "common/sort.cuh"
#include "soft_nms/soft_nms_launch.cuh"
#include "soft_nms/soft_nms_op.h"

namespace retina_ops {
namespace {

std::tuple<Tensor, Tensor, Tensor> soft_nms_cuda(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs,
                                                 double iou_threshold, bool gaussian, double sigma, double min_score) {
  check_soft_nms(boxes, scores, idxs, min_score);
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  const ScalarType arithmetic = soft_nms_arithmetic(boxes, scores);
  int64_t size = 0;
  Tensor order;
  Tensor taken = torch::stable::new_empty(boxes, {2, n}, arithmetic);
  SoftNmsDevice device{};
  if (n > 0) {
    const Tensor contiguous_boxes = torch::stable::contiguous(boxes);
    const Tensor contiguous_scores = torch::stable::contiguous(scores);
    const Tensor slots = torch::stable::new_empty(boxes, {6, n}, arithmetic);
    const Tensor indices = torch::stable::new_empty(boxes, {3, n}, ScalarType::Long);
    const Tensor counts = torch::stable::new_zeros(boxes, {2}, ScalarType::Long);
    const int64_t bytes = n * (arithmetic == ScalarType::Double ? 8 : 4);
    auto* slot_bytes = static_cast<char*>(slots.mutable_data_ptr());
    auto* index_data = indices.mutable_data_ptr<int64_t>();
    auto* count_data = counts.mutable_data_ptr<int64_t>();
    Tensor classes, rank;
    if (idxs) {
      classes = torch::stable::contiguous(*idxs);
      rank = stable_argsort(classes, false);
      device.classes = classes.const_data_ptr<int64_t>();
      device.rank = rank.const_data_ptr<int64_t>();
    }
    device.boxes = contiguous_boxes.const_data_ptr();
    device.box_dtype = dtype_of(boxes);
    device.scores = contiguous_scores.const_data_ptr();
    device.score_dtype = dtype_of(scores);
    device.threshold = iou_threshold;
    device.gaussian = gaussian;
    device.sigma = sigma;
    device.min_score = min_score;
    device.n = n;
    device.slot_boxes = slot_bytes;
    device.slot_scores = slot_bytes + 4 * bytes;
    device.slot_decays = slot_bytes + 5 * bytes;
    device.slot_inputs = index_data;
    device.slot_classes = index_data + n;
    device.segment_starts = index_data + 2 * n;
    device.taken_scores = taken.mutable_data_ptr();
    device.taken_decays = static_cast<char*>(taken.mutable_data_ptr()) + bytes;
    device.count = count_data;
    device.segments = reinterpret_cast<int32_t*>(count_data + 1);
    device.stream = current_stream(boxes);
    launch_soft_nms(device);
    RETINA_OPS_LAUNCH_CHECK();
    order = stable_argsort(torch::stable::select(taken, 0, 0), true);
    // The host waits for the size of the output, and for nothing else.
    STD_CUDA_CHECK(cudaMemcpyAsync(&size, count_data, sizeof(size), cudaMemcpyDeviceToHost, device.stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(device.stream));
  }
  Tensor decayed = torch::stable::new_empty(scores, {size});
  Tensor decays = torch::stable::new_empty(boxes, {size}, arithmetic);
  if (size == 0) return {torch::stable::new_empty(boxes, {0}, ScalarType::Long), decayed, decays};
  device.order = order.const_data_ptr<int64_t>();
  device.size = size;
  device.out_scores = decayed.mutable_data_ptr();
  device.out_decays = decays.mutable_data_ptr();
  launch_soft_nms_write(device);
  RETINA_OPS_LAUNCH_CHECK();
  return {torch::stable::clone(torch::stable::narrow(order, 0, 0, size)), decayed, decays};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms_cuda)); }

}  // namespace retina_ops
