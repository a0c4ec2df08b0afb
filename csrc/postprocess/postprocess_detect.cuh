// From each level's candidates to the detections of an image, on CUDA. No torch.
//
// Sorting: one block per slab, bitonic, in shared memory if the capacity allows. Decoding: one thread per candidate,
// which finds its rank among all levels by binary searches in the sorted keys of the other levels. Suppression: one
// block per image processes its candidates in order, a tile of kNmsTile at a time: all threads compare the tile with
// the detections kept so far and with itself, then one thread walks the bits of the tile. It stops at the last
// detection that is asked for. It needs no matrix of all pairs: memory is O(batch levels topk), and most of it is never
// touched. Bound: latency, a few microseconds per tile.
#pragma once

#include "nms/nms_kernels.cuh"
#include "postprocess/postprocess_select.cuh"

namespace retina_ops {

constexpr int kPostprocessSortThreads = 512;

// Arguments that the kernels share. A: type of the boxes; S: of the scores. C = levels * topk.
template <class A, class S>
struct PostprocessDetect {
  HeadLevels deltas;
  int64_t classes;
  int64_t first_image;         // images [first_image, batch) are computed
  const SlabState<S>* states;  // [batch, levels]
  const KeyOf<S>* keys;        // [batch, levels, capacity], sorted
  unsigned capacity;
  unsigned topk;
  const A* anchors;      // [anchors of an image, 4]
  const A* image_sizes;  // [batch, 2]
  BoxCoding<A> coding;   // without the borders of the image
  A nms_threshold;
  int64_t detections;          // D
  Box<A>* candidates;          // [batch, C] in order of score
  S* candidate_scores;         // [batch, C]
  int32_t* candidate_labels;   // [batch, C]
  int64_t* candidate_indices;  // [batch, C]: of the anchor, among those of all levels
  Box<A>* boxes;               // [batch, D]
  S* scores;                   // [batch, D]
  int64_t* labels;             // [batch, D]
  int64_t* counts;             // [batch]
  int64_t* indices;            // [batch, D]
};

// Sorts the keys of each slab, largest first. keys: [slabs, capacity], capacity a power of two. kInShared: the block
// has dynamic shared memory for capacity keys. launch: one block per slab, from first_slab on.
template <class S, bool kInShared>
__global__ void __launch_bounds__(kPostprocessSortThreads)
    postprocess_sort_kernel(const SlabState<S>* states, KeyOf<S>* keys, unsigned capacity, int64_t first_slab) {
  RETINA_OPS_DYNAMIC_SHARED(KeyOf<S>, shared);
  const int64_t slab = first_slab + blockIdx.x;
  const unsigned count = states[slab].found;
  KeyOf<S>* own = keys + slab * capacity;
  KeyOf<S>* sorted = kInShared ? shared : own;
  unsigned width = 1;
  while (width < count) width *= 2;
  for (unsigned i = threadIdx.x; i < width; i += kPostprocessSortThreads) {
    if (kInShared || i >= count) sorted[i] = i < count ? own[i] : KeyOf<S>(0);
  }
  __syncthreads();
  for (unsigned run = 2; run <= width; run *= 2) {
    for (unsigned stride = run / 2; stride > 0; stride /= 2) {
      for (unsigned i = threadIdx.x; i < width / 2; i += kPostprocessSortThreads) {
        const unsigned low = 2 * i - (i & (stride - 1));
        const unsigned high = low + stride;
        const KeyOf<S> a = sorted[low];
        const KeyOf<S> b = sorted[high];
        if ((a < b) == ((low & run) == 0)) {
          sorted[low] = b;
          sorted[high] = a;
        }
      }
      __syncthreads();
    }
  }
  if constexpr (kInShared) {
    for (unsigned i = threadIdx.x; i < count; i += kPostprocessSortThreads) own[i] = sorted[i];
  }
}

template <class S>
__device__ __forceinline__ unsigned candidates_of(const SlabState<S>& state, unsigned topk) {
  return state.found < topk ? state.found : topk;
}

// The number of keys [0, count), sorted largest first, that are at least `bound`.
template <class Key>
__device__ __forceinline__ unsigned keys_from(const Key* keys, unsigned count, Key bound) {
  unsigned low = 0;
  while (low < count) {
    const unsigned middle = (low + count) / 2;
    if (keys[middle] >= bound) {
      low = middle + 1;
    } else {
      count = middle;
    }
  }
  return low;
}

// Writes the box, score, label and anchor of each candidate at its rank among the candidates of the image.
// launch: `blocks` blocks per slab, one thread per candidate.
template <class A, class S>
__global__ void __launch_bounds__(kPostprocessThreads)
    postprocess_decode_kernel(PostprocessDetect<A, S> args, unsigned blocks) {
  const int64_t slab = args.first_image * args.deltas.count + blockIdx.x / blocks;
  const unsigned position = blockIdx.x % blocks * kPostprocessThreads + threadIdx.x;
  if (position >= candidates_of(args.states[slab], args.topk)) return;
  const int64_t image = slab / args.deltas.count;
  const int level = static_cast<int>(slab - image * args.deltas.count);
  const KeyOf<S> key = args.keys[slab * args.capacity + position];
  // Equal scores of earlier levels come first. A key of this score and no place is less than all of them.
  const KeyOf<S> score_alone = key >> 32 << 32;
  unsigned rank = position;
  for (int other = 0; other < args.deltas.count; ++other) {
    if (other == level) continue;
    const int64_t other_slab = slab - level + other;
    rank += keys_from(args.keys + other_slab * args.capacity, candidates_of(args.states[other_slab], args.topk),
                      other < level ? score_alone : score_alone + (KeyOf<S>(1) << 32));
  }
  const int64_t place = place_of_key<S>(key);
  const int64_t anchor = place / args.classes;
  const int64_t to = image * args.deltas.count * args.topk + rank;
  args.candidates[to] = candidate_box<A, FusedMath>(args.deltas.level[level], args.deltas.dtype, args.anchors,
                                                    args.image_sizes, args.coding, image, anchor);
  args.candidate_scores[to] = score_of_key<S>(key);
  args.candidate_labels[to] = static_cast<int32_t>(place - anchor * args.classes);
  args.candidate_indices[to] = args.deltas.level[level].first_anchor + anchor;
}

// Greedy suppression in each class, and the outputs. launch: one block per image.
template <class A, class S>
__global__ void __launch_bounds__(kPostprocessThreads) postprocess_nms_kernel(PostprocessDetect<A, S> args) {
  constexpr int kWarps = kPostprocessThreads / kWarpSize;
  constexpr int kGroups = kPostprocessThreads / kNmsTile;  // threads that share one candidate of the tile
  RETINA_OPS_SHARED(Box<A>[kNmsTile], tile);
  RETINA_OPS_SHARED(A[kNmsTile], areas);
  RETINA_OPS_SHARED(int32_t[kNmsTile], tile_labels);
  RETINA_OPS_SHARED(uint32_t[2 * kNmsTile], strikes);  // two words per row: the later rows that it suppresses
  RETINA_OPS_SHARED(uint32_t[kWarps], struck);         // suppressed by earlier detections, or past the end
  RETINA_OPS_SHARED(uint64_t, kept);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarpSize;
  const int lane = thread % kWarpSize;
  const int64_t image = args.first_image + blockIdx.x;
  int64_t total = 0;
  for (int l = 0; l < args.deltas.count; ++l)
    total += candidates_of(args.states[image * args.deltas.count + l], args.topk);
  const int64_t first = image * args.deltas.count * args.topk;
  Box<A>* boxes = args.boxes + image * args.detections;
  S* scores = args.scores + image * args.detections;
  int64_t* labels = args.labels + image * args.detections;
  int64_t* indices = args.indices + image * args.detections;
  int64_t count = 0;
  for (int64_t begin = 0; begin < total && count < args.detections; begin += kNmsTile) {
    const int width = static_cast<int>(total - begin < kNmsTile ? total - begin : kNmsTile);
    if (thread < width) {
      tile[thread] = args.candidates[first + begin + thread];
      areas[thread] = box_area(tile[thread]);
      tile_labels[thread] = args.candidate_labels[first + begin + thread];
    }
    __syncthreads();
    const int column = thread % kNmsTile;
    bool is_struck = column >= width;
    for (int64_t i = thread / kNmsTile; i < count && !is_struck; i += kGroups) {
      if (labels[i] != tile_labels[column]) continue;
      const Box<A> box = boxes[i];
      is_struck = suppresses(box, box_area(box), tile[column], areas[column], args.nms_threshold);
    }
    const uint32_t word = __ballot_sync(kFullWarp, is_struck);
    if (lane == 0) struck[warp] = word;
    for (int part = warp; part < 2 * width; part += kWarps) {
      const int row = part / 2;
      const int after = part % 2 * kWarpSize + lane;
      const bool is_after = after > row && after < width && tile_labels[row] == tile_labels[after];
      const uint32_t bits = __ballot_sync(
          kFullWarp, is_after && suppresses(tile[row], areas[row], tile[after], areas[after], args.nms_threshold));
      if (lane == 0) strikes[part] = bits;
    }
    __syncthreads();
    if (thread == 0) {
      uint64_t alive = ~uint64_t(0);
      for (int w = 0; w < kWarps; ++w) alive &= ~(static_cast<uint64_t>(struck[w]) << (w % 2 * kWarpSize));
      uint64_t chosen = 0;
      for (int64_t left = args.detections - count; alive != 0 && left > 0; --left) {
        const int bit = __ffsll(static_cast<long long>(alive)) - 1;
        const uint64_t row = strikes[2 * bit] | static_cast<uint64_t>(strikes[2 * bit + 1]) << 32;
        chosen |= uint64_t(1) << bit;
        alive &= ~(row | uint64_t(1) << bit);
      }
      kept = chosen;
    }
    __syncthreads();
    const uint64_t chosen = kept;
    if (thread < width && (chosen >> thread & 1) != 0) {
      const uint64_t before = chosen & ((uint64_t(1) << thread) - 1);
      const int64_t to = count + __popc(static_cast<unsigned>(before)) + __popc(static_cast<unsigned>(before >> 32));
      boxes[to] = tile[thread];
      scores[to] = args.candidate_scores[first + begin + thread];
      labels[to] = tile_labels[thread];
      indices[to] = args.candidate_indices[first + begin + thread];
    }
    // No barrier is needed: a thread overwrites its own candidate alone, and the next barrier orders the detections.
    count += __popc(static_cast<unsigned>(chosen)) + __popc(static_cast<unsigned>(chosen >> 32));
  }
  for (int64_t i = count + thread; i < args.detections; i += kPostprocessThreads) {
    boxes[i] = {A(0), A(0), A(0), A(0)};
    scores[i] = S(0);
    labels[i] = -1;
    indices[i] = -1;
  }
  if (thread == 0) args.counts[image] = count;
}

}  // namespace retina_ops
