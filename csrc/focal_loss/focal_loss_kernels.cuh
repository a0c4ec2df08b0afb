// The focal loss on CUDA. No torch.
//
// Lower bounds for the sum and gradient of n float32 logits with class-index targets: 8 n bytes (4 n for half dtypes),
// and about 45 fused operations per element. One pass reads the logits and writes the gradient and one partial sum per
// block. The logits are read as a flat array in 16-byte accesses, whatever the number of classes; a multiplication
// finds the row of an access.
#pragma once

#include "common/block.cuh"
#include "common/divider.cuh"
#include "common/vector.cuh"
#include "focal_loss/focal_loss_pack.cuh"

namespace retina_ops {

constexpr int kFocalThreads = 256;
// Blocks that a multiprocessor must be able to run at once. They limit the registers that ptxas uses before it spills.
constexpr int kFocalResidentBlocks = 3;  // of the reducing kernel: 80 registers
template <Gamma G, int kOrder>
constexpr int kFocalElementBlocks = G == Gamma::kAny || kOrder == 2 ? 2 : 3;
template <class T, Gamma G>
constexpr int kFocalRowBlocks = sizeof(T) == 8 || G == Gamma::kAny ? 2
                                : sizeof(T) == 4                   ? 3
                                                                   : 4;
// Blocks of the reducing kernels. The number is fixed, so that sums do not depend on the device. It fills 132
// multiprocessors in whole waves of 2, 3 or 4 blocks each.
constexpr int64_t kFocalMaxBlocks = 1584;
constexpr int64_t kMostFocalClasses = int64_t(1) << 30;  // of focal_loss_rows_kernel, whose columns are 32-bit

// One call of the operator. Arrays are contiguous.
template <class T, class TargetT>
struct FocalKernelArguments {
  const T* logits;                         // [n]
  const TargetT* targets;                  // [n / K] int64 labels, or [n] soft targets
  const ArithmeticOf<T>* alpha_per_class;  // [K] or null
  const T* upstream;                       // [n] or null
  const double* upstream_factor;           // [] or null
  const int64_t* counted;                  // [] elements that the mean divides by, or null
  T* loss_out;                             // [n] losses, or null
  T* grad_out;                             // [n] upstream * derivative, or null
  int64_t first;                           // elements [first, n) are computed
  int64_t n;
  Divider classes;
  int64_t ignore_index;
  ArithmeticOf<T> alpha;
  double gamma;
  bool aligned;  // logits, soft targets, upstream, loss_out and grad_out allow 16-byte accesses
};

// Weighted losses and derivatives of one pack, for class-index targets.
template <class T, Gamma G, int kOrder>
__device__ __forceinline__ void focal_pack(const FocalKernelArguments<T, int64_t>& args, int64_t at,
                                           const ArithmeticOf<T> (&x)[kFocalPack<T>],
                                           ArithmeticOf<T> (&loss)[kFocalPack<T>],
                                           ArithmeticOf<T> (&derivative)[kFocalPack<T>]) {
  using A = ArithmeticOf<T>;
  const int64_t classes = args.classes.divisor;
  int64_t row = args.classes(at);
  int64_t column = at - row * classes;
  int64_t label = args.targets[row];
#pragma unroll
  for (int i = 0; i < kFocalPack<T>; ++i) {
    if (column == classes) {
      column = 0;
      ++row;
      if (at + i < args.n) label = args.targets[row];
    }
    const bool positive = column == label;
    const FocalTerms<A> terms =
        focal_hard<A, G, kOrder, FusedMath>(positive ? x[i] : -x[i], focal_exponential<A, FusedMath>(x[i]), args.gamma);
    const A alpha = args.alpha_per_class != nullptr ? args.alpha_per_class[column] : args.alpha;
    A weight = alpha < A(0) ? A(1) : (positive ? alpha : A(1) - alpha);
    if ((label < 0 || label > classes) && label != args.ignore_index) weight = not_a_number<A>();
    const bool ignored = label == args.ignore_index;
    loss[i] = ignored ? A(0) : terms.loss * weight;
    const A signed_weight = kOrder == 1 && !positive ? -weight : weight;
    derivative[i] = ignored ? A(0) : terms.derivative * signed_weight;
    ++column;
  }
}

// The same for soft targets.
template <class T, Gamma G, int kOrder, class TargetT>
__device__ __forceinline__ void focal_pack(const FocalKernelArguments<T, TargetT>& args, int64_t at,
                                           const ArithmeticOf<T> (&x)[kFocalPack<T>],
                                           ArithmeticOf<T> (&loss)[kFocalPack<T>],
                                           ArithmeticOf<T> (&derivative)[kFocalPack<T>]) {
  using A = ArithmeticOf<T>;
  A target[kFocalPack<T>];
  load_pack(args.targets + at, args.n - at, args.aligned, target);
  int64_t column = args.alpha_per_class != nullptr ? at - args.classes(at) * args.classes.divisor : 0;
#pragma unroll
  for (int i = 0; i < kFocalPack<T>; ++i) {
    const FocalTerms<A> terms =
        focal_soft<A, G, kOrder, FusedMath>(x[i], target[i], focal_exponential<A, FusedMath>(x[i]), args.gamma);
    column = args.alpha_per_class != nullptr && column == args.classes.divisor ? 0 : column;
    const A alpha = args.alpha_per_class != nullptr ? args.alpha_per_class[column] : args.alpha;
    const A weight = alpha < A(0) ? A(1) : alpha * target[i] + (A(1) - alpha) * (A(1) - target[i]);
    loss[i] = terms.loss * weight;
    derivative[i] = terms.derivative * weight;
    ++column;
  }
}

// The loss of each element, or its derivative of order kOrder times the upstream gradient. A thread computes one pack.
// launch: ceil(packs / kFocalThreads) blocks of kFocalThreads.
template <class T, class TargetT, Gamma G, int kOrder>
__global__ void __launch_bounds__(kFocalThreads, kFocalElementBlocks<G, kOrder>)
    focal_loss_elementwise_kernel(FocalKernelArguments<T, TargetT> args) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kFocalPack<T>;
  const int64_t at = args.first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack;
  if (at >= args.n) return;
  A x[kPack], loss[kPack], derivative[kPack];
  load_pack(args.logits + at, args.n - at, args.aligned, x);
  focal_pack<T, G, kOrder>(args, at, x, loss, derivative);
  if (args.loss_out != nullptr) {
    store_pack(args.loss_out + at, args.n - at, args.aligned, loss);
    return;
  }
  if (args.upstream != nullptr) {
    A upstream[kPack];
    load_pack(args.upstream + at, args.n - at, args.aligned, upstream);
#pragma unroll
    for (int i = 0; i < kPack; ++i) derivative[i] *= upstream[i];
  } else {
    const A scale = static_cast<A>(*args.upstream_factor);
#pragma unroll
    for (int i = 0; i < kPack; ++i) derivative[i] *= scale;
  }
  store_pack(args.grad_out + at, args.n - at, args.aligned, derivative);
}

