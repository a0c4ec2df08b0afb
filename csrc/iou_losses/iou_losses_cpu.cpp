// The IoU losses on the CPU. Lower bounds for float32: 36 bytes per pair for the loss, 48 bytes for a sum and the
// gradient by one set of boxes, and about 70 operations with 2 divisions (7 for complete IoU). Pairs are taken in
// blocks with one array per coordinate, so that the compiler vectorises the formula.
#include "common/box_block.h"
#include "common/isa.h"
#include "iou_losses/iou_losses.h"

namespace retina_ops {
namespace {

template <class T>
struct Block {
  BoxBlock<T> boxes1, boxes2, grad1, grad2;
  alignas(64) T loss[kBlockBoxes];
  alignas(64) T upstream[kBlockBoxes];
};

template <class T, IouLoss K, bool kWithGrad, class Math>
RETINA_OPS_HOST_DEVICE void compute_block(Block<T>& block, T eps) {
  for (int i = 0; i < kBlockBoxes; ++i) {
    const IouLossTerms<T> terms = iou_loss<K, T, Math>(block.boxes1.box(i), block.boxes2.box(i), eps);
    block.loss[i] = terms.loss;
    if constexpr (kWithGrad) {
      block.grad1.set(i, scaled(terms.for_predicted, block.upstream[i]));
      block.grad2.set(i, scaled(terms.for_target, block.upstream[i]));
    }
  }
}

template <class T, IouLoss K, bool kWithGrad, class Math>
RETINA_OPS_HOST_DEVICE double loss_range(const IouLossProblem& problem, int64_t begin, int64_t end) {
  Block<T> block;
  const T factor = problem.upstream_scalar == nullptr ? T(1) : static_cast<T>(*problem.upstream_scalar);
  for (int i = 0; i < kBlockBoxes; ++i) block.upstream[i] = factor;
  alignas(64) double lane_sums[16] = {};  // lane k sums the losses of pairs k, k + 16, k + 32, ...
  for (int64_t first = begin; first < end; first += kBlockBoxes) {
    const int pairs = block_count<kBlockBoxes>(first, end);
    block.boxes1.load(problem.boxes1, problem.dtype1, first, pairs);
    block.boxes2.load(problem.boxes2, problem.dtype2, first, pairs);
    if (kWithGrad && problem.upstream != nullptr) {
      load_block<kBlockBoxes>(problem.upstream, kDtypeOf<T>, first, block.upstream, pairs);
    }
    compute_block<T, K, kWithGrad, Math>(block, static_cast<T>(problem.eps));
    if (problem.loss != nullptr) store_block<kBlockBoxes>(problem.loss, kDtypeOf<T>, first, block.loss, pairs);
    if (kWithGrad && problem.grad1 != nullptr) block.grad1.store(problem.grad1, problem.dtype1, first, pairs);
    if (kWithGrad && problem.grad2 != nullptr) block.grad2.store(problem.grad2, problem.dtype2, first, pairs);
    for (int i = pairs; i < kBlockBoxes; ++i) block.loss[i] = T(0);
    for (int k = 0; k < 16; ++k) {
      lane_sums[k] += (static_cast<double>(block.loss[k]) + static_cast<double>(block.loss[k + 16])) +
                      (static_cast<double>(block.loss[k + 32]) + static_cast<double>(block.loss[k + 48]));
    }
  }
  double sum = 0.0;
  for (int k = 0; k < 16; ++k) sum += lane_sums[k];
  return sum;
}

template <class T, IouLoss K, bool kWithGrad>
double range_for_isa(const IouLossProblem& problem, int64_t begin, int64_t end) {
  return isa_variant<loss_range<T, K, kWithGrad, PlainMath>, loss_range<T, K, kWithGrad, FusedMath>>()(problem, begin,
                                                                                                       end);
}

template <class T, IouLoss K>
double range_of_kind(const IouLossProblem& problem, int64_t begin, int64_t end) {
  const bool with_grad = problem.grad1 != nullptr || problem.grad2 != nullptr;
  return with_grad ? range_for_isa<T, K, true>(problem, begin, end) : range_for_isa<T, K, false>(problem, begin, end);
}

template <class T>
double typed_range(const IouLossProblem& problem, int64_t begin, int64_t end) {
  switch (problem.kind) {
    case IouLoss::kGeneralized: return range_of_kind<T, IouLoss::kGeneralized>(problem, begin, end);
    case IouLoss::kDistance: return range_of_kind<T, IouLoss::kDistance>(problem, begin, end);
    default: return range_of_kind<T, IouLoss::kComplete>(problem, begin, end);
  }
}

}  // namespace

double iou_loss_range(const IouLossProblem& problem, int64_t begin, int64_t end) {
  return problem.dtype1 == Dtype::kFloat64 ? typed_range<double>(problem, begin, end)
                                           : typed_range<float>(problem, begin, end);
}

}  // namespace retina_ops
