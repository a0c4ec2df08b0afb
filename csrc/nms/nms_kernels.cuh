// Non-maximum suppression on CUDA. No torch.
//
// The boxes are sorted by class and, within a class, by descending score, and are processed in chunks of kNmsChunk. For
// each chunk in turn, nms_mask_kernel writes as bits which box suppresses which inside the chunk; nms_sweep_kernel, of
// one block, walks the chunk in order and decides which boxes are kept; nms_suppress_kernel strikes, that is marks as
// suppressed, the boxes of later chunks that those suppress. So memory is O(n + kNmsChunk^2 bits), and no step waits
// for the host. Pairs of different classes are skipped one tile or one group of rows at a time, since the boxes of a
// class are contiguous.
#pragma once

#include "common/block.cuh"
#include "common/vector.cuh"
#include "nms/nms.h"

namespace retina_ops {

constexpr int kNmsTile = 64;     // boxes per word of the mask
constexpr int kNmsChunk = 4096;  // boxes per chunk
constexpr int kNmsWords = kNmsChunk / kNmsTile;
constexpr int kNmsThreads = 256;

// Sorted boxes of a call. Bit arrays have one bit per box; bits past n are never read.
template <class A>
struct NmsBoxes {
  Box<A>* boxes;     // [n]
  int64_t* classes;  // [n], or null: all of one class
  uint32_t* struck;  // [ceil(n / 32)] suppressed, or of a NaN score
  uint32_t* kept;    // [ceil(n / 32)]
  int64_t n;
  A threshold;
};

// Box i of the sorted order is input box order[rank[i]] (order[i] where rank is null), for boxes [first, n).
// launch: one thread per box, kNmsThreads per block.
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

// Writes mask, [kNmsWords, stride]: for each tile of columns of the chunk at `begin` one word per row, one bit per
// column. Rows before the tile: the columns that the row suppresses. Rows of the tile itself: the columns, all earlier
// than the row, that suppress the row. Rows after the tile are not written and never read.
// launch: tiles * kNmsWords blocks of kNmsTile; those under the diagonal return at once.
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
  // The row tile is full unless it is also the column tile.
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
  const int64_t row_class = has_classes ? sorted.classes[row] : 0;
  const bool is_own = row_tile == column_tile;
  const int64_t columns_left = sorted.n - first_column;
  const int tile_columns = static_cast<int>(columns_left < kNmsTile ? columns_left : kNmsTile);
  // A row that an earlier chunk has struck suppresses nothing.
  const bool is_struck = (sorted.struck[row / 32] >> (row % 32) & 1) != 0;
  const int count = is_struck ? 0 : is_own ? thread : tile_columns;
  uint64_t bits = 0;
  for (int i = 0; i < count; ++i) {
    const bool is_hit =
        classes[i] == row_class && (is_own ? suppresses(columns[i], areas[i], box, area, sorted.threshold)
                                           : suppresses(box, area, columns[i], areas[i], sorted.threshold));
    bits |= is_hit ? uint64_t(1) << i : uint64_t(0);
  }
  *word = bits;
}

// A word, equal in all lanes, whose bit `lane` is that lane's `low` and whose bit `lane + 32` is its `high`.
__device__ __forceinline__ uint64_t both_bits(bool low, bool high) {
  return __ballot_sync(kFullWarp, low) | static_cast<uint64_t>(__ballot_sync(kFullWarp, high)) << 32;
}

// The boxes of a tile that are kept. alive: those that no earlier tile suppresses; by_low, by_high: the boxes of the
// tile that suppress boxes `lane` and `lane + 32`. All lanes of the warp call it together. A round keeps every box
// whose earlier suppressors are all suppressed. Rounds needed: the length of the longest dependency chain.
__device__ __forceinline__ uint64_t kept_of_tile(uint64_t alive, uint64_t by_low, uint64_t by_high) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  uint64_t kept = 0;
  while (alive != 0) {
    const bool low = (alive >> lane & 1) != 0, high = (alive >> (lane + 32) & 1) != 0;
    const uint64_t not_suppressed = alive | kept;
    kept |= both_bits(low && (by_low & not_suppressed) == 0, high && (by_high & not_suppressed) == 0);
    alive &= ~(kept | both_bits(low && (by_low & kept) != 0, high && (by_high & kept) != 0));
  }
  return kept;
}

// Decides which boxes of the chunk at `begin` are kept, tile after tile: a box that is not struck is kept and strikes
// the boxes in its row of the mask. Each thread has every kNmsThreads-th row of the chunk in registers, one word of
// each: it reads the words of the next tile while every warp resolves the current tile for itself. This takes one
// barrier per tile. launch: one block of kNmsThreads.
template <class A>
__global__ void __launch_bounds__(kNmsThreads)
    nms_sweep_kernel(NmsBoxes<A> sorted, int64_t begin, const uint64_t* mask, int stride) {
  constexpr int kWarps = kNmsThreads / kWarpSize;
  constexpr int kRows = kNmsChunk / kNmsThreads;  // per thread
  constexpr int kTiles = kNmsThreads / kNmsTile;  // from one row of a thread to the next
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
  // Reads word w of the thread's rows that come before tile w, and of the tile's own rows `lane` and `lane + 32`.
  const auto read_tile = [&](int w) {
    const uint64_t* tile = mask + static_cast<int64_t>(w) * stride;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int row = k * kNmsThreads + thread;
      rows[k] = row < w * kNmsTile ? tile[row] : uint64_t(0);
    }
    by_low = w * kNmsTile + lane < count ? tile[w * kNmsTile + lane] : 0;
    by_high = w * kNmsTile + lane + 32 < count ? tile[w * kNmsTile + lane + 32] : 0;
  };
  unsigned kept_rows = 0;  // bit k: row k * kNmsThreads + thread is kept
  read_tile(0);
  for (int w = 0; w < words; ++w) {
    uint64_t struck_by_rows = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) struck_by_rows |= (kept_rows >> k & 1u) != 0 ? rows[k] : uint64_t(0);
    const uint64_t low = by_low, high = by_high;
    if (w + 1 < words) read_tile(w + 1);
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
      struck_by_rows |= __shfl_xor_sync(kFullWarp, struck_by_rows, offset);
    }
    if (lane == 0) strikes[w % 2][thread / kWarpSize] = struck_by_rows;
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

