// The launches of the gradient of pairwise IoU. They are a source of their own so that sources compile in parallel. No
// torch.
#include "box_iou/box_iou_grad_kernels.cuh"
#include "box_iou/box_iou_launch.cuh"

namespace retina_ops {
namespace {

template <class A, IouKind K>
void launch_tiles(const BoxIouGradDevice& device) {
  const BoxIouProblem& forward = device.forward;
  IouGradArguments<A> args{};
  args.boxes1 = forward.boxes1;
  args.boxes2 = forward.boxes2;
  args.dtype = forward.dtype;
  args.grad = static_cast<const A*>(device.grad);
  args.batch = device.batch;
  args.n = forward.n;
  args.m = forward.m;
  args.row_sums = device.row_sums;
  args.column_sums = device.column_sums;
  args.eps = pairwise_eps<A>(forward);
  args.aligned = is_aligned(args.boxes1, 16) && is_aligned(args.boxes2, 16);
  const int64_t per_image = ceil_div<int64_t>(args.n, kIouGradRows) * ceil_div<int64_t>(args.m, kIouThreads);
  args.first_block = device.limits.first * per_image;
  const int64_t blocks = (args.batch - device.limits.first) * per_image;
  if (blocks == 0) return;
  launch(box_iou_grad_kernel<A, K>, dim3(static_cast<unsigned>(blocks)), dim3(kIouThreads), 0, device.stream, args);
}

// values: [batch, boxes, 4], or null.
template <class T>
void launch_add_tiles(const BoxIouGradDevice& device, const double* sums, int64_t tiles, int64_t boxes, void* values) {
  const int64_t first = 4 * device.limits.first * boxes, count = 4 * device.batch * boxes;
  if (values == nullptr || first == count) return;
  const int64_t blocks = ceil_div<int64_t>((count - first) * kTileLanes, kIouThreads);
  launch(add_tiles_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kIouThreads), 0, device.stream, sums, tiles,
         first, count, static_cast<T*>(values));
}

template <class T>
void launch_typed(const BoxIouGradDevice& device) {
  const BoxIouProblem& forward = device.forward;
  for_kind(forward.kind, [&](auto kind) { launch_tiles<ArithmeticOf<T>, decltype(kind)::value>(device); });
  launch_add_tiles<T>(device, device.row_sums, ceil_div<int64_t>(forward.m, kIouThreads), forward.n, device.grad1);
  launch_add_tiles<T>(device, device.column_sums, ceil_div<int64_t>(forward.n, kIouGradRows), forward.m, device.grad2);
}

}  // namespace

void launch_box_iou_grad(const BoxIouGradDevice& device) {
  switch (device.forward.dtype) {
    case Dtype::kFloat32: return launch_typed<float>(device);
    case Dtype::kFloat64: return launch_typed<double>(device);
    case Dtype::kFloat16: return launch_typed<__half>(device);
    case Dtype::kBFloat16: return launch_typed<__nv_bfloat16>(device);
  }
}

}  // namespace retina_ops
