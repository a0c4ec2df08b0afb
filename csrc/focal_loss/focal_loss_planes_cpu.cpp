// The focal loss of planar logits, as a convolution writes them, on the CPU. Nearly every block of 64 consecutive
// logits of a plane has only negatives and is computed as in focal_loss_cpu.cpp; the few positives and ignored anchors
// are corrected afterwards. The lower bounds are the same. A caller passes strips of about a thousand anchors or more.
// Shorter strips pay a TLB miss per class for little work.
#include <algorithm>
#include <utility>
#include <vector>

#include "focal_loss/focal_loss_block.h"
#include "focal_loss/focal_loss_dispatch.h"

namespace retina_ops {
namespace {

// The anchors of a strip that are not background.
struct Exceptions {
  std::vector<std::pair<int64_t, int64_t>> positives;  // (class, anchor), ascending
  std::vector<uint8_t> block_has_ignored;              // one per block of kFocalWidth anchors
};

Exceptions exceptions_of(const FocalProblem& problem, const FocalPlanes& planes) {
  Exceptions exceptions;
  exceptions.block_has_ignored.resize(static_cast<size_t>((planes.count + kFocalWidth - 1) / kFocalWidth), 0);
  for (int64_t i = 0; i < planes.count; ++i) {
    const int64_t label = planes.labels[i];
    if (label == problem.ignore_index) {
      exceptions.block_has_ignored[static_cast<size_t>(i / kFocalWidth)] = 1;
    } else if (label < problem.classes) {
      exceptions.positives.emplace_back(label, i);
    }
  }
  std::sort(exceptions.positives.begin(), exceptions.positives.end());
  return exceptions;
}

// One block of a plane: anchors [begin, begin + count). `positive` is the first positive that is not computed yet.
template <class T, Gamma G, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE void plane_block(const FocalProblem& problem, const FocalPlanes& planes, int64_t plane,
                                        int64_t begin, int count, bool has_ignored,
                                        const std::pair<int64_t, int64_t>*& positive,
                                        const std::pair<int64_t, int64_t>* end_positive, FocalBlock<T>& block,
                                        LossSum<T, Math>& sum, double& positive_sum) {
  const T alpha = static_cast<T>(problem.alpha);
  const T negative_weight = alpha < T(0) ? T(1) : T(1) - alpha;
  const T positive_weight = alpha < T(0) ? T(1) : alpha;
  const T factor = quiet_nan(static_cast<T>(problem.upstream_scalar));
  const int64_t first = planes.first + plane * planes.stride + begin;
  const bool is_direct = count == kFocalWidth && problem.dtype == kDtypeOf<T>;
  const T* logits = is_direct ? static_cast<const T*>(problem.logits) + first : block.logits;
  T* derivative = is_direct && kOrder != 0 ? static_cast<T*>(problem.grad_out) + first : block.derivative;
  if (!is_direct) load_elements(problem, problem.logits, problem.dtype, first, block.logits, count);
  compute_negatives<T, G, kOrder, Math>(logits, block.exponential, block.loss, derivative, problem.gamma,
                                        negative_weight * factor);
  if (has_ignored) {
    for (int i = 0; i < count; ++i) {
      if (planes.labels[begin + i] != problem.ignore_index) continue;
      const int position = block_position(problem, i);
      block.loss[position] = T(0);
      if constexpr (kOrder != 0) derivative[position] = T(0);
    }
  }
  for (; positive != end_positive && positive->first == plane && positive->second < begin + count; ++positive) {
    const int position = block_position(problem, static_cast<int>(positive->second - begin));
    const FocalTerms<T> terms = positive_terms(logits[position], problem.gamma, kOrder);
    block.loss[position] = T(0);
    positive_sum += static_cast<double>(positive_weight * terms.loss);
    if constexpr (kOrder != 0) derivative[position] = positive_weight * factor * terms.derivative;
  }
  finish_block<T, kOrder>(problem, block, first, count, derivative == block.derivative, negative_weight, sum);
}

struct PlaneRun {
  template <class T, Gamma G, int kOrder, class Math>
  static RETINA_OPS_HOST_DEVICE double run(const FocalProblem& problem, const FocalPlanes& planes,
                                           const Exceptions& exceptions) {
    FocalBlock<T> block;
    LossSum<T, Math> sum;
    double positive_sum = 0.0;
    const auto* positive = exceptions.positives.data();
    const auto* end_positive = positive + exceptions.positives.size();
    for (int64_t plane = 0; plane < problem.classes; ++plane) {
      for (int64_t begin = 0; begin < planes.count; begin += kFocalWidth) {
        const int count = block_count<kFocalWidth>(begin, planes.count);
        const bool has_ignored = exceptions.block_has_ignored[static_cast<size_t>(begin / kFocalWidth)] != 0;
        plane_block<T, G, kOrder, Math>(problem, planes, plane, begin, count, has_ignored, positive, end_positive,
                                        block, sum, positive_sum);
      }
    }
    const T alpha = static_cast<T>(problem.alpha);
    return sum.total() * static_cast<double>(alpha < T(0) ? T(1) : T(1) - alpha) + positive_sum;
  }
};

template <class T>
double typed_planes(const FocalProblem& problem, const FocalPlanes& planes) {
  const auto run = FocalDispatch<PlaneRun, T>::template choose<1>(problem);
  return run(problem, planes, exceptions_of(problem, planes));
}

}  // namespace

double focal_loss_planes(const FocalProblem& problem, const FocalPlanes& planes) {
  return problem.dtype == Dtype::kFloat64 ? typed_planes<double>(problem, planes)
                                          : typed_planes<float>(problem, planes);
}

}  // namespace retina_ops
