// Non-maximum suppression on CUDA. No torch.
//
// The boxes lie sorted by class and, in a class, by descending score, in chunks of kNmsChunk. For each chunk in turn,
// nms_mask_kernel writes which box suppresses which inside the chunk as bits; nms_sweep_kernel, one block, walks the
// chunk in order and leaves the kept boxes; nms_suppress_kernel strikes the later boxes that those suppress. So memory
// is O(n + kNmsChunk^2 bits), and no step waits for the host. Pairs of different classes are skipped a tile at a time:
// classes are contiguous.
#pragma once

#include "common/vector.cuh"
#include "nms/nms.h"

namespace retina_ops {

constexpr int kNmsTile = 64;     // boxes of a mask word
constexpr int kNmsChunk = 4096;  // boxes that are resolved together
constexpr int kNmsWords = kNmsChunk / kNmsTile;
constexpr int kNmsThreads = 256;

// Sorted boxes of a call. Words hold one bit a box; bits past n are never read.
template <class A>
struct NmsBoxes {
  Box<A>* boxes;     // [n]
  int64_t* classes;  // [n], or null: all of one class
  uint32_t* struck;  // [ceil(n / 32)] suppressed, or not a number
  uint32_t* kept;    // [ceil(n / 32)]
  int64_t n;
  A threshold;
};

// Box i of the sorted order is input box order[rank[i]] (order[i] where rank is null), for boxes [first, n).
// launch: one thread a box, kNmsThreads a block.
template <class T, class ScoreT>
__global__ void __launch_bounds__(kNmsThreads)
    nms_gather_kernel(const T* boxes, const ScoreT* scores, const int64_t* classes, const int64_t* order,
                      const int64_t* rank, NmsBoxes<ArithmeticOf<T>> sorted, int64_t first, bool aligned) {
  const int64_t i = first + static_cast<int64_t>(blockIdx.x) * kNmsThreads + threadIdx.x;
  bool is_struck = false;
  if (i < sorted.n) {
    const int64_t input = order[rank != nullptr ? rank[i] : i];
    ArithmeticOf<T> v[4];
    load_pack(boxes + 4 * input, 4, aligned, v);
    sorted.boxes[i] = {v[0], v[1], v[2], v[3]};
    if (sorted.classes != nullptr) sorted.classes[i] = classes[input];
    const auto score = to_arithmetic(scores[input]);
    is_struck = score != score;
  }
  const unsigned word = __ballot_sync(kFullWarp, is_struck);
  if (threadIdx.x % kWarpSize == 0 && i < sorted.n) {
    sorted.struck[i / 32] = word;
    sorted.kept[i / 32] = 0;
  }
}

// Word [row][tile] of the mask: the columns of the tile, after the row, that the row suppresses.
// mask: [kNmsChunk, kNmsWords]; rows of the chunk at `begin`. launch: kNmsWords * kNmsWords blocks of kNmsTile, of
// which those under the diagonal return at once: their words are never read.
template <class A>
__global__ void __launch_bounds__(kNmsTile) nms_mask_kernel(NmsBoxes<A> sorted, int64_t begin, uint64_t* mask) {
  RETINA_OPS_SHARED(Box<A>[kNmsTile], columns);
  RETINA_OPS_SHARED(A[kNmsTile], areas);
  RETINA_OPS_SHARED(int64_t[kNmsTile], classes);
  const int row_tile = static_cast<int>(blockIdx.x) / kNmsWords;
  const int column_tile = static_cast<int>(blockIdx.x) % kNmsWords;
  const int64_t first_row = begin + row_tile * kNmsTile;
  const int64_t first_column = begin + column_tile * kNmsTile;
  if (column_tile < row_tile || first_column >= sorted.n) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = first_row + thread;
  uint64_t* word = mask + (row - begin) * kNmsWords + column_tile;
  const bool has_classes = sorted.classes != nullptr;
  // Rows are full here: the columns' tile comes after them or is their own.
  const int64_t last_row = first_row + kNmsTile - 1 < sorted.n ? first_row + kNmsTile - 1 : sorted.n - 1;
  if (has_classes && sorted.classes[last_row] < sorted.classes[first_column]) {
    *word = 0;
    return;
  }
  const int64_t column = first_column + thread;
  if (column < sorted.n) {
    columns[thread] = sorted.boxes[column];
    areas[thread] = box_area(columns[thread]);
    classes[thread] = has_classes ? sorted.classes[column] : 0;
  }
  __syncthreads();
  if (row >= sorted.n) return;
  const Box<A> box = sorted.boxes[row];
  const A area = box_area(box);
  const int64_t its_class = has_classes ? sorted.classes[row] : 0;
  const int count = static_cast<int>(sorted.n - first_column < kNmsTile ? sorted.n - first_column : kNmsTile);
  uint64_t bits = 0;
  for (int i = row_tile == column_tile ? thread + 1 : 0; i < count; ++i) {
    const bool strikes = classes[i] == its_class && suppresses(box, area, columns[i], areas[i], sorted.threshold);
    bits |= strikes ? uint64_t(1) << i : uint64_t(0);
  }
  *word = bits;
}

// Walks the chunk at `begin` in order: a box that is not struck is kept and strikes those in its row of the mask.
// launch: one block of kNmsThreads.
template <class A>
__global__ void __launch_bounds__(kNmsThreads)
    nms_sweep_kernel(NmsBoxes<A> sorted, int64_t begin, const uint64_t* mask) {
  constexpr int kGroups = kNmsThreads / kNmsWords;  // threads that share a column of words
  RETINA_OPS_SHARED(uint64_t[kNmsWords], struck);
  RETINA_OPS_SHARED(uint64_t[kNmsTile], diagonal);
  RETINA_OPS_SHARED(uint64_t[kNmsThreads], partial);
  RETINA_OPS_SHARED(uint64_t, kept_word);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t count = sorted.n - begin < kNmsChunk ? sorted.n - begin : kNmsChunk;
  const int words = static_cast<int>(ceil_div<int64_t>(count, kNmsTile));
  const int64_t words32 = ceil_div<int64_t>(sorted.n, 32);
  const uint32_t* struck32 = sorted.struck + begin / 32;
  uint32_t* kept32 = sorted.kept + begin / 32;
  if (thread < words) {
    const bool has_high = begin / 32 + 2 * thread + 1 < words32;
    const int64_t left = count - static_cast<int64_t>(thread) * kNmsTile;
    const uint64_t past = left >= kNmsTile ? uint64_t(0) : ~uint64_t(0) << left;
    struck[thread] = past | struck32[2 * thread] | (has_high ? uint64_t(struck32[2 * thread + 1]) << 32 : uint64_t(0));
  }
  for (int w = 0; w < words; ++w) {
    const int64_t row = static_cast<int64_t>(w) * kNmsTile + thread;
    if (thread < kNmsTile) diagonal[thread] = row < count ? mask[row * kNmsWords + w] : 0;
    __syncthreads();
    if (thread == 0) {
      uint64_t alive = ~struck[w];
      uint64_t kept = 0;
      while (alive != 0) {
        const int bit = __ffsll(static_cast<long long>(alive)) - 1;
        kept |= uint64_t(1) << bit;
        alive &= ~((uint64_t(1) << bit) | diagonal[bit]);
      }
      kept_word = kept;
      kept32[2 * w] = static_cast<uint32_t>(kept);
      if (begin / 32 + 2 * w + 1 < words32) kept32[2 * w + 1] = static_cast<uint32_t>(kept >> 32);
    }
    __syncthreads();
    // Every later word of the chunk loses what the kept rows strike; kGroups threads share the rows of a word.
    const int column = thread % kNmsWords;
    uint64_t strikes = 0;
    if (column > w && column < words) {
      for (int bit = thread / kNmsWords; bit < kNmsTile; bit += kGroups) {
        if ((kept_word >> bit & 1) != 0)
          strikes |= mask[(static_cast<int64_t>(w) * kNmsTile + bit) * kNmsWords + column];
      }
    }
    partial[thread] = strikes;
    __syncthreads();
    if (thread > w && thread < words) {
      uint64_t all = struck[thread];
      for (int group = 0; group < kGroups; ++group) all |= partial[group * kNmsWords + thread];
      struck[thread] = all;
    }
  }
}

// Strikes the boxes after the chunk at `begin` that its kept boxes suppress. first: of the columns, the chunk's end.
// launch: one thread a column, kNmsThreads a block.
template <class A>
__global__ void __launch_bounds__(kNmsThreads) nms_suppress_kernel(NmsBoxes<A> sorted, int64_t begin, int64_t first) {
  RETINA_OPS_SHARED(Box<A>[kNmsThreads], rows);
  RETINA_OPS_SHARED(A[kNmsThreads], areas);
  RETINA_OPS_SHARED(int64_t[kNmsThreads], classes);
  RETINA_OPS_SHARED(bool[kNmsThreads], is_kept);
  const int thread = static_cast<int>(threadIdx.x);
  const bool has_classes = sorted.classes != nullptr;
  const int64_t first_column = first + static_cast<int64_t>(blockIdx.x) * kNmsThreads;
  if (has_classes && sorted.classes[first - 1] < sorted.classes[first_column]) return;  // no class in common
  const int64_t column = first_column + thread;
  const bool here = column < sorted.n;
  const Box<A> box = here ? sorted.boxes[column] : Box<A>{A(0), A(0), A(0), A(0)};
  const A area = box_area(box);
  const int64_t its_class = here && has_classes ? sorted.classes[column] : 0;
  bool is_struck = !here || (sorted.struck[column / 32] >> (column % 32) & 1) != 0;
  for (int64_t start = begin; start < first; start += kNmsThreads) {
    const int64_t row = start + thread;
    is_kept[thread] = (sorted.kept[row / 32] >> (row % 32) & 1) != 0;
    if (is_kept[thread]) {
      rows[thread] = sorted.boxes[row];
      areas[thread] = box_area(rows[thread]);
      classes[thread] = has_classes ? sorted.classes[row] : 0;
    }
    __syncthreads();
    for (int i = 0; i < kNmsThreads && !is_struck; ++i) {
      is_struck = is_kept[i] && classes[i] == its_class && suppresses(rows[i], areas[i], box, area, sorted.threshold);
    }
    __syncthreads();
  }
  const unsigned word = __ballot_sync(kFullWarp, is_struck);
  if (here && thread % kWarpSize == 0) sorted.struck[column / 32] = word;
}

// Kept bits [first, n) from the order by class to the order by score: bit rank[i] of by_score where bit i is set.
// by_score: [ceil(n / 32)] zero before. launch: one thread a box, kNmsThreads a block.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    nms_scatter_kernel(const uint32_t* kept, const int64_t* rank, int64_t first, int64_t n, uint32_t* by_score) {
  const int64_t i = first + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n || (kept[i / 32] >> (i % 32) & 1) == 0) return;
  atomicOr(&by_score[rank[i] / 32], 1u << (rank[i] % 32));
}

