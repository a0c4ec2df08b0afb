// Non-maximum suppression on CUDA. No torch.
//
// The boxes lie sorted by class and, in a class, by descending score, in chunks of kNmsChunk. For each chunk in turn,
// nms_mask_kernel writes which box suppresses which inside the chunk as bits; nms_sweep_kernel, one block, walks the
// chunk in order and leaves the kept boxes; nms_suppress_kernel strikes the later boxes that those suppress. So memory
// is O(n + kNmsChunk^2 bits), and no step waits for the host. Pairs of different classes are skipped a tile or a group
// of rows at a time: classes are contiguous.
#pragma once

#include "common/block.cuh"
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

// Word [tile][row] of the mask: the columns of a tile that a row before the tile suppresses; in the tile's own rows,
// the rows of it before the row that suppress it. Rows and tiles count from `begin`. mask: [kNmsWords, stride]. launch:
// tiles * kNmsWords blocks of kNmsTile, of which those under the diagonal return at once: their words are never read.
template <class A>
__global__ void __launch_bounds__(kNmsTile)
    nms_mask_kernel(NmsBoxes<A> sorted, int64_t begin, uint64_t* mask, int stride) {
  RETINA_OPS_SHARED(Box<A>[kNmsTile], columns);
  RETINA_OPS_SHARED(A[kNmsTile], areas);
  RETINA_OPS_SHARED(int64_t[kNmsTile], classes);
  const int tiles = stride / kNmsTile;
  const int row_tile = static_cast<int>(blockIdx.x) / tiles;
  const int column_tile = static_cast<int>(blockIdx.x) % tiles;
  const int64_t first_row = begin + row_tile * kNmsTile;
  const int64_t first_column = begin + column_tile * kNmsTile;
  if (column_tile < row_tile || first_column >= sorted.n) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = first_row + thread;
  uint64_t* word = mask + static_cast<int64_t>(column_tile) * stride + (row - begin);
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
  const bool is_own = row_tile == column_tile;
  const int columns_here = static_cast<int>(sorted.n - first_column < kNmsTile ? sorted.n - first_column : kNmsTile);
  const bool is_struck = (sorted.struck[row / 32] >> (row % 32) & 1) != 0;  // by an earlier chunk: strikes nothing
  const int count = is_struck ? 0 : is_own ? thread : columns_here;
  uint64_t bits = 0;
  for (int i = 0; i < count; ++i) {
    const bool strikes =
        classes[i] == its_class && (is_own ? suppresses(columns[i], areas[i], box, area, sorted.threshold)
                                           : suppresses(box, area, columns[i], areas[i], sorted.threshold));
    bits |= strikes ? uint64_t(1) << i : uint64_t(0);
  }
  *word = bits;
}

// Bit `lane` and bit `lane + 32` of a word that all lanes share.
__device__ __forceinline__ uint64_t both_bits(bool low, bool high) {
  return __ballot_sync(kFullWarp, low) | static_cast<uint64_t>(__ballot_sync(kFullWarp, high)) << 32;
}

// The boxes of a tile that are kept, of those `alive` that no earlier tile strikes; by_low, by_high: the rows of the
// tile that suppress boxes `lane` and `lane + 32`. All lanes call it together. A round keeps every box whose earlier
// suppressors are all struck, so that it takes as many as the longest chain of boxes that decide each other.
__device__ __forceinline__ uint64_t kept_of_tile(uint64_t alive, uint64_t by_low, uint64_t by_high) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  uint64_t kept = 0;
  while (alive != 0) {
    const bool low = (alive >> lane & 1) != 0, high = (alive >> (lane + 32) & 1) != 0;
    const uint64_t open = alive | kept;
    kept |= both_bits(low && (by_low & open) == 0, high && (by_high & open) == 0);
    alive &= ~(kept | both_bits(low && (by_low & kept) != 0, high && (by_high & kept) != 0));
  }
  return kept;
}

