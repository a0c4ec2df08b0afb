// The focal loss on CUDA. No torch.
//
// Floors, sum and gradient of n float32 logits with class indices: 8 n bytes (4 n for half dtypes) and about 45 fused
// operations an element. One pass: logits in, gradient out, one partial sum a block. The flat logits are read in
// 16-byte accesses whatever the number of classes; the row of an access is found by a multiplication.
#pragma once

#include "common/block.cuh"
#include "common/divider.cuh"
#include "common/vector.cuh"
#include "focal_loss/focal_loss_pack.cuh"

namespace retina_ops {

constexpr int kFocalThreads = 256;
// Blocks that a multiprocessor must hold, which is how many registers ptxas may use before it spills.
constexpr int kFocalResidentBlocks = 3;  // of the reducing kernel: 80 registers
template <Gamma G, int kOrder>
constexpr int kFocalElementBlocks = G == Gamma::kAny || kOrder == 2 ? 2 : 3;
template <class T, Gamma G>
constexpr int kFocalRowBlocks = sizeof(T) == 8 || G == Gamma::kAny ? 2
                                : sizeof(T) == 4                   ? 3
                                                                   : 4;
// Of the reducing kernels: fixed, so that sums do not depend on the device; whole waves of 2, 3 or 4 on each of 132
// multiprocessors.
constexpr int64_t kFocalMaxBlocks = 1584;
constexpr int64_t kMostFocalClasses = int64_t(1) << 30;  // of focal_loss_rows_kernel: columns are 32-bit

// One call of the operator. Arrays are contiguous.
template <class T, class TargetT>
struct FocalKernelArguments {
  const T* logits;                         // [n]
  const TargetT* targets;                  // [n / K] int64 labels, or [n] soft targets
  const ArithmeticOf<T>* alpha_per_class;  // [K] or null
  const T* upstream;                       // [n] or null
  const double* upstream_scalar;           // [] or null
  const int64_t* counted;                  // [] elements that the mean divides by, or null
  T* value;                                // [n] losses, or null
  T* derivative;                           // [n] upstream * derivative, or null
  int64_t first;                           // elements [first, n) are computed: 0 but in tests of large indices
  int64_t n;
  Divider classes;
  int64_t ignore_index;
  ArithmeticOf<T> alpha;
  double gamma;
  bool aligned;  // logits, soft targets, upstream, value and derivative allow 16-byte accesses
};

// Losses and derivatives, weighted, of one pack with class-index targets.
template <class T, Gamma G, int kOrder>
__device__ __forceinline__ void focal_pack(const FocalKernelArguments<T, int64_t>& a, int64_t at,
                                           const ArithmeticOf<T> (&x)[kFocalPack<T>],
                                           ArithmeticOf<T> (&loss)[kFocalPack<T>],
                                           ArithmeticOf<T> (&derivative)[kFocalPack<T>]) {
  using A = ArithmeticOf<T>;
  const int64_t classes = a.classes.divisor;
  int64_t row = a.classes(at);
  int64_t column = at - row * classes;
  int64_t label = a.targets[row];
#pragma unroll
  for (int i = 0; i < kFocalPack<T>; ++i) {
    if (column == classes) {
      column = 0;
      ++row;
      if (at + i < a.n) label = a.targets[row];
    }
    const bool positive = column == label;
    const FocalTerms<A> terms =
        focal_hard<A, G, kOrder, FusedMath>(positive ? x[i] : -x[i], focal_exponential<A, FusedMath>(x[i]), a.gamma);
    const A alpha = a.alpha_per_class != nullptr ? a.alpha_per_class[column] : a.alpha;
    A weight = alpha < A(0) ? A(1) : (positive ? alpha : A(1) - alpha);
    if ((label < 0 || label > classes) && label != a.ignore_index) weight = not_a_number<A>();
    const bool ignored = label == a.ignore_index;
    loss[i] = ignored ? A(0) : terms.loss * weight;
    const A signed_weight = kOrder == 1 && !positive ? -weight : weight;
    derivative[i] = ignored ? A(0) : terms.derivative * signed_weight;
    ++column;
  }
}

// The same with soft targets.
template <class T, Gamma G, int kOrder, class TargetT>
__device__ __forceinline__ void focal_pack(const FocalKernelArguments<T, TargetT>& a, int64_t at,
                                           const ArithmeticOf<T> (&x)[kFocalPack<T>],
                                           ArithmeticOf<T> (&loss)[kFocalPack<T>],
                                           ArithmeticOf<T> (&derivative)[kFocalPack<T>]) {
  using A = ArithmeticOf<T>;
  A target[kFocalPack<T>];
  load_pack(a.targets + at, a.n - at, a.aligned, target);
  int64_t column = a.alpha_per_class != nullptr ? at - a.classes(at) * a.classes.divisor : 0;
#pragma unroll
  for (int i = 0; i < kFocalPack<T>; ++i) {
    const FocalTerms<A> terms =
        focal_soft<A, G, kOrder, FusedMath>(x[i], target[i], focal_exponential<A, FusedMath>(x[i]), a.gamma);
    column = a.alpha_per_class != nullptr && column == a.classes.divisor ? 0 : column;
    const A alpha = a.alpha_per_class != nullptr ? a.alpha_per_class[column] : a.alpha;
    const A weight = alpha < A(0) ? A(1) : alpha * target[i] + (A(1) - alpha) * (A(1) - target[i]);
    loss[i] = terms.loss * weight;
    derivative[i] = terms.derivative * weight;
    ++column;
  }
}

// Loss per element, or its derivative of order kOrder times the upstream gradient. A thread computes one pack.
// launch: ceil(packs / kFocalThreads) blocks of kFocalThreads.
template <class T, class TargetT, Gamma G, int kOrder>
__global__ void __launch_bounds__(kFocalThreads, kFocalElementBlocks<G, kOrder>)
    focal_loss_elementwise_kernel(FocalKernelArguments<T, TargetT> a) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kFocalPack<T>;
  const int64_t at = a.first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack;
  if (at >= a.n) return;
  A x[kPack], loss[kPack], derivative[kPack];
  load_pack(a.logits + at, a.n - at, a.aligned, x);
  focal_pack<T, G, kOrder>(a, at, x, loss, derivative);
  if (a.value != nullptr) {
    store_pack(a.value + at, a.n - at, a.aligned, loss);
    return;
  }
  if (a.upstream != nullptr) {
    A upstream[kPack];
    load_pack(a.upstream + at, a.n - at, a.aligned, upstream);
#pragma unroll
    for (int i = 0; i < kPack; ++i) derivative[i] *= upstream[i];
  } else {
    const A scale = static_cast<A>(*a.upstream_scalar);
#pragma unroll
    for (int i = 0; i < kPack; ++i) derivative[i] *= scale;
  }
  store_pack(a.derivative + at, a.n - at, a.aligned, derivative);
}

