// The launches of the gradient of pairwise IoU: a source of its own, which compiles beside the others. No torch.
#include "box_iou/box_iou_grad_kernels.cuh"
#include "box_iou/box_iou_launch.cuh"

namespace retina_ops {
namespace {

template <class A, IouKind K>
void launch_tiles(const BoxIouGradProblem& problem, int64_t first_image, cudaStream_t stream) {
  const BoxIouProblem& forward = problem.forward;
  IouGradArguments<A> a{};
  a.boxes1 = forward.boxes1;
  a.boxes2 = forward.boxes2;
  a.dtype = forward.dtype;
  a.grad = static_cast<const A*>(problem.grad);
  a.batch = problem.batch;
  a.n = forward.n;
  a.m = forward.m;
  a.row_sums = problem.row_sums;
  a.column_sums = problem.column_sums;
  a.eps = pairwise_eps<A>(forward);
  a.aligned = is_aligned(a.boxes1, 16) && is_aligned(a.boxes2, 16);
  const int64_t per_image = ceil_div<int64_t>(a.n, kIouGradRows) * ceil_div<int64_t>(a.m, kIouThreads);
  a.first_block = first_image * per_image;
  const int64_t blocks = (a.batch - first_image) * per_image;
  if (blocks == 0) return;
  launch(box_iou_grad_kernel<A, K>, dim3(static_cast<unsigned>(blocks)), dim3(kIouThreads), 0, stream, a);
}

// values: [batch * boxes, 4] of images from first_image on, or null.
template <class T>
void launch_add_tiles(const double* sums, int64_t tiles, int64_t first_image, int64_t batch, int64_t boxes,
                      void* values, cudaStream_t stream) {
  const int64_t first = 4 * first_image * boxes, count = 4 * batch * boxes;
  if (values == nullptr || first == count) return;
  launch(add_tiles_kernel<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>((count - first) * kTileLanes, kIouThreads))),
         dim3(kIouThreads), 0, stream, sums, tiles, first, count, static_cast<T*>(values));
}

template <class T>
void launch_typed(const BoxIouGradProblem& problem, int64_t first_image, void* grad1, void* grad2,
                  cudaStream_t stream) {
  const BoxIouProblem& forward = problem.forward;
  for_kind(forward.kind,
           [&](auto kind) { launch_tiles<ArithmeticOf<T>, decltype(kind)::value>(problem, first_image, stream); });
  launch_add_tiles<T>(problem.row_sums, ceil_div<int64_t>(forward.m, kIouThreads), first_image, problem.batch,
                      forward.n, grad1, stream);
  launch_add_tiles<T>(problem.column_sums, ceil_div<int64_t>(forward.n, kIouGradRows), first_image, problem.batch,
                      forward.m, grad2, stream);
}

}  // namespace

void launch_box_iou_grad(const BoxIouGradProblem& problem, int64_t first_image, void* grad1, void* grad2,
                         cudaStream_t stream) {
  switch (problem.forward.dtype) {
    case Dtype::kFloat32: return launch_typed<float>(problem, first_image, grad1, grad2, stream);
    case Dtype::kFloat64: return launch_typed<double>(problem, first_image, grad1, grad2, stream);
    case Dtype::kFloat16: return launch_typed<__half>(problem, first_image, grad1, grad2, stream);
    case Dtype::kBFloat16: return launch_typed<__nv_bfloat16>(problem, first_image, grad1, grad2, stream);
  }
}

}  // namespace retina_ops
