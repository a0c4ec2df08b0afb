// Soft non-maximum suppression on CUDA. No torch.
//
// The boxes are sorted into slots so that the boxes of a class, a segment, are contiguous. One block processes a
// segment from beginning to end and exchanges nothing with the host or another block. Each thread owns every
// kThreads-th slot of the segment. No other thread accesses these slots, so they need no barrier. A box that is taken
// or dropped is replaced by the thread's last box, so that later steps process fewer. A step is one pass of each thread
// over its boxes, which decays them by the box taken last and finds the best, and one reduction over the block with a
// single barrier.
//
// Lower bounds for a segment of m boxes, of which k are taken: k dependent steps, each of one barrier and ten shuffles
// per warp, about a microsecond; and up to k m / 2 pairs of about 20 instructions on the one multiprocessor that runs
// the block. Up to a few thousand boxes it is bound by the latency of the steps, above that by the throughput of the
// pairs. One class of very many boxes leaves the other multiprocessors idle: sharing a step among blocks would cost a
// launch, or a wait of one block for another, per taken box. A pair that does not intersect costs no division. Not yet
// timed on a GPU.
#pragma once

#include "common/vector.cuh"
#include "soft_nms/soft_nms.h"

namespace retina_ops {

constexpr int kSoftNmsThreads = 256;
constexpr int kSoftNmsWideThreads = 1024;  // of a block for a long segment

// The type of the arithmetic for boxes of T and scores of ScoreT.
template <class T, class ScoreT>
using SoftNmsArithmetic = std::conditional_t<sizeof(T) == 8 || sizeof(ScoreT) == 8, double, float>;

// Workspace of a call. Slots [first, n) are used.
template <class A>
struct SoftNmsSlots {
  Box<A>* boxes;      // [n]
  A* scores;          // [n] input scores
  A* decays;          // [n] products of factors so far
  int64_t* inputs;    // [n] input indices
  int64_t* classes;   // [n] ascending, or null: all of one class
  int64_t* starts;    // [n] first slots of the segments, in any order
  int32_t* segments;  // [] number of segments; zero before
  A* taken_scores;    // [n] by input index: the decayed score, or -1 where the box is dropped
  A* taken_decays;    // [n] by input index: the decay, of taken boxes alone
  int64_t* count;     // [] number of taken boxes; zero before
  int64_t first, n;
  SoftNmsRule<A> rule;
};

// Slot i is input box rank[i] (i where rank is null). launch: one thread per slot, kSoftNmsThreads per block.
template <class T, class ScoreT>
__global__ void __launch_bounds__(kSoftNmsThreads)
    soft_nms_gather_kernel(const T* boxes, const ScoreT* scores, const int64_t* classes, const int64_t* rank,
                           SoftNmsSlots<SoftNmsArithmetic<T, ScoreT>> slots, bool aligned) {
  using A = SoftNmsArithmetic<T, ScoreT>;
  const int64_t i = slots.first + static_cast<int64_t>(blockIdx.x) * kSoftNmsThreads + threadIdx.x;
  if (i >= slots.n) return;
  const int64_t input = rank != nullptr ? rank[i] : i;
  A v[4];
  load_pack(boxes + 4 * input, 4, aligned, v);
  slots.boxes[i] = {v[0], v[1], v[2], v[3]};
  slots.scores[i] = static_cast<A>(to_arithmetic(scores[input]));
  slots.decays[i] = A(1);
  slots.inputs[i] = input;
  slots.taken_scores[input] = A(-1);
  bool starts = i == slots.first;
  if (rank != nullptr) {
    slots.classes[i] = classes[input];
    starts = starts || classes[rank[i - 1]] != classes[input];
  }
  if (starts) slots.starts[atomicAdd(slots.segments, 1)] = i;
}

// A box that may be taken next. input: -1 where there is none.
template <class A>
struct SoftNmsBest {
  A score;
  int64_t input;
  RETINA_OPS_HOST_DEVICE bool before(A other_score, int64_t other_input) const {
    return input >= 0 && (other_input < 0 || score > other_score || (score == other_score && input < other_input));
  }
};

// The best box of the warp's lanes, returned to all of them.
template <class A>
__device__ __forceinline__ SoftNmsBest<A> warp_best(SoftNmsBest<A> best) {
  for (int bits = kWarpSize / 2; bits > 0; bits /= 2) {
    const SoftNmsBest<A> other{__shfl_xor_sync(kFullWarp, best.score, bits),
                               __shfl_xor_sync(kFullWarp, static_cast<long long>(best.input), bits)};
    if (other.before(best.score, best.input)) best = other;
  }
  return best;
}

// The slot after the last of the segment that starts at `start`.
template <class A>
__device__ __forceinline__ int64_t segment_end(const SoftNmsSlots<A>& slots, int64_t start) {
  if (slots.classes == nullptr) return slots.n;
  int64_t low = start + 1, high = slots.n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (slots.classes[middle] == slots.classes[start]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class A>
__device__ __forceinline__ void move_slot(const SoftNmsSlots<A>& slots, int64_t from, int64_t to) {
  slots.boxes[to] = slots.boxes[from];
  slots.scores[to] = slots.scores[from];
  slots.decays[to] = slots.decays[from];
  slots.inputs[to] = slots.inputs[from];
}

// Takes the boxes of segments blockIdx.x, blockIdx.x + gridDim.x, ..., one segment after the other.
// launch: any number of blocks of kThreads.
template <bool kGaussian, int kThreads, class A>
__global__ void __launch_bounds__(kThreads, 1) soft_nms_take_kernel(SoftNmsSlots<A> slots) {
  constexpr int kWarps = kThreads / kWarpSize;
  // Two buffers that alternate from step to step: a warp may write for the next step while another still reads.
  RETINA_OPS_SHARED(A[2 * kWarps], best_scores);
  RETINA_OPS_SHARED(int64_t[2 * kWarps], best_inputs);
  RETINA_OPS_SHARED(Box<A>[2 * kWarps], best_boxes);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const SoftNmsRule<A> rule = slots.rule;
  const auto slot_of = [](int64_t own, int k) { return own + static_cast<int64_t>(k) * kThreads; };
  int parity = 0;
  for (int64_t segment = blockIdx.x; segment < *slots.segments; segment += gridDim.x) {
    const int64_t start = slots.starts[segment];
    const int64_t own = start + thread;
    const int64_t end = segment_end(slots, start);
    int left = own < end ? static_cast<int>((end - own + kThreads - 1) / kThreads) : 0;
    int64_t taken = 0;
    // The box taken last. At first it has no area, and decays nothing.
    Box<A> box{A(0), A(0), A(0), A(0)};
    A area = A(0);
    while (true) {
      SoftNmsBest<A> best{A(0), -1};
      int best_k = 0;
      for (int k = 0; k < left;) {
        const int64_t slot = slot_of(own, k);
        const Box<A> other = slots.boxes[slot];
        A decay = slots.decays[slot];
        const A intersection = box_intersection(box, other);
        if (intersection > A(0)) {
          const A iou = div_rn(intersection, sub_rn(add_rn(area, box_area(other)), intersection));
          decay = mul_rn(decay, soft_nms_factor<kGaussian>(iou, rule));
        }
        const A score = mul_rn(slots.scores[slot], decay);
        if (!(score >= rule.min_score)) {  // dropped: the thread's last box takes its slot
          move_slot(slots, slot_of(own, --left), slot);
          continue;
        }
        slots.decays[slot] = decay;
        const int64_t input = slots.inputs[slot];
        if (!best.before(score, input)) {
          best = {score, input};
          best_k = k;
        }
        ++k;
      }
      const SoftNmsBest<A> best_of_warp = warp_best(best);
      const int at = parity * kWarps + thread / kWarpSize;
      if (lane == 0) {
        best_scores[at] = best_of_warp.score;
        best_inputs[at] = best_of_warp.input;
      }
      if (best.input >= 0 && best.input == best_of_warp.input) best_boxes[at] = slots.boxes[slot_of(own, best_k)];
      __syncthreads();
      // Every warp reduces the best boxes of all warps, so that no second barrier is needed.
      const int from = parity * kWarps + lane % kWarps;
      const SoftNmsBest<A> best_of_block = warp_best(SoftNmsBest<A>{best_scores[from], best_inputs[from]});
      if (best_of_block.input < 0) break;
      const int winner =
          __ffs(static_cast<int>(__ballot_sync(kFullWarp, best_inputs[from] == best_of_block.input))) - 1;
      box = best_boxes[parity * kWarps + winner];
      area = box_area(box);
      parity ^= 1;
      ++taken;
      if (best.input == best_of_block.input) {
        const int64_t best_slot = slot_of(own, best_k);
        slots.taken_scores[best.input] = best.score;
        slots.taken_decays[best.input] = slots.decays[best_slot];
        move_slot(slots, slot_of(own, --left), best_slot);
      }
    }
    parity ^= 1;
    if (thread == 0) {
      atomicAdd(reinterpret_cast<unsigned long long*>(slots.count), static_cast<unsigned long long>(taken));
    }
  }
}

// Writes the taken boxes in order. order: [count] input indices; scores, decays: [n] by input index; out_scores,
// out_decays: [count]. launch: one thread per box, kSoftNmsThreads per block.
template <class ScoreT, class A>
__global__ void __launch_bounds__(kSoftNmsThreads)
    soft_nms_write_kernel(const int64_t* order, const A* scores, const A* decays, int64_t count, ScoreT* out_scores,
                          A* out_decays) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSoftNmsThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t input = order[i];
  out_scores[i] = from_arithmetic<ScoreT>(static_cast<ArithmeticOf<ScoreT>>(scores[input]));
  out_decays[i] = decays[input];
}

}  // namespace retina_ops