// Sum of the losses and, where kWithGrad, the gradient (divided by *counted where that is given), in one pass.
// partial: [blocks] workspace; done: [] zero before and after.
// launch: at most kFocalMaxBlocks blocks of kFocalThreads; result: [] float32 (float64 for float64 logits).
template <class T, class TargetT, Gamma G, bool kWithGrad>
__global__ void __launch_bounds__(kFocalThreads, kFocalResidentBlocks)
    focal_loss_reduced_kernel(FocalKernelArguments<T, TargetT> a, double* partial, unsigned* done,
                              ArithmeticOf<T>* result) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kFocalPack<T>;
  // Nothing counted: all rows are ignored, and their zeros must not become 0 * inf.
  const A scale = a.counted == nullptr ? A(1) : *a.counted == 0 ? A(0) : quotient(A(1), static_cast<A>(*a.counted));
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kFocalThreads * kPack;
  double sum = 0.0;
  for (int64_t at = a.first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack; at < a.n;
       at += stride) {
    A x[kPack], loss[kPack], derivative[kPack];
    load_pack(a.logits + at, a.n - at, a.aligned, x);
    focal_pack<T, G, 1>(a, at, x, loss, derivative);
    A pack_sum = A(0);
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack_sum += at + i < a.n ? loss[i] : A(0);
    sum += static_cast<double>(pack_sum);
    if constexpr (kWithGrad) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) derivative[i] *= scale;
      store_pack(a.derivative + at, a.n - at, a.aligned, derivative);
    }
  }
  double total = 0.0;
  if (!grid_sum<kFocalThreads>(sum, partial, done, total)) return;
  *result = static_cast<A>(a.counted != nullptr ? total / static_cast<double>(*a.counted) : total);
}

