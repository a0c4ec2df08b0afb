// nms and nms_padded for CUDA tensors: sorts, workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "common/cuda_op.cuh"
#include "nms/nms_kernels.cuh"
#include "nms/nms_op.h"

namespace retina_ops {
namespace {

constexpr int kCompactThreads = 1024;

// The permutation of a stable sort of a vector.
Tensor stable_argsort(const Tensor& values, bool descending) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(values),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t(0)), torch::stable::detail::from(descending)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  const Tensor sorted = torch::stable::detail::to<Tensor>(stack[0]);
  return torch::stable::detail::to<Tensor>(stack[1]);
}

Tensor gather(const Tensor& values, const Tensor& indices) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(values), torch::stable::detail::from(int64_t(0)),
                                    torch::stable::detail::from(indices)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::index_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>(ceil_div<int64_t>(n, kNmsThreads)); }

// One call: sorted inputs and workspace on the device.
struct NmsCall {
  Tensor boxes;
  Tensor scores;
  std::optional<Tensor> classes;
  Tensor order;                // [n] by descending score
  std::optional<Tensor> rank;  // [n] by class, of positions in `order`
  double threshold;
  int64_t n;
  cudaStream_t stream;
};

template <class T, class ScoreT>
void launch_gather(const NmsCall& call, const NmsBoxes<ArithmeticOf<T>>& sorted) {
  const auto* boxes = static_cast<const T*>(call.boxes.const_data_ptr());
  const int64_t* classes = call.classes ? call.classes->const_data_ptr<int64_t>() : nullptr;
  const int64_t* rank = call.rank ? call.rank->const_data_ptr<int64_t>() : nullptr;
  launch(nms_gather_kernel<T, ScoreT>, dim3(blocks_for(call.n)), dim3(kNmsThreads), 0, call.stream, boxes,
         static_cast<const ScoreT*>(call.scores.const_data_ptr()), classes, call.order.const_data_ptr<int64_t>(), rank,
         sorted, is_aligned(boxes, 16));
  RETINA_OPS_LAUNCH_CHECK();
}

template <class T>
void launch_gather_scores(const NmsCall& call, const NmsBoxes<ArithmeticOf<T>>& sorted) {
  switch (dtype_of(call.scores)) {
    case Dtype::kFloat32: return launch_gather<T, float>(call, sorted);
    case Dtype::kFloat64: return launch_gather<T, double>(call, sorted);
    case Dtype::kFloat16: return launch_gather<T, __half>(call, sorted);
    case Dtype::kBFloat16: return launch_gather<T, __nv_bfloat16>(call, sorted);
  }
}