// The sum of the losses and, where kWithGrad, its gradient, in one pass; both divided by *counted where it is given.
// partial: [blocks] workspace; done: [] zero before and after.
// launch: at most kFocalMaxBlocks blocks of kFocalThreads; result: [] float32 (float64 for float64 logits).
template <class T, class TargetT, Gamma G, bool kWithGrad>
__global__ void __launch_bounds__(kFocalThreads, kFocalResidentBlocks)
    focal_loss_reduced_kernel(FocalKernelArguments<T, TargetT> args, double* partial, unsigned* done,
                              ArithmeticOf<T>* result) {
  using A = ArithmeticOf<T>;
  constexpr int kPack = kFocalPack<T>;
  // If all rows are ignored, *counted is 0: the gradient stays 0, and does not become 0 * inf.
  const A scale = args.counted == nullptr ? A(1)
                  : *args.counted == 0    ? A(0)
                                          : quotient(A(1), static_cast<A>(*args.counted));
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kFocalThreads * kPack;
  double sum = 0.0;
  for (int64_t at = args.first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack; at < args.n;
       at += stride) {
    A x[kPack], loss[kPack], derivative[kPack];
    load_pack(args.logits + at, args.n - at, args.aligned, x);
    focal_pack<T, G, 1>(args, at, x, loss, derivative);
    A pack_sum = A(0);
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack_sum += at + i < args.n ? loss[i] : A(0);
    sum += static_cast<double>(pack_sum);
    if constexpr (kWithGrad) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) derivative[i] *= scale;
      store_pack(args.grad_out + at, args.n - at, args.aligned, derivative);
    }
  }
  double total = 0.0;
  if (!grid_sum<kFocalThreads>(sum, partial, done, total)) return;
  *result = static_cast<A>(args.counted != nullptr ? total / static_cast<double>(*args.counted) : total);
}

