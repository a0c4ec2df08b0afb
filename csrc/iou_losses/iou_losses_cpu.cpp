// Floors for float32: 36 bytes a pair for the loss, 48 for a sum and the gradient by one set of boxes; about 70
// operations and 2 divisions (7 for complete). Pairs are taken in blocks, a block's coordinates apart, so that the
// formula becomes vectors.
#include "iou_losses/iou_losses_cpu.h"

#include <algorithm>

#include "common/box_planes.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kPairs = kPlaneBoxes;  // a block

template <class T>
struct Block {
  Planes<T> boxes1, boxes2, grad1, grad2;
  alignas(64) T loss[kPairs];
  alignas(64) T upstream[kPairs];
};

template <class T>
RETINA_OPS_HOST_DEVICE Box<T> scaled(const Box<T>& box, T factor) {
  return {box.x1 * factor, box.y1 * factor, box.x2 * factor, box.y2 * factor};
}

template <class T, IouLoss K, bool kWithGrad, class Math>
RETINA_OPS_HOST_DEVICE void compute(Block<T>& block, T eps) {
  for (int i = 0; i < kPairs; ++i) {
    const IouLossTerms<T> terms = iou_loss<K, T, Math>(block.boxes1.box(i), block.boxes2.box(i), eps);
    block.loss[i] = terms.loss;
    if constexpr (kWithGrad) {
      block.grad1.put(i, scaled(terms.for_predicted, block.upstream[i]));
      block.grad2.put(i, scaled(terms.for_target, block.upstream[i]));
    }
  }
}

template <class T, IouLoss K, bool kWithGrad, class Math>
RETINA_OPS_HOST_DEVICE double run_of(const IouLossProblem& problem, int64_t begin, int64_t end) {
  constexpr Dtype kNative = sizeof(T) == sizeof(float) ? Dtype::kFloat32 : Dtype::kFloat64;
  Block<T> block;
  const T factor = problem.upstream_scalar == nullptr ? T(1) : static_cast<T>(*problem.upstream_scalar);
  for (int i = 0; i < kPairs; ++i) block.upstream[i] = factor;
  alignas(64) double lanes[16] = {};  // 16 sums in double, each of every 16th pair
  for (int64_t first = begin; first < end; first += kPairs) {
    const int pairs = static_cast<int>(std::min<int64_t>(end - first, kPairs));
    block.boxes1.load(problem.boxes1, problem.dtype1, first, pairs);
    block.boxes2.load(problem.boxes2, problem.dtype2, first, pairs);
    if (kWithGrad && problem.upstream != nullptr) {
      load_block<kPairs>(problem.upstream, kNative, first, block.upstream, pairs);
    }
    compute<T, K, kWithGrad, Math>(block, static_cast<T>(problem.eps));
    if (problem.loss != nullptr) store_block<kPairs>(problem.loss, kNative, first, block.loss, pairs);
    if (kWithGrad && problem.grad1 != nullptr) block.grad1.store(problem.grad1, problem.dtype1, first, pairs);
    if (kWithGrad && problem.grad2 != nullptr) block.grad2.store(problem.grad2, problem.dtype2, first, pairs);
    for (int i = pairs; i < kPairs; ++i) block.loss[i] = T(0);
    for (int k = 0; k < 16; ++k) {
      lanes[k] += (static_cast<double>(block.loss[k]) + static_cast<double>(block.loss[k + 16])) +
                  (static_cast<double>(block.loss[k + 32]) + static_cast<double>(block.loss[k + 48]));
    }
  }
  double sum = 0.0;
  for (int k = 0; k < 16; ++k) sum += lanes[k];
  return sum;
}

template <class T, IouLoss K, bool kWithGrad>
double run_baseline(const IouLossProblem& problem, int64_t begin, int64_t end) {
  return run_of<T, K, kWithGrad, PlainMath>(problem, begin, end);
}
#if RETINA_OPS_HAS_X86_TARGETS
template <class T, IouLoss K, bool kWithGrad>
RETINA_OPS_TARGET_AVX2 double run_avx2(const IouLossProblem& problem, int64_t begin, int64_t end) {
  return run_of<T, K, kWithGrad, FusedMath>(problem, begin, end);
}
template <class T, IouLoss K, bool kWithGrad>
RETINA_OPS_TARGET_AVX512 double run_avx512(const IouLossProblem& problem, int64_t begin, int64_t end) {
  return run_of<T, K, kWithGrad, FusedMath>(problem, begin, end);
}
#endif

template <class T, IouLoss K, bool kWithGrad>
double run_for_isa(const IouLossProblem& problem, int64_t begin, int64_t end) {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return run_avx512<T, K, kWithGrad>(problem, begin, end);
  if (cpu_isa() == Isa::kAvx2) return run_avx2<T, K, kWithGrad>(problem, begin, end);
#endif
  return run_baseline<T, K, kWithGrad>(problem, begin, end);
}

template <class T, IouLoss K>
double run_kind(const IouLossProblem& problem, int64_t begin, int64_t end) {
  const bool with_grad = problem.grad1 != nullptr || problem.grad2 != nullptr;
  return with_grad ? run_for_isa<T, K, true>(problem, begin, end) : run_for_isa<T, K, false>(problem, begin, end);
}

template <class T>
double run_typed(const IouLossProblem& problem, int64_t begin, int64_t end) {
  switch (problem.kind) {
    case IouLoss::kGeneralized: return run_kind<T, IouLoss::kGeneralized>(problem, begin, end);
    case IouLoss::kDistance: return run_kind<T, IouLoss::kDistance>(problem, begin, end);
    default: return run_kind<T, IouLoss::kComplete>(problem, begin, end);
  }
}

}  // namespace

double iou_loss_range(const IouLossProblem& problem, int64_t begin, int64_t end) {
  return problem.dtype1 == Dtype::kFloat64 ? run_typed<double>(problem, begin, end)
                                           : run_typed<float>(problem, begin, end);
}

}  // namespace retina_ops