// Walks the chunk at `begin` tile after tile: a box that is not struck is kept and strikes those in its row of the
// mask. A thread keeps the words of its rows (every kNmsThreads-th of the chunk) for one tile, read while the tile
// before it is resolved, which every warp does for itself: one barrier a tile. launch: one block of kNmsThreads.
template <class A>
__global__ void __launch_bounds__(kNmsThreads)
    nms_sweep_kernel(NmsBoxes<A> sorted, int64_t begin, const uint64_t* mask, int stride) {
  constexpr int kWarps = kNmsThreads / kWarpSize;
  constexpr int kRows = kNmsChunk / kNmsThreads;  // of a thread
  constexpr int kTiles = kNmsThreads / kNmsTile;  // between two rows of a thread
  RETINA_OPS_SHARED(uint64_t[kNmsWords], struck);
  RETINA_OPS_SHARED(uint64_t[2][kWarps], strikes);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
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
  uint64_t rows[kRows];
  uint64_t by_low = 0, by_high = 0;
  const auto read_tile = [&](int w) {  // earlier rows of all threads, and every warp the tile's own
    const uint64_t* its = mask + static_cast<int64_t>(w) * stride;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int row = k * kNmsThreads + thread;
      rows[k] = row < w * kNmsTile ? its[row] : uint64_t(0);
    }
    by_low = w * kNmsTile + lane < count ? its[w * kNmsTile + lane] : 0;
    by_high = w * kNmsTile + lane + 32 < count ? its[w * kNmsTile + lane + 32] : 0;
  };
  unsigned kept_rows = 0;  // bit k: whether row k * kNmsThreads + thread is kept
  read_tile(0);
  for (int w = 0; w < words; ++w) {
    uint64_t mine = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) mine |= (kept_rows >> k & 1u) != 0 ? rows[k] : uint64_t(0);
    const uint64_t low = by_low, high = by_high;
    if (w + 1 < words) read_tile(w + 1);
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) mine |= __shfl_xor_sync(kFullWarp, mine, offset);
    if (lane == 0) strikes[w % 2][thread / kWarpSize] = mine;
    __syncthreads();
    uint64_t gone = struck[w];
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) gone |= strikes[w % 2][warp];
    const uint64_t kept = kept_of_tile(~gone, low, high);
    if (thread / kNmsTile == w % kTiles)
      kept_rows |= static_cast<unsigned>(kept >> (thread % kNmsTile) & 1) << (w / kTiles);
    if (thread == 0) {
      kept32[2 * w] = static_cast<uint32_t>(kept);
      if (begin / 32 + 2 * w + 1 < words32) kept32[2 * w + 1] = static_cast<uint32_t>(kept >> 32);
    }
  }
}

