// The best candidates of each level and image on CUDA. No torch.
//
// A slab is one level of one image. Its logits are contiguous, in either memory format. Lower bound: one read of the
// logits. postprocess_collect_kernel reads them, compares them with a bound, and writes the candidates above it into
// the slab's buffer, whose `capacity` is at least 2 topk. If they fit, as for the outputs of a trained network, that is
// all. If they do not, radix selection follows. postprocess_narrow_kernel counts the keys by one digit at a time, among
// the keys that share the digits found so far; the last block of a slab chooses the digit that the topk-th key has.
// When the candidates from this digit on fit, the collecting kernel reads the logits once more. Keys are distinct,
// since their low bits are the place of the logit: ties need no rule of their own, and the selection always ends.
// Blocks of slabs that are done return at once. Memory: capacity keys and kPostprocessBins counts per slab.
#pragma once

#include "common/head_levels.cuh"
#include "common/vector.cuh"
#include "postprocess/postprocess.h"

namespace retina_ops {

constexpr int kPostprocessThreads = 256;
constexpr int kPostprocessDigitBits = 11;
constexpr int kPostprocessBins = 1 << kPostprocessDigitBits;
constexpr int kPostprocessStrip = 16384;  // logits that a block reads, all of one slab
constexpr int kPostprocessStaged = 512;   // candidates that a block holds in shared memory; it reads twice for more

// The state of the selection in a slab.
template <class S>
struct SlabState {
  KeyOf<S> least;   // keys from this one on are collected
  unsigned found;   // number of those keys; above the capacity, they did not fit
  unsigned before;  // keys that are known to be larger than those that share the digits of `least`
  unsigned blocks;  // blocks that have counted the current digit
  unsigned digits;  // digits of `least` that are found
  bool is_open;     // the candidates did not fit, and another digit must be found
};

// Arguments that the kernels share. T: dtype of the logits. Slabs are numbered image * levels + level.
template <class T>
struct PostprocessScan {
  using S = ArithmeticOf<T>;
  HeadLevels logits;
  int64_t first_image;          // images [first_image, batch) are computed
  unsigned strips[kMaxLevels];  // blocks per level of an image
  unsigned image_strips;        // their sum
  SlabState<S>* states;         // [batch, levels] zero before
  KeyOf<S>* keys;               // [batch, levels, capacity]
  unsigned* bins;               // [batch, levels, kPostprocessBins] zero before
  unsigned capacity;
  unsigned topk;
  S bound;      // a logit below this has a score below the threshold
  S threshold;  // candidates have scores above this
};

// The part of a slab that a block reads.
template <class T>
struct PostprocessStrip {
  int64_t slab;
  int level;
  const T* logits;  // [size], of the slab
  int64_t size;
  int64_t begin, end;  // offsets in the slab
  unsigned blocks;     // of the slab
};

template <class T>
__device__ __forceinline__ PostprocessStrip<T> strip_of(const PostprocessScan<T>& args) {
  PostprocessStrip<T> strip;
  const int64_t image = args.first_image + blockIdx.x / args.image_strips;
  unsigned number = blockIdx.x % args.image_strips;
  strip.level = 0;
  while (number >= args.strips[strip.level]) number -= args.strips[strip.level++];
  const HeadLevel& level = args.logits.level[strip.level];
  strip.slab = image * args.logits.count + strip.level;
  strip.size = level.anchors() * args.logits.channels;
  strip.logits = static_cast<const T*>(level.values) + image * strip.size;
  strip.begin = static_cast<int64_t>(number) * kPostprocessStrip;
  strip.end = strip.begin + kPostprocessStrip < strip.size ? strip.begin + kPostprocessStrip : strip.size;
  strip.blocks = args.strips[strip.level];
  return strip;
}

// Calls body(key) for each candidate of the strip. The slab may begin at any address. 16-byte accesses need an aligned
// one, so each block's part begins up to one pack before its strip, and the ends of the slab are read one by one.
template <class T, class Body>
__device__ __forceinline__ void for_each_candidate(const PostprocessScan<T>& args, const PostprocessStrip<T>& strip,
                                                   const Body& body) {
  using S = ArithmeticOf<T>;
  constexpr int kPack = 16 / static_cast<int>(sizeof(T));
  const auto lead = static_cast<int64_t>(reinterpret_cast<uintptr_t>(strip.logits) % 16 / sizeof(T));
  // The last strip also reads the elements that the other strips leave over.
  const int64_t end = strip.end == strip.size ? strip.size : strip.end - lead;
  const HeadLevel& level = args.logits.level[strip.level];
  const auto channels = static_cast<uint32_t>(args.logits.channels);
  for (int64_t at = strip.begin - lead + static_cast<int64_t>(threadIdx.x) * kPack; at < end;
       at += kPostprocessThreads * kPack) {
    unsigned passing = 0;
    if (at >= 0) {
      S logits[kPack];
      load_pack(strip.logits + at, end - at, true, logits);
#pragma unroll
      for (int i = 0; i < kPack; ++i) passing |= logits[i] >= args.bound && at + i < end ? 1u << i : 0u;
    } else {
      for (int i = static_cast<int>(lead); i < kPack && at + i < end; ++i) {
        passing |= to_arithmetic(strip.logits[at + i]) >= args.bound ? 1u << i : 0u;
      }
    }
    // Few logits pass. They are read again, so that the code of the score is generated only once.
    for (; passing != 0; passing &= passing - 1) {
      const int64_t offset = at + __ffs(static_cast<int>(passing)) - 1;
      const S score = score_of(to_arithmetic(strip.logits[offset]));
      if (score > args.threshold) body(key_of(score, place_of(level, static_cast<uint32_t>(offset), channels)));
    }
  }
}

// Writes the candidates of each slab from `least` on into `keys`, in any order, and counts them in `found`.
// again: only slabs whose candidates did not fit at first. launch: one block per strip of all slabs.
template <class T>
__global__ void __launch_bounds__(kPostprocessThreads, 4)
    postprocess_collect_kernel(PostprocessScan<T> args, bool again) {
  using S = ArithmeticOf<T>;
  RETINA_OPS_SHARED(KeyOf<S>[kPostprocessStaged], staged);
  RETINA_OPS_SHARED(unsigned, count);
  RETINA_OPS_SHARED(unsigned, start);
  const PostprocessStrip<T> strip = strip_of(args);
  SlabState<S>& state = args.states[strip.slab];
  if (again && state.digits == 0) return;
  const KeyOf<S> least = state.least;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for_each_candidate(args, strip, [&](KeyOf<S> key) {
    if (key < least) return;
    const unsigned position = atomicAdd(&count, 1u);
    if (position < kPostprocessStaged) staged[position] = key;
  });
  __syncthreads();
  const unsigned total = count;
  if (total == 0) return;
  if (threadIdx.x == 0) start = atomicAdd(&state.found, total);
  __syncthreads();
  if (start + total > args.capacity) return;
  KeyOf<S>* to = args.keys + strip.slab * args.capacity + start;
  if (total <= kPostprocessStaged) {
    for (unsigned i = threadIdx.x; i < total; i += kPostprocessThreads) to[i] = staged[i];
    return;
  }
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for_each_candidate(args, strip, [&](KeyOf<S> key) {
    if (key >= least) to[atomicAdd(&count, 1u)] = key;
  });
}

// The lowest bit of a digit of a key. Digits are numbered from the highest.
template <class S>
__device__ __forceinline__ int digit_shift(int digit) {
  const int shift = CandidateKey<S>::kBits - kPostprocessDigitBits * (digit + 1);
  return shift > 0 ? shift : 0;
}

// Finds the value of digit `digit` of the topk-th key from the counts of this digit, and sets the bins to zero. All
// threads of the block call it. bins: [kPostprocessBins] of the slab; counts: [kPostprocessBins] shared workspace.
template <class S>
__device__ __forceinline__ void choose_digit(SlabState<S>& state, unsigned* bins, unsigned* counts, unsigned topk,
                                             unsigned capacity, int digit) {
  constexpr int kEach = kPostprocessBins / kPostprocessThreads;
  RETINA_OPS_SHARED(unsigned[kPostprocessThreads], sums);
  const int thread = static_cast<int>(threadIdx.x);
  unsigned sum = 0;
  for (int i = 0; i < kEach; ++i) {
    const unsigned value = bins[thread * kEach + i];
    counts[thread * kEach + i] = value;
    bins[thread * kEach + i] = 0;
    sum += value;
  }
  sums[thread] = sum;
  __syncthreads();
  if (thread != 0) return;
  unsigned before = state.before;
  int group = kPostprocessThreads - 1;
  while (group > 0 && before + sums[group] < topk) before += sums[group--];
  int bin = kEach * group + kEach - 1;
  while (bin > kEach * group && before + counts[bin] < topk) before += counts[bin--];
  state.least |= static_cast<KeyOf<S>>(static_cast<unsigned>(bin)) << digit_shift<S>(digit);
  state.before = before;
  state.blocks = 0;
  state.digits = static_cast<unsigned>(digit) + 1;
  state.is_open = before + counts[bin] > capacity;
  state.found = 0;
}

// Counts digit `digit` of the keys that share the digits found so far, in slabs that are open. Digit 0 opens the slabs
// whose candidates did not fit. launch: one block per strip of all slabs.
template <class T>
__global__ void __launch_bounds__(kPostprocessThreads) postprocess_narrow_kernel(PostprocessScan<T> args, int digit) {
  using S = ArithmeticOf<T>;
  RETINA_OPS_SHARED(unsigned[kPostprocessBins], counts);
  RETINA_OPS_SHARED(bool, is_last);
  const PostprocessStrip<T> strip = strip_of(args);
  SlabState<S>& state = args.states[strip.slab];
  if (digit == 0 ? state.found <= args.capacity : !state.is_open) return;
  for (int i = static_cast<int>(threadIdx.x); i < kPostprocessBins; i += kPostprocessThreads) counts[i] = 0;
  __syncthreads();
  const int shift = digit_shift<S>(digit);
  const int above = digit == 0 ? CandidateKey<S>::kBits : digit_shift<S>(digit - 1);
  const KeyOf<S> shared_digits = state.least >> above;
  const auto mask = static_cast<unsigned>((1u << (above - shift)) - 1u);
  for_each_candidate(args, strip, [&](KeyOf<S> key) {
    if (key >> above == shared_digits) atomicAdd(&counts[static_cast<unsigned>(key >> shift) & mask], 1u);
  });
  __syncthreads();
  unsigned* bins = args.bins + strip.slab * kPostprocessBins;
  for (int i = static_cast<int>(threadIdx.x); i < kPostprocessBins; i += kPostprocessThreads) {
    if (counts[i] != 0) atomicAdd(&bins[i], counts[i]);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(&state.blocks, 1u) == strip.blocks - 1u;
    __threadfence();  // the other blocks' counts are read after their increments
  }
  __syncthreads();
  if (!is_last) return;
  choose_digit(state, bins, counts, args.topk, args.capacity, digit);
}

}  // namespace retina_ops