// The same for class-index targets, one alpha, and rows of at least a pack: the usual call. Every logit is computed as
// a negative; the few positive, ignored and bad ones are corrected afterwards. Each thread loads its next pack before
// it computes the current one. launch: as focal_loss_reduced_kernel.
template <class T, Gamma G, bool kWithGrad>
__global__ void __launch_bounds__(kFocalThreads, kFocalRowBlocks<T, G>)
    focal_loss_rows_kernel(FocalKernelArguments<T, int64_t> args, double* partial, unsigned* done,
                           ArithmeticOf<T>* result) {
  using A = ArithmeticOf<T>;
  using Math = PackMath<T>;
  constexpr int kPack = kRowPack<T>;
  const A scale = args.counted == nullptr ? A(1)
                  : *args.counted == 0    ? A(0)
                                          : quotient(A(1), static_cast<A>(*args.counted));
  const A positive = args.alpha < A(0) ? A(1) : args.alpha, negative = args.alpha < A(0) ? A(1) : A(1) - args.alpha;
  const int classes = static_cast<int>(args.classes.divisor);
  const int64_t rows = args.classes(args.n);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kFocalThreads * kPack;
  int64_t at = args.first + (static_cast<int64_t>(blockIdx.x) * kFocalThreads + threadIdx.x) * kPack;
  RowCursor cursor(args.classes, at, stride);
  double sum = 0.0;
  Pack<T, kPack> next;
  int64_t label = classes, label_after = classes;  // of the pack's row and of the next row
  const auto read = [&] {
    next = read_pack<kPack>(args.logits + at, args.n - at, args.aligned);
    label = args.targets[cursor.row];
    label_after = classes - cursor.column < kPack && cursor.row + 1 < rows ? args.targets[cursor.row + 1] : classes;
  };
  if (at < args.n) read();
  while (at < args.n) {
    A x[kPack], derivative[kPack];
    convert_pack(next, x);
    const int64_t current = at;
    const int column = cursor.column;
    const bool is_plain = label == classes && label_after == classes && current + kPack <= args.n;
    at += stride;
    cursor.advance(classes);
    if (at < args.n) read();
    const auto corrections = [&] {  // rarely called, so it computes the row again
      const int64_t* labels = args.targets + args.classes(current);
      PackTargets targets = row_targets<kPack>(labels[0], classes, args.ignore_index, column, 0);
      const int left = classes - column;  // elements to the end of the row
      if (left < kPack) {
        targets.keep_before(left);
        if (current + left < args.n) targets.add(row_targets<kPack>(labels[1], classes, args.ignore_index, 0, left));
      }
      if (args.n - current < kPack) targets.ignore_from(static_cast<int>(args.n - current));
      return PackCorrections<A>{targets, {positive, positive * scale}};
    };
    sum += static_cast<double>(pack_loss<G, Math>(x, is_plain, PackWeights<A>{negative, negative * scale}, args.gamma,
                                                  derivative, corrections));
    if constexpr (kWithGrad) store_pack(args.grad_out + current, args.n - current, args.aligned, derivative);
  }
  double total = 0.0;
  if (!grid_sum<kFocalThreads>(sum, partial, done, total)) return;
  *result = static_cast<A>(args.counted != nullptr ? total / static_cast<double>(*args.counted) : total);
}

// Adds to `counted` the elements of rows that are not ignored, and to `bad` the rows whose label is neither a class, K
// nor ignore_index, for rows [first, rows). The atomics are of integers: their order does not matter. counted
// and bad: [] zero before.
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

// grad[first, n) *= *scale. If the scale is 1, every thread returns at once. launch: any number of blocks.
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