// Strikes the boxes from `first`, the chunk's end, on that the kept boxes of the chunk at `begin` suppress. A block
// takes kNmsThreads columns and as many rows, of which it gathers the kept ones.
// launch: ceil((n - first) / kNmsThreads) * kNmsChunk / kNmsThreads blocks of kNmsThreads.
template <class A>
__global__ void __launch_bounds__(kNmsThreads) nms_suppress_kernel(NmsBoxes<A> sorted, int64_t begin, int64_t first) {
  constexpr int kGroups = kNmsChunk / kNmsThreads;  // of rows
  RETINA_OPS_SHARED(Box<A>[kNmsThreads], rows);
  RETINA_OPS_SHARED(A[kNmsThreads], areas);
  RETINA_OPS_SHARED(int64_t[kNmsThreads], classes);
  RETINA_OPS_SHARED(int[kNmsThreads / kWarpSize], kept_of_warp);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const bool has_classes = sorted.classes != nullptr;
  const int64_t first_column = first + static_cast<int64_t>(blockIdx.x) / kGroups * kNmsThreads;
  const int64_t row = begin + static_cast<int64_t>(blockIdx.x) % kGroups * kNmsThreads + thread;
  if (has_classes && sorted.classes[row - thread + kNmsThreads - 1] < sorted.classes[first_column]) return;
  const bool is_kept = (sorted.kept[row / 32] >> (row % 32) & 1) != 0;
  const unsigned of_warp = __ballot_sync(kFullWarp, is_kept);
  if (lane == 0) kept_of_warp[thread / kWarpSize] = __popc(of_warp);
  __syncthreads();
  int place = __popc(of_warp & ((1u << lane) - 1u)), count = 0;
  for (int warp = 0; warp < kNmsThreads / kWarpSize; ++warp) {
    place += warp < thread / kWarpSize ? kept_of_warp[warp] : 0;
    count += kept_of_warp[warp];
  }
  if (is_kept) {
    rows[place] = sorted.boxes[row];
    areas[place] = box_area(rows[place]);
    classes[place] = has_classes ? sorted.classes[row] : 0;
  }
  __syncthreads();
  const int64_t column = first_column + thread;
  const bool here = column < sorted.n;
  // Other blocks strike boxes of the same word meanwhile: read as they write.
  unsigned before = 0;
  if (here && lane == 0) before = atomicOr(&sorted.struck[column / 32], 0u);
  before = __shfl_sync(kFullWarp, before, 0);
  const Box<A> box = here ? sorted.boxes[column] : Box<A>{A(0), A(0), A(0), A(0)};
  const A area = box_area(box);
  const int64_t its_class = here && has_classes ? sorted.classes[column] : 0;
  const bool was_struck = !here || (before >> lane & 1u) != 0;
  bool is_struck = was_struck;
  for (int i = 0; i < count && !is_struck; ++i) {
    is_struck = classes[i] == its_class && suppresses(rows[i], areas[i], box, area, sorted.threshold);
  }
  const unsigned word = __ballot_sync(kFullWarp, is_struck && !was_struck);
  if (lane == 0 && word != 0) atomicOr(&sorted.struck[column / 32], word);
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
// order of score; order: [n]; output: [max_output]; count: []. first and kThreads: multiples of 32. A thread takes one
// box; what is kept before its block, the block counts for itself. launch: a block at least.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    nms_compact_kernel(const uint32_t* kept, const int64_t* order, int64_t first, int64_t n, int64_t* output,
                       int64_t max_output, int64_t* count) {
  RETINA_OPS_SHARED(uint32_t[kThreads / kWarpSize], words);
  RETINA_OPS_SHARED(int64_t[2], sums);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const int64_t all_words = ceil_div<int64_t>(n, 32);
  const int64_t i = first + static_cast<int64_t>(blockIdx.x) * kThreads + thread;
  const int64_t first_word = (i - thread) / 32;  // of the block
  unsigned long long before = 0, total = 0;
  for (int64_t at = first / 32 + thread; at < all_words; at += kThreads) {
    const unsigned its = static_cast<unsigned>(__popc(kept[at]));
    total += its;
    before += at < first_word ? its : 0u;
  }
  before = block_sum<kThreads>(before);
  __syncthreads();
  total = block_sum<kThreads>(total);
  if (thread == 0) {
    sums[0] = static_cast<int64_t>(before);
    sums[1] = static_cast<int64_t>(total);
  }
  if (lane == 0) words[thread / kWarpSize] = i < n ? kept[i / 32] : 0u;
  __syncthreads();
  int64_t position = sums[0];
  for (int warp = 0; warp < thread / kWarpSize; ++warp) position += __popc(words[warp]);
  const uint32_t mine = words[thread / kWarpSize];
  position += __popc(mine & ((1u << lane) - 1u));
  if ((mine >> lane & 1u) != 0 && position < max_output) output[position] = order[i];
  const int64_t written = sums[1] < max_output ? sums[1] : max_output;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = written + static_cast<int64_t>(blockIdx.x) * kThreads + thread; at < max_output; at += stride) {
    output[at] = -1;
  }
  if (i == first) *count = written;
}

}  // namespace retina_ops
