// The focal loss of a pack of logits with hard targets: all are taken as negatives, which nearly all are, and
// the few that are positive, ignored or of a bad label are put right after. No torch.
#pragma once

#include "common/divider.cuh"
#include "common/vector.cuh"
#include "focal_loss/focal_loss.h"

namespace retina_ops {

// Logits in one 16-byte access.
template <class T>
constexpr int kFocalPack = 16 / sizeof(T);
// Logits that a thread takes of rows at a time: as many as make what is done once for all of them small.
template <class T>
constexpr int kRowPack = sizeof(T) == 8 ? 2 : 8;

// How exactly a pack is computed: as its dtype can hold.
template <class T>
using PackMath = std::conditional_t<sizeof(T) == 2, CoarseMath, FusedMath>;

// Where a thread's packs lie in rows, kept by addition: a division a pack would cost as much as two of its logits.
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

// The elements of a pack that are no plain negatives, a bit each.
struct PackTargets {
  unsigned positive;
  unsigned ignored;
  unsigned bad;

  // Nothing of the elements from `end` on.
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

// Of a row with this label, whose class `column` is the pack's element `first`.
template <int kPack>
__device__ __forceinline__ PackTargets row_targets(int64_t label, int classes, int64_t ignore_index, int column,
                                                   int first) {
  const unsigned all = ~0u << first;
  if (label == ignore_index) return {0u, all, 0u};
  if (static_cast<uint64_t>(label) > static_cast<uint64_t>(classes)) return {0u, 0u, all};
  const int element =
      static_cast<int>(label) - column + first;  // of the label's class; the background's is past the row
  return {element >= first && element < kPack && static_cast<int>(label) < classes ? 1u << element : 0u, 0u, 0u};
}

// What losses and derivatives are multiplied by.
template <class A>
struct PackWeights {
  A loss;
  A derivative;
};

// The elements that are no plain negatives, and the weights of the positives.
template <class A>
struct PackOthers {
  PackTargets targets;
  PackWeights<A> positive;
};

// Sum of the pack's weighted losses; its weighted derivatives by the logits. is_plain: all are negatives; else others()
// says what they are.
template <Gamma G, class Math, class A, int kPack, class Others>
__device__ __forceinline__ A pack_loss(const A (&x)[kPack], bool is_plain, const PackWeights<A>& negative, double gamma,
                                       A (&derivative)[kPack], Others others) {
  A loss[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const FocalTerms<A> terms = focal_hard<A, G, 1, Math>(-x[i], focal_exponential<A, Math>(x[i]), gamma);
    loss[i] = terms.loss;
    derivative[i] = -terms.derivative * negative.derivative;
  }
  A of_positives = A(0);
  if (!is_plain) {
    const PackOthers<A> its_others = others();
    const PackTargets& targets = its_others.targets;
    const PackWeights<A>& positive = its_others.positive;
    for (unsigned rest = targets.positive; rest != 0; rest &= rest - 1) {
      A its = A(0);
#pragma unroll
      for (int i = 0; i < kPack; ++i) its = (rest & (0u - rest)) == 1u << i ? x[i] : its;
      const FocalTerms<A> terms = focal_hard<A, G, 1, Math>(its, focal_exponential<A, Math>(its), gamma);
      of_positives += terms.loss * positive.loss;
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const bool here = (rest & (0u - rest)) == 1u << i;
        loss[i] = here ? A(0) : loss[i];
        derivative[i] = here ? terms.derivative * positive.derivative : derivative[i];
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
  return sum * negative.loss + of_positives;
}

}  // namespace retina_ops