// The same for class-index targets of rows no shorter than a pack, with one alpha: what is asked of the operator as a
// rule. Every logit is taken as a negative's, and the few others are put right after. The next pack is on its way while
// one is computed. launch: as above.
template <class T, Gamma G, bool kWithGrad>
__global__ void __launch_bounds__(kFocalThreads, kFocalRowBlocks<T, G>)
    focal_loss_rows_kernel(FocalKernelArguments<T, int64_t> a, double* partial, unsigned* done,
                           ArithmeticOf<T>* result) {
  using A = ArithmeticOf<T>;
  using Math = PackMath<T>;
  constexpr int kPack = kRowPack<T>;
  const A scale = a.counted == nullptr ? A(1) : *a.counted == 0 ? A(0) : quotient(A(1), static_cast<A>(*a.counted));
  const A positive = a.alpha < A(0) ? A(1) : a.alpha, negative = a.alpha < A(0) ? A(1) : A(1) - a.alpha;
  const int classes = static_cast<int>(a.classes.divisor);
  const int64_t rows = a.classes(a.n);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kFocalThreads * kPack;
  int64_t at = a.first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack;
  RowCursor cursor(a.classes, at, stride);
  double sum = 0.0;
  Pack<T, kPack> next;
  int64_t label = classes, label_after = classes;  // of the pack's row and of the one after it
  const auto read = [&] {
    next = read_pack<kPack>(a.logits + at, a.n - at, a.aligned);
    label = a.targets[cursor.row];
    label_after = classes - cursor.column < kPack && cursor.row + 1 < rows ? a.targets[cursor.row + 1] : classes;
  };
  if (at < a.n) read();
  while (at < a.n) {
    A x[kPack], derivative[kPack];
    convert_pack(next, x);
    const int64_t here = at;
    const int column = cursor.column;
    const bool is_plain = label == classes && label_after == classes && here + kPack <= a.n;
    at += stride;
    cursor.advance(classes);
    if (at < a.n) read();
    const auto others = [&] {  // found anew: seldom asked for
      const int64_t* labels = a.targets + a.classes(here);
      PackTargets targets = row_targets<kPack>(labels[0], classes, a.ignore_index, column, 0);
      const int left = classes - column;  // elements to the end of the row
      if (left < kPack) {
        targets.keep_before(left);
        if (here + left < a.n) targets.add(row_targets<kPack>(labels[1], classes, a.ignore_index, 0, left));
      }
      if (a.n - here < kPack) targets.ignore_from(static_cast<int>(a.n - here));
      return PackOthers<A>{targets, {positive, positive * scale}};
    };
    sum += static_cast<double>(
        pack_loss<G, Math>(x, is_plain, PackWeights<A>{negative, negative * scale}, a.gamma, derivative, others));
    if constexpr (kWithGrad) store_pack(a.derivative + here, a.n - here, a.aligned, derivative);
  }
  double total = 0.0;
  if (!grid_sum<kFocalThreads>(sum, partial, done, total)) return;
  *result = static_cast<A>(a.counted != nullptr ? total / static_cast<double>(*a.counted) : total);
}

// counted += elements of rows that are not ignored; bad += rows whose label is neither a class, K nor ignore_index; of
// rows [first, rows). Integer atomics: the result does not depend on their order. counted and bad: [] zero before.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    focal_loss_count_kernel(const int64_t* labels, int64_t first, int64_t rows, int64_t classes, int64_t ignore_index,
                            unsigned long long* counted, unsigned long long* bad) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kFocalThreads;
  unsigned long long kept = 0, wrong = 0;
  for (int64_t row = first + static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x; row < rows;
       row += stride) {
    const int64_t label = labels[row];
    kept += label != ignore_index ? 1u : 0u;
    wrong += (label < 0 || label > classes) && label != ignore_index ? 1u : 0u;
  }
  kept = block_sum<kFocalThreads>(kept);
  __syncthreads();
  wrong = block_sum<kFocalThreads>(wrong);
  if (threadIdx.x == 0) {
    atomicAdd(counted, kept * static_cast<unsigned long long>(classes));
    atomicAdd(bad, wrong);
  }
}

// grad[first, n) *= *scale; returns at once where the scale is 1, so in few blocks. launch: any number of blocks.
template <class T>
__global__ void __launch_bounds__(kFocalThreads)
    scale_gradient_kernel(T* grad, const double* scale, int64_t first, int64_t n, bool aligned) {
  using A = ArithmeticOf<T>;
  const A factor = static_cast<A>(*scale);
  if (factor == A(1)) return;
  constexpr int kPack = kFocalPack<T>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kFocalThreads * kPack;
  for (int64_t at = first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack; at < n;
       at += stride) {
    A values[kPack];
    load_pack(grad + at, n - at, aligned, values);
#pragma unroll
    for (int i = 0; i < kPack; ++i) values[i] *= factor;
    store_pack(grad + at, n - at, aligned, values);
  }
}

}  // namespace retina_ops
