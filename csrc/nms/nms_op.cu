// nms and nms_padded for CUDA tensors: sorts, workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include <array>
#include <tuple>

#include "common/cuda_op.cuh"
#include "common/sort.cuh"
#include "nms/nms_launch.cuh"
#include "nms/nms_op.h"

namespace retina_ops {
namespace {

Tensor gather(const Tensor& values, const Tensor& indices) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(values), torch::stable::detail::from(int64_t(0)),
                                    torch::stable::detail::from(indices)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::index_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The kept indices, padded with -1 to max_output, and their count.
std::tuple<Tensor, Tensor> run(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs,
                               double threshold, int64_t max_output) {
  Tensor keep = torch::stable::new_empty(boxes, {max_output}, ScalarType::Long);
  Tensor count = torch::stable::new_zeros(boxes, {}, ScalarType::Long);
  const int64_t n = boxes.size(0);
  if (n == 0) {
    torch::stable::fill_(keep, -1.0);
    return {keep, count};
  }
  const Tensor contiguous_boxes = torch::stable::contiguous(boxes);
  const Tensor contiguous_scores = torch::stable::contiguous(scores);
  const Tensor order = stable_argsort(contiguous_scores, true);
  const bool is_double = dtype_of(boxes) == Dtype::kFloat64;
  const int64_t words = nms_words(n);
  const Tensor sorted = torch::stable::new_empty(boxes, {n, 4}, is_double ? ScalarType::Double : ScalarType::Float);
  const Tensor sorted_classes = torch::stable::new_empty(boxes, {idxs ? n : 0}, ScalarType::Long);
  const Tensor bits = torch::stable::new_zeros(boxes, {3, words}, ScalarType::Int);
  const Tensor mask =
      torch::stable::new_empty(boxes, {nms_mask_rows(n) / kNmsTile, nms_mask_rows(n)}, ScalarType::Long);
  auto* words32 = reinterpret_cast<uint32_t*>(bits.mutable_data_ptr<int32_t>());
  NmsDevice device{};
  device.boxes = contiguous_boxes.const_data_ptr();
  device.box_dtype = dtype_of(boxes);
  device.scores = contiguous_scores.const_data_ptr();
  device.score_dtype = dtype_of(scores);
  device.order = order.const_data_ptr<int64_t>();
  device.threshold = threshold;
  device.n = n;
  device.output = keep.mutable_data_ptr<int64_t>();
  device.max_output = max_output;
  device.count = count.mutable_data_ptr<int64_t>();
  device.sorted_boxes = sorted.mutable_data_ptr();
  device.struck = words32;
  device.kept = words32 + words;
  device.by_score = words32 + 2 * words;
  device.mask = reinterpret_cast<uint64_t*>(mask.mutable_data_ptr<int64_t>());
  device.stream = current_stream(boxes);
  Tensor classes, rank;
  if (idxs) {
    classes = torch::stable::contiguous(*idxs);
    rank = stable_argsort(gather(classes, order), false);
    device.classes = classes.const_data_ptr<int64_t>();
    device.rank = rank.const_data_ptr<int64_t>();
    device.sorted_classes = sorted_classes.mutable_data_ptr<int64_t>();
  }
  launch_nms(device);
  RETINA_OPS_LAUNCH_CHECK();
  return {keep, count};
}

Tensor nms_cuda(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs, double iou_threshold) {
  check_nms("nms", boxes, scores, idxs);
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const auto [keep, count] = run(boxes, scores, idxs, iou_threshold, boxes.size(0));
  // The host waits for the size of the output, and for nothing else.
  const cudaStream_t stream = current_stream(boxes);
  int64_t size = 0;
  STD_CUDA_CHECK(cudaMemcpyAsync(&size, count.const_data_ptr(), sizeof(size), cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  Tensor padded = keep;
  return torch::stable::clone(torch::stable::narrow(padded, 0, 0, size));  // a copy, so that the padding is freed
}

std::tuple<Tensor, Tensor> nms_padded_cuda(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs,
                                           double iou_threshold, int64_t max_output) {
  check_nms("nms_padded", boxes, scores, idxs);
  check_max_output("nms_padded", max_output);
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  return run(boxes, scores, idxs, iou_threshold, max_output);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("nms", TORCH_BOX(&nms_cuda));
  m.impl("nms_padded", TORCH_BOX(&nms_padded_cuda));
}

}  // namespace retina_ops
