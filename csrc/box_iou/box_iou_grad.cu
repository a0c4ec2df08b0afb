// The launches of the gradient of pairwise IoU: a source of its own, which compiles beside the others. No torch.
#include "box_iou/box_iou_grad_kernels.cuh"
#include "box_iou/box_iou_launch.cuh"

namespace retina_ops {
namespace {

template <class T, IouKind K>
void launch_box_iou_grad_kind(const BoxIouGradProblem& problem, int64_t first_image, void* grad1, void* grad2,
                              cudaStream_t stream) {
  const BoxIouProblem& forward = problem.forward;
  IouGradArguments<T> a{};
  a.boxes1 = static_cast<const T*>(forward.boxes1);
  a.boxes2 = static_cast<const T*>(forward.boxes2);
  a.grad = static_cast<const ArithmeticOf<T>*>(problem.grad);
  a.batch = problem.batch;
  a.n = forward.n;
  a.m = forward.m;
  a.row_sums = problem.row_sums;
  a.column_sums = problem.column_sums;
  a.eps = pairwise_eps<ArithmeticOf<T>>(forward);
  a.aligned = is_aligned(a.boxes1, 16) && is_aligned(a.boxes2, 16);
  const int64_t row_tiles = ceil_div<int64_t>(a.n, kIouGradRows), column_tiles = ceil_div<int64_t>(a.m, kIouThreads);
  a.first_block = first_image * row_tiles * column_tiles;
  const int64_t blocks = (a.batch - first_image) * row_tiles * column_tiles;
  if (blocks > 0) {
    launch(box_iou_grad_kernel<T, K>, dim3(static_cast<unsigned>(blocks)), dim3(kIouThreads), 0, stream, a);
  }
  const auto add = [&](const double* sums, int64_t tiles, int64_t boxes, void* values) {
    const int64_t first = 4 * first_image * boxes, count = 4 * a.batch * boxes;
    if (values == nullptr || first == count) return;
    launch(add_tiles_kernel<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>(count - first, kIouThreads))),
           dim3(kIouThreads), 0, stream, sums, tiles, first, count, static_cast<T*>(values));
  };
  add(a.row_sums, column_tiles, a.n, grad1);
  add(a.column_sums, row_tiles, a.m, grad2);
}

template <class T>
void launch_typed(const BoxIouGradProblem& problem, int64_t first_image, void* grad1, void* grad2,
                  cudaStream_t stream) {
  for_kind(problem.forward.kind, [&](auto kind) {
    launch_box_iou_grad_kind<T, decltype(kind)::value>(problem, first_image, grad1, grad2, stream);
  });
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
