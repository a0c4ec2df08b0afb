// The focal loss of a pack of logits with hard targets: all are computed as negatives, which nearly all are, and the
// few that are positive, ignored or of a bad label are corrected afterwards. No torch.
#pragma once

#include "common/divider.cuh"
#include "common/vector.cuh"
#include "focal_loss/focal_loss.h"

namespace retina_ops {

// Logits per 16-byte access.
template <class T>
constexpr int kFocalPack = 16 / sizeof(T);
// Logits per pack of rows: enough that the work per pack is small beside the work per logit.
template <class T>
constexpr int kRowPack = sizeof(T) == 8 ? 2 : 8;

// The accuracy of the arithmetic: what the dtype can represent.
template <class T>
using PackMath = std::conditional_t<sizeof(T) == 2, CoarseMath, FusedMath>;

// Row and column of a thread's current pack, updated by additions: a division per pack costs as much as two logits.
struct RowCursor {
  int64_t row;
  int column;
  int64_t row_step;
  int column_step;

  __device__ __forceinline__ RowCursor(const Divider& classes, int64_t at, int64_t stride) {
    row = classes(at);
    column = static_cast<int>(at - row * classes.divisor);
    row_step = classes(stride);
    column_step = static_cast<int>(stride - row_step * classes.divisor);
  }
  __device__ __forceinline__ void advance(int classes) {
    row += row_step;
    column += column_step;
    if (column >= classes) {
      column -= classes;
      ++row;
    }
  }
};

// The elements of a pack that are not negatives, one bit per element.
struct PackTargets {
  unsigned positive;
  unsigned ignored;
  unsigned bad;

  // Removes the elements from `end` on.
  __device__ __forceinline__ void keep_before(int end) {
    const unsigned mask = (1u << end) - 1u;
    positive &= mask;
    ignored &= mask;
    bad &= mask;
  }
  __device__ __forceinline__ void add(const PackTargets& other) {
    positive |= other.positive;
    ignored |= other.ignored;
    bad |= other.bad;
  }
  __device__ __forceinline__ void ignore_from(int begin) {
    keep_before(begin);
    ignored |= ~0u << begin;
  }
};

// The targets of a row with this label. Column `column` of the row is element `first` of the pack.
template <int kPack>
__device__ __forceinline__ PackTargets row_targets(int64_t label, int classes, int64_t ignore_index, int column,
                                                   int first) {
  const unsigned all = ~0u << first;
  if (label == ignore_index) return {0u, all, 0u};
  if (static_cast<uint64_t>(label) > static_cast<uint64_t>(classes)) return {0u, 0u, all};
  // The element of the label's class. The background's lies past the end of the row.
  const int element = static_cast<int>(label) - column + first;
  return {element >= first && element < kPack && static_cast<int>(label) < classes ? 1u << element : 0u, 0u, 0u};
}

// Factors of the losses and of their derivatives.
template <class A>
struct PackWeights {
  A loss;
  A derivative;
};

// The elements that are not negatives, and the weights of the positives.
template <class A>
struct PackCorrections {
  PackTargets targets;
  PackWeights<A> positive;
};

// Returns the sum of the weighted losses of the pack, and writes their weighted derivatives by the logits.
// is_plain: all elements are negatives. Otherwise corrections() returns those that are not.
template <Gamma G, class Math, class A, int kPack, class Corrections>
__device__ __forceinline__ A pack_loss(const A (&x)[kPack], bool is_plain, const PackWeights<A>& negative, double gamma,
                                       A (&derivative)[kPack], Corrections corrections) {
  A loss[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const FocalTerms<A> terms = focal_hard<A, G, 1, Math>(-x[i], focal_exponential<A, Math>(x[i]), gamma);
    loss[i] = terms.loss;
    derivative[i] = -terms.derivative * negative.derivative;
  }
  A positive_sum = A(0);
  if (!is_plain) {
    const PackCorrections<A> found = corrections();
    const PackTargets& targets = found.targets;
    const PackWeights<A>& positive = found.positive;
    for (unsigned rest = targets.positive; rest != 0; rest &= rest - 1) {
      const unsigned lowest = rest & (0u - rest);
      A logit = A(0);
#pragma unroll
      for (int i = 0; i < kPack; ++i) logit = lowest == 1u << i ? x[i] : logit;
      const FocalTerms<A> terms = focal_hard<A, G, 1, Math>(logit, focal_exponential<A, Math>(logit), gamma);
      positive_sum += terms.loss * positive.loss;
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const bool is_positive = lowest == 1u << i;
        loss[i] = is_positive ? A(0) : loss[i];
        derivative[i] = is_positive ? terms.derivative * positive.derivative : derivative[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const bool is_ignored = (targets.ignored >> i & 1u) != 0, is_bad = (targets.bad >> i & 1u) != 0;
      loss[i] = is_ignored ? A(0) : is_bad ? not_a_number<A>() : loss[i];
      derivative[i] = is_ignored ? A(0) : is_bad ? not_a_number<A>() : derivative[i];
    }
  }
  A sum = loss[0];
#pragma unroll
  for (int i = 1; i < kPack; ++i) sum += loss[i];
  return sum * negative.loss + positive_sum;
}

}  // namespace retina_ops