// Strikes the boxes from `end`, the chunk's end, on that the kept boxes of the chunk at `begin` suppress. A block
// computes kNmsThreads columns and as many rows, of which it gathers the kept ones into shared memory.
// launch: ceil((n - end) / kNmsThreads) * kNmsChunk / kNmsThreads blocks of kNmsThreads.
template <class A>
__global__ void __launch_bounds__(kNmsThreads) nms_suppress_kernel(NmsBoxes<A> sorted, int64_t begin, int64_t end) {
  constexpr int kGroups = kNmsChunk / kNmsThreads;  // of rows
  RETINA_OPS_SHARED(Box<A>[kNmsThreads], rows);
  RETINA_OPS_SHARED(A[kNmsThreads], areas);
  RETINA_OPS_SHARED(int64_t[kNmsThreads], classes);
  RETINA_OPS_SHARED(int[kNmsThreads / kWarpSize], kept_of_warp);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const bool has_classes = sorted.classes != nullptr;
  const int64_t first_column = end + static_cast<int64_t>(blockIdx.x) / kGroups * kNmsThreads;
  const int64_t row = begin + static_cast<int64_t>(blockIdx.x) % kGroups * kNmsThreads + thread;
  if (has_classes && sorted.classes[row - thread + kNmsThreads - 1] < sorted.classes[first_column]) return;
  const bool is_kept = (sorted.kept[row / 32] >> (row % 32) & 1) != 0;
  const unsigned kept_lanes = __ballot_sync(kFullWarp, is_kept);
  if (lane == 0) kept_of_warp[thread / kWarpSize] = __popc(kept_lanes);
  __syncthreads();
  int place = __popc(kept_lanes & ((1u << lane) - 1u)), count = 0;
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
  const bool in_range = column < sorted.n;
  // Other blocks write the same word at the same time, so it is read by an atomic operation.
  unsigned before = 0;
  if (in_range && lane == 0) before = atomicOr(&sorted.struck[column / 32], 0u);
  before = __shfl_sync(kFullWarp, before, 0);
  const Box<A> box = in_range ? sorted.boxes[column] : Box<A>{A(0), A(0), A(0), A(0)};
  const A area = box_area(box);
  const int64_t column_class = in_range && has_classes ? sorted.classes[column] : 0;
  const bool was_struck = !in_range || (before >> lane & 1u) != 0;
  bool is_struck = was_struck;
  for (int i = 0; i < count && !is_struck; ++i) {
    is_struck = classes[i] == column_class && suppresses(rows[i], areas[i], box, area, sorted.threshold);
  }
  const unsigned word = __ballot_sync(kFullWarp, is_struck && !was_struck);
  if (lane == 0 && word != 0) atomicOr(&sorted.struck[column / 32], word);
}

// Moves the kept bits [first, n) from the order by class to the order by score: sets bit rank[i] of by_score
// where bit i of `kept` is set. by_score: [ceil(n / 32)] zero before. launch: one thread per box.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    nms_scatter_kernel(const uint32_t* kept, const int64_t* rank, int64_t first, int64_t n, uint32_t* by_score) {
  const int64_t i = first + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n || (kept[i / 32] >> (i % 32) & 1) == 0) return;
  atomicOr(&by_score[rank[i] / 32], 1u << (rank[i] % 32));
}

// Writes the input indices of the kept boxes of [first, n) in order, then -1, and their count.
// kept: [ceil(n / 32)] in order of score; order: [n]; output: [max_output]; count: []. first and kThreads are
// multiples of 32. A thread has one box; each block counts for itself how many boxes are kept before its own.
// launch: one thread per box, at least one block.
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
  const int64_t first_word = (i - thread) / 32;  // of this block
  unsigned long long before = 0, total = 0;
  for (int64_t at = first / 32 + thread; at < all_words; at += kThreads) {
    const unsigned bits = static_cast<unsigned>(__popc(kept[at]));
    total += bits;
    before += at < first_word ? bits : 0u;
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
  const uint32_t word = words[thread / kWarpSize];
  position += __popc(word & ((1u << lane) - 1u));
  if ((word >> lane & 1u) != 0 && position < max_output) output[position] = order[i];
  const int64_t written = sums[1] < max_output ? sums[1] : max_output;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = written + static_cast<int64_t>(blockIdx.x) * kThreads + thread; at < max_output; at += stride) {
    output[at] = -1;
  }
  if (i == first) *count = written;
}

}  // namespace retina_ops
