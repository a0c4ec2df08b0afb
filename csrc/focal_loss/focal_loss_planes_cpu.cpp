// The focal loss of planar logits, as a convolution writes them. Nearly every block of 64 neighbours of a plane is of
// negatives alone, the same work as for rows; the few positives and ignored anchors are put right after it. Floors as
// for rows. A caller gives strips of about a thousand anchors: much less, and every class costs the look-up of a page
// for little.
#include <algorithm>
#include <utility>
#include <vector>

#include "focal_loss/focal_loss_block.h"
#include "focal_loss/focal_loss_dispatch.h"

namespace retina_ops {
namespace {

// Which anchors are more than negatives.
struct Special {
  std::vector<std::pair<int64_t, int64_t>> positives;  // (class, anchor), ascending
  std::vector<uint8_t> block_has_ignored;              // a block of kFocalWidth anchors
};

Special special_of(const FocalProblem& problem, const FocalPlanes& planes) {
  Special special;
  special.block_has_ignored.resize(static_cast<size_t>((planes.count + kFocalWidth - 1) / kFocalWidth), 0);
  for (int64_t i = 0; i < planes.count; ++i) {
    const int64_t label = planes.labels[i];
    if (label == problem.ignore_index) {
      special.block_has_ignored[static_cast<size_t>(i / kFocalWidth)] = 1;
    } else if (label < problem.classes) {
      special.positives.emplace_back(label, i);
    }
  }
  std::sort(special.positives.begin(), special.positives.end());
  return special;
}

// One block of a plane: anchors [begin, begin + count).
template <class T, Gamma G, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE void plane_block(const FocalProblem& problem, const FocalPlanes& planes, int64_t plane,
                                        int64_t begin, int count, bool has_ignored,
                                        const std::pair<int64_t, int64_t>*& positive,
                                        const std::pair<int64_t, int64_t>* last_positive, FocalBlock<T>& block,
                                        LossSum<T, Math>& sum, double& positive_sum) {
  constexpr Dtype native = sizeof(T) == sizeof(float) ? Dtype::kFloat32 : Dtype::kFloat64;
  const T alpha = static_cast<T>(problem.alpha);
  const T negative_weight = alpha < T(0) ? T(1) : T(1) - alpha;
  const T positive_weight = alpha < T(0) ? T(1) : alpha;
  const T factor = quiet_nan(static_cast<T>(problem.upstream_scalar));
  const int64_t first = planes.first + plane * planes.stride + begin;
  const bool is_direct = count == kFocalWidth && problem.dtype == native;
  const T* logits = is_direct ? static_cast<const T*>(problem.logits) + first : block.logits;
  T* derivative = is_direct && kOrder != 0 ? static_cast<T*>(problem.derivative) + first : block.derivative;
  if (!is_direct) load_elements(problem, problem.logits, problem.dtype, first, block.logits, count);
  negatives<T, G, kOrder, Math>(logits, block.exponential, block.loss, derivative, problem.gamma,
                                negative_weight * factor);
  if (has_ignored) {
    for (int i = 0; i < count; ++i) {
      if (planes.labels[begin + i] != problem.ignore_index) continue;
      const int at = block_position(problem, i);
      block.loss[at] = T(0);
      if constexpr (kOrder != 0) derivative[at] = T(0);
    }
  }
  for (; positive != last_positive && positive->first == plane && positive->second < begin + count; ++positive) {
    const int at = block_position(problem, static_cast<int>(positive->second - begin));
    const FocalTerms<T> terms = positive_terms(logits[at], problem.gamma, kOrder);
    block.loss[at] = T(0);
    positive_sum += static_cast<double>(positive_weight * terms.loss);
    if constexpr (kOrder != 0) derivative[at] = positive_weight * factor * terms.derivative;
  }
  finish_block<T, kOrder>(problem, block, first, count, derivative == block.derivative, negative_weight, sum);
}

struct PlaneRun {
  template <class T, Gamma G, int kOrder, class Math>
  static RETINA_OPS_HOST_DEVICE double run(const FocalProblem& problem, const FocalPlanes& planes,
                                           const Special& special) {
    FocalBlock<T> block;
    LossSum<T, Math> sum;
    double positive_sum = 0.0;
    const auto* positive = special.positives.data();
    const auto* last_positive = positive + special.positives.size();
    for (int64_t plane = 0; plane < problem.classes; ++plane) {
      for (int64_t begin = 0; begin < planes.count; begin += kFocalWidth) {
        const int count = planes.count - begin < kFocalWidth ? static_cast<int>(planes.count - begin) : kFocalWidth;
        const bool has_ignored = special.block_has_ignored[static_cast<size_t>(begin / kFocalWidth)] != 0;
        plane_block<T, G, kOrder, Math>(problem, planes, plane, begin, count, has_ignored, positive, last_positive,
                                        block, sum, positive_sum);
      }
    }
    const T alpha = static_cast<T>(problem.alpha);
    return sum.total() * static_cast<double>(alpha < T(0) ? T(1) : T(1) - alpha) + positive_sum;
  }
};

template <class T>
double typed_planes(const FocalProblem& problem, const FocalPlanes& planes) {
  using Dispatch = FocalDispatch<PlaneRun, T, const FocalProblem&, const FocalPlanes&, const Special&>;
  return Dispatch::template choose<1>(problem)(problem, planes, special_of(problem, planes));
}

}  // namespace

double focal_loss_planes(const FocalProblem& problem, const FocalPlanes& planes) {
  return problem.dtype == Dtype::kFloat64 ? typed_planes<double>(problem, planes)
                                          : typed_planes<float>(problem, planes);
}

}  // namespace retina_ops
