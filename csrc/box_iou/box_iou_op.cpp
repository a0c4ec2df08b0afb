// box_iou and its gradient for CPU tensors: threads and registration.
#include "box_iou/box_iou_op.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/cpu_op.h"

namespace retina_ops {
namespace {

constexpr int64_t kPairsPerThread = 32768;  // less work is not worth a thread
constexpr int64_t kSumsPerThread = 4096;

struct Cpu {
  static constexpr int64_t kGradRows = retina_ops::kGradRows;
  static constexpr int64_t kGradColumns = retina_ops::kGradColumns;

  static void forward(const BoxIouCall& call) {
    const int64_t rows_per_thread = std::max<int64_t>(1, kPairsPerThread / call.problem.m);
    parallel_for(call.batch * call.problem.n, rows_per_thread,
                 [&](int64_t begin, int64_t end) { box_iou_range(call.problem, begin, end); });
  }

  static void backward(const BoxIouCall& call, const BoxIouGradProblem& problem, void* grad1, void* grad2) {
    parallel_for(problem.tiles(), 1, [&](int64_t begin, int64_t end) { box_iou_grad_range(problem, begin, end); });
    add_tiles(problem.row_sums, problem.column_tiles(), call.boxes1.numel(), grad1, call.problem.dtype);
    add_tiles(problem.column_sums, problem.row_tiles(), call.boxes2.numel(), grad2, call.problem.dtype);
  }

 private:
  static void add_tiles(const double* sums, int64_t tiles, int64_t count, void* values, Dtype dtype) {
    if (values == nullptr) return;
    parallel_for(count, kSumsPerThread,
                 [&](int64_t begin, int64_t end) { add_tiles_range(sums, tiles, count, values, dtype, begin, end); });
  }
};

using Operators = BoxIouOperators<Cpu>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("box_iou", TORCH_BOX(&Operators::forward));
  m.impl("box_iou_backward", TORCH_BOX(&Operators::backward));
}

}  // namespace retina_ops

// boxes1 [..., N, 4], boxes2 [..., M, 4]; kind: 0 generalized, 1 distance, 2 complete, 3 plain IoU.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // [..., N, M] in float32; in float64 for float64 boxes.
  m.def("box_iou(Tensor boxes1, Tensor boxes2, int kind, float eps) -> Tensor");
  // Gradients of boxes1 and boxes2. A gradient that is not asked for is an empty tensor.
  m.def(
      "box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, float eps, bool for_boxes1, "
      "bool for_boxes2) -> (Tensor, Tensor)");
}