// The input indices of the kept boxes of [first, n), in order, padded with -1, and their count. kept: [ceil(n / 32)] in
// order of score; order: [n]; output: [max_output]; count: []. first and kThreads: multiples of 32. launch: one block.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    nms_compact_kernel(const uint32_t* kept, const int64_t* order, int64_t first, int64_t n, int64_t* output,
                       int64_t max_output, int64_t* count) {
  RETINA_OPS_SHARED(int[kThreads / kWarpSize], warp_total);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const int64_t words = ceil_div<int64_t>(n, 32);
  int64_t written = 0;
  for (int64_t start = first / 32; start < words && written < max_output; start += kThreads) {
    const int64_t at = start + thread;
    const uint32_t word = at < words ? kept[at] : 0u;
    const int mine = __popc(word);
    int before = mine;  // inclusive sum over the warp
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const int other = __shfl_up_sync(kFullWarp, before, offset);
      before += lane >= offset ? other : 0;
    }
    if (lane == kWarpSize - 1) warp_total[thread / kWarpSize] = before;
    __syncthreads();
    int64_t position = written + before - mine;
    int total = 0;
    for (int w = 0; w < kThreads / kWarpSize; ++w) {
      position += w < thread / kWarpSize ? warp_total[w] : 0;
      total += warp_total[w];
    }
    for (uint32_t rest = word; rest != 0; rest &= rest - 1) {
      const int64_t i = at * 32 + __ffs(static_cast<int>(rest)) - 1;
      if (position < max_output) output[position] = order[i];
      ++position;
    }
    written += total;
    __syncthreads();
  }
  if (written > max_output) written = max_output;
  for (int64_t i = written + thread; i < max_output; i += kThreads) output[i] = -1;
  if (thread == 0) *count = written;
}

}  // namespace retina_ops