// Bits of the kept boxes in the order of the scores: int32 [ceil(n / 32)].
template <class T>
Tensor keep_bits(const NmsCall& call) {
  using A = ArithmeticOf<T>;
  const int64_t words = ceil_div<int64_t>(call.n, 32);
  const Tensor boxes =
      torch::stable::new_empty(call.boxes, {call.n, 4}, sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float);
  const Tensor classes = torch::stable::new_empty(call.boxes, {call.rank ? call.n : 0}, ScalarType::Long);
  const Tensor struck = torch::stable::new_empty(call.boxes, {words}, ScalarType::Int);
  const Tensor kept = torch::stable::new_empty(call.boxes, {words}, ScalarType::Int);
  const Tensor mask = torch::stable::new_empty(
      call.boxes, {std::min<int64_t>(ceil_div<int64_t>(call.n, kNmsTile) * kNmsTile, kNmsChunk), kNmsWords},
      ScalarType::Long);
  const NmsBoxes<A> sorted{static_cast<Box<A>*>(boxes.mutable_data_ptr()),
                           call.rank ? classes.mutable_data_ptr<int64_t>() : nullptr,
                           reinterpret_cast<uint32_t*>(struck.mutable_data_ptr<int32_t>()),
                           reinterpret_cast<uint32_t*>(kept.mutable_data_ptr<int32_t>()),
                           call.n,
                           threshold_below<A>(call.threshold)};
  auto* mask_words = reinterpret_cast<uint64_t*>(mask.mutable_data_ptr<int64_t>());
  launch_gather_scores<T>(call, sorted);
  for (int64_t begin = 0; begin < call.n; begin += kNmsChunk) {
    const int64_t tiles = ceil_div<int64_t>(std::min<int64_t>(call.n - begin, kNmsChunk), kNmsTile);
    launch(nms_mask_kernel<A>, dim3(static_cast<unsigned>(tiles * kNmsWords)), dim3(kNmsTile), 0, call.stream, sorted,
           begin, mask_words);
    RETINA_OPS_LAUNCH_CHECK();
    launch(nms_sweep_kernel<A>, dim3(1), dim3(kNmsThreads), 0, call.stream, sorted, begin, mask_words);
    RETINA_OPS_LAUNCH_CHECK();
    const int64_t end = begin + kNmsChunk;
    if (end < call.n) {
      launch(nms_suppress_kernel<A>, dim3(blocks_for(call.n - end)), dim3(kNmsThreads), 0, call.stream, sorted, begin,
             end);
      RETINA_OPS_LAUNCH_CHECK();
    }
  }
  if (!call.rank) return kept;
  const Tensor by_score = torch::stable::new_zeros(call.boxes, {words}, ScalarType::Int);
  launch(nms_scatter_kernel<kNmsThreads>, dim3(blocks_for(call.n)), dim3(kNmsThreads), 0, call.stream, sorted.kept,
         call.rank->const_data_ptr<int64_t>(), call.n,
         reinterpret_cast<uint32_t*>(by_score.mutable_data_ptr<int32_t>()));
  RETINA_OPS_LAUNCH_CHECK();
  return by_score;
}

Tensor keep_bits_for(const NmsCall& call) {
  switch (dtype_of(call.boxes)) {
    case Dtype::kFloat64: return keep_bits<double>(call);
    case Dtype::kFloat16: return keep_bits<__half>(call);
    case Dtype::kBFloat16: return keep_bits<__nv_bfloat16>(call);
    default: return keep_bits<float>(call);
  }
}

// Kept indices padded with -1 to max_output, and their count.
std::tuple<Tensor, Tensor> run(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs,
                               double threshold, int64_t max_output) {
  Tensor keep = torch::stable::new_empty(boxes, {max_output}, ScalarType::Long);
  Tensor count = torch::stable::new_zeros(boxes, {}, ScalarType::Long);
  const int64_t n = boxes.size(0);
  if (n == 0) {
    torch::stable::fill_(keep, -1.0);
    return {keep, count};
  }
  NmsCall call{torch::stable::contiguous(boxes),
               torch::stable::contiguous(scores),
               std::nullopt,
               Tensor(),
               std::nullopt,
               threshold,
               n,
               current_stream(boxes)};
  call.order = stable_argsort(call.scores, true);
  if (idxs) {
    call.classes = torch::stable::contiguous(*idxs);
    call.rank = stable_argsort(gather(*call.classes, call.order), false);
  }
  const Tensor bits = keep_bits_for(call);
  launch(nms_compact_kernel<kCompactThreads>, dim3(1), dim3(kCompactThreads), 0, call.stream,
         reinterpret_cast<const uint32_t*>(bits.const_data_ptr<int32_t>()), call.order.const_data_ptr<int64_t>(), n,
         keep.mutable_data_ptr<int64_t>(), max_output, count.mutable_data_ptr<int64_t>());
  RETINA_OPS_LAUNCH_CHECK();
  return {keep, count};
}

Tensor nms_cuda(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs, double iou_threshold) {
  check_nms("nms", boxes, scores, idxs);
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const auto [keep, count] = run(boxes, scores, idxs, iou_threshold, boxes.size(0));
  // The size of the output is the one thing that the host must wait for.
  const cudaStream_t stream = current_stream(boxes);
  int64_t size = 0;
  STD_CUDA_CHECK(cudaMemcpyAsync(&size, count.const_data_ptr(), sizeof(size), cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  Tensor padded = keep;
  return torch::stable::clone(torch::stable::narrow(padded, 0, 0, size));  // not a view: the padding is given back
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
