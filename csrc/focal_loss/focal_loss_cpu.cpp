// The focal loss on the CPU. Lower bounds for float32, class-index targets, sum and gradient: 8 bytes per element are
// read and written; 16 elements take about 45 vector operations (AVX-512). Latency-bound before throughput-bound:
// computing a block's exponentials first keeps several vectors in flight. The logits are taken as a flat array that is
// cut only at the positives and at ignored rows. So nearly all elements are in long runs of negatives with identical
// branch-free work, whatever the number of classes.
#include "focal_loss/focal_loss_cpu.h"

#include <algorithm>
#include <initializer_list>

#include "focal_loss/focal_loss_block.h"
#include "focal_loss/focal_loss_dispatch.h"

namespace retina_ops {
namespace {

// The weights of a run: of negatives (class-index targets), or the alphas (soft targets).
template <class T>
struct RunWeights {
  T scalar;
  const T* per_class;  // where alpha is per class: the alpha of the run's first element; else null
};

template <class T>
T upstream_factor(const FocalProblem& problem) {
  return problem.upstream != nullptr ? T(1) : quiet_nan(static_cast<T>(problem.upstream_scalar));
}

// A run of negatives of class-index targets; returns the sum of their losses.
struct NegativeRun {
  template <class T, Gamma G, int kOrder, class Math>
  static RETINA_OPS_HOST_DEVICE double run(const FocalProblem& problem, RunWeights<T> weights, int64_t begin,
                                           int64_t end) {
    FocalBlock<T> block;
    LossSum<T, Math> sum;
    const double gamma = problem.gamma;
    const T factor = upstream_factor<T>(problem);
    const T scalar = weights.per_class == nullptr ? weights.scalar : T(1);
    const bool writes_directly = kOrder != 0 && problem.upstream == nullptr && weights.per_class == nullptr;
    for (int64_t first = begin; first < end; first += kFocalWidth) {
      const int count = block_count<kFocalWidth>(first, end);
      // A full block of dtype T is read and written in place, without a copy in `block`.
      const bool is_direct = count == kFocalWidth && problem.dtype == kDtypeOf<T>;
      const T* logits = is_direct ? static_cast<const T*>(problem.logits) + first : block.logits;
      T* derivative = is_direct && writes_directly ? static_cast<T*>(problem.grad_out) + first : block.derivative;
      if (!is_direct) load_elements(problem, problem.logits, problem.dtype, first, block.logits, count);
      compute_negatives<T, G, kOrder, Math>(logits, block.exponential, block.loss, derivative, gamma, scalar * factor);
      if (weights.per_class != nullptr) {
        for (int i = 0; i < count; ++i) {
          const int position = block_position(problem, i);
          const T weight = quiet_nan(T(1) - weights.per_class[first - begin + i]);
          block.loss[position] *= weight;
          if constexpr (kOrder != 0) block.derivative[position] *= weight;
        }
      }
      finish_block<T, kOrder>(problem, block, first, count, derivative == block.derivative, scalar, sum);
    }
    return static_cast<double>(scalar) * sum.total();
  }
};

// A run of elements with soft targets; returns the sum of their losses.
struct SoftRun {
  template <class T, Gamma G, int kOrder, class Math>
  static RETINA_OPS_HOST_DEVICE double run(const FocalProblem& problem, RunWeights<T> alphas, int64_t begin,
                                           int64_t end) {
    FocalBlock<T> block;
    LossSum<T, Math> sum;
    const double gamma = problem.gamma;
    const T factor = upstream_factor<T>(problem);
    const T negative_weight = alphas.scalar < T(0) ? T(1) : T(1) - alphas.scalar;
    for (int i = 0; i < kFocalWidth; ++i) block.alpha[i] = alphas.scalar;
    for (int64_t first = begin; first < end; first += kFocalWidth) {
      const int count = block_count<kFocalWidth>(first, end);
      load_elements(problem, problem.logits, problem.dtype, first, block.logits, count);
      load_elements(problem, problem.soft_targets, problem.soft_dtype, first, block.targets, count);
      if (alphas.per_class == nullptr && !any_target(block)) {  // nearly every block of one-hot targets
        compute_negatives<T, G, kOrder, Math>(block.logits, block.exponential, block.loss, block.derivative, gamma,
                                              negative_weight * factor);
        for (int i = 0; i < kFocalWidth; ++i) block.loss[i] *= negative_weight;
      } else {
        compute_soft<T, G, kOrder, Math>(block, gamma);
        if (alphas.per_class != nullptr) {
          for (int i = 0; i < count; ++i) {
            block.alpha[block_position(problem, i)] = quiet_nan(alphas.per_class[(first + i) % problem.classes]);
          }
        }
        for (int i = 0; i < kFocalWidth; ++i) {
          const T alpha = block.alpha[i];
          const T t = block.targets[i];
          const T weight = alpha < T(0) ? T(1) : alpha * t + (T(1) - alpha) * (T(1) - t);
          block.loss[i] *= weight;
          if constexpr (kOrder != 0) block.derivative[i] *= weight * factor;
        }
      }
      finish_block<T, kOrder>(problem, block, first, count, true, T(1), sum);
    }
    return sum.total();
  }
};

// A row's positive: the element of the class that is its label. Returns its loss.
template <class T>
double compute_positive(const FocalProblem& problem, T alpha, int64_t index) {
  alignas(64) T logit[1];
  load_block<1>(problem.logits, problem.dtype, index, logit, 1);
  const FocalTerms<T> terms = positive_terms(logit[0], problem.gamma, problem.order);
  const T weight = alpha < T(0) ? T(1) : alpha;
  const T loss = terms.loss * weight;
  if (problem.loss_out != nullptr) {
    store_block<1>(problem.loss_out, problem.dtype, index, &loss, 1);
  }
  if (problem.grad_out != nullptr) {
    T factor[1] = {static_cast<T>(problem.upstream_scalar)};
    if (problem.upstream != nullptr) {
      load_block<1>(problem.upstream, problem.dtype, index, factor, 1);
    }
    const T derivative = terms.derivative * weight * factor[0];
    store_block<1>(problem.grad_out, problem.dtype, index, &derivative, 1);
  }
  return static_cast<double>(loss);
}

// Ignored rows: the outputs are zeros, whatever the logits are, NaN included.
void write_zeros(const FocalProblem& problem, int64_t begin, int64_t end) {
  const int64_t size = dtype_size(problem.dtype);
  for (void* output : {problem.loss_out, problem.grad_out}) {
    if (output != nullptr) {
      memset(static_cast<char*>(output) + begin * size, 0, static_cast<size_t>((end - begin) * size));
    }
  }
}

template <class T>
double labelled_range(const FocalProblem& problem, int64_t begin, int64_t end) {
  const auto negative_run = FocalDispatch<NegativeRun, T>::template choose<2>(problem);
  const T* per_class = static_cast<const T*>(problem.alpha_per_class);
  const T alpha = static_cast<T>(problem.alpha);
  const T negative_weight = alpha < T(0) ? T(1) : T(1) - alpha;
  const int64_t classes = problem.classes;
  const int64_t end_row = (end - 1) / classes + 1;
  const bool skips_background = per_class == nullptr && problem.ignore_index != classes;
  double sum = 0.0;
  int64_t pending = begin;  // first element of the run of negatives that is not computed yet; it may span many rows
  for (int64_t row = begin / classes; row < end_row; ++row) {
    const int64_t label = problem.labels[row];
    if (label == classes && skips_background && row + 1 < end_row) continue;  // nearly every row
    const int64_t row_begin = row * classes;
    const int64_t row_end = std::min(row_begin + classes, end);
    const int64_t first_in_range = std::max(row_begin, begin);  // a row may begin in the chunk before
    const auto compute_negatives_until = [&](int64_t stop) {
      const RunWeights<T> weights{negative_weight, per_class == nullptr ? nullptr : per_class + (pending - row_begin)};
      sum += negative_run(problem, weights, pending, stop);
    };
    if (label == problem.ignore_index) {
      compute_negatives_until(first_in_range);
      write_zeros(problem, first_in_range, row_end);
      pending = row_end;
    } else if (label < classes && row_begin + label >= first_in_range && row_begin + label < row_end) {
      const int64_t positive = row_begin + label;
      compute_negatives_until(positive);
      sum += compute_positive(problem, per_class == nullptr ? alpha : per_class[label], positive);
      pending = positive + 1;
    }
    if (per_class != nullptr || row_end == end) {
      compute_negatives_until(row_end);
      pending = row_end;
    }
  }
  return sum;
}

template <class T>
double typed_range(const FocalProblem& problem, int64_t begin, int64_t end) {
  if (problem.labels != nullptr) {
    return labelled_range<T>(problem, begin, end);
  }
  const RunWeights<T> weights{static_cast<T>(problem.alpha), static_cast<const T*>(problem.alpha_per_class)};
  return FocalDispatch<SoftRun, T>::template choose<2>(problem)(problem, weights, begin, end);
}

}  // namespace

double focal_loss_range(const FocalProblem& problem, int64_t begin, int64_t end) {
  if (begin >= end) return 0.0;
  return problem.dtype == Dtype::kFloat64 ? typed_range<double>(problem, begin, end)
                                          : typed_range<float>(problem, begin, end);
}

int64_t first_bad_label(const FocalProblem& problem, int64_t begin, int64_t end) {
  if (problem.labels == nullptr) return -1;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t label = problem.labels[row];
    const bool is_class = static_cast<uint64_t>(label) <= static_cast<uint64_t>(problem.classes);
    if (!is_class && label != problem.ignore_index) return row;
  }
  return -1;
}

template <class T>
static void scale_typed(void* data, Dtype dtype, T factor, int64_t begin, int64_t end) {
  T values[kFocalWidth];
  for (int64_t first = begin; first < end; first += kFocalWidth) {
    const int count = block_count<kFocalWidth>(first, end);
    load_block<kFocalWidth>(data, dtype, first, values, count);
    for (int i = 0; i < kFocalWidth; ++i) values[i] *= factor;
    store_block<kFocalWidth>(data, dtype, first, values, count);
  }
}

void scale_range(void* data, Dtype dtype, double factor, int64_t begin, int64_t end) {
  if (dtype == Dtype::kFloat64) {
    scale_typed<double>(data, dtype, factor, begin, end);
  } else {
    scale_typed<float>(data, dtype, static_cast<float>(factor), begin, end);
  }
}

}  // namespace retina_ops
