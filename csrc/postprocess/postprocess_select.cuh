// The best candidates of each level and image on CUDA. No torch.
//
// A slab is a level of an image: its logits lie one after the other, whatever their order. Floor: one read of the
// logits. postprocess_collect_kernel reads them against a bound in logits and writes the candidates that pass into the
// slab's buffer of `capacity` >= 2 topk. Where they fit, as they do in a trained network's outputs, that is all.
// Where they do not, radix selection: postprocess_narrow_kernel counts, digit by digit, the keys that share the digits
// found so far, and the last block of a slab takes the digit in which the topk-th key lies, until the candidates from
// there on fit; then the collecting kernel reads once more. Keys are distinct (their low bits are the place), so ties
// need nothing of their own and some digit always ends it. Blocks of slabs that are done return at once.
// Memory: capacity keys and kPostprocessBins counts a slab.
#pragma once

#include "common/vector.cuh"
#include "postprocess/postprocess.h"

namespace retina_ops {

constexpr int kPostprocessThreads = 256;
constexpr int kPostprocessDigitBits = 11;
constexpr int kPostprocessBins = 1 << kPostprocessDigitBits;
constexpr int kPostprocessStrip = 16384;  // logits of a slab that a block reads
constexpr int kPostprocessStaged = 512;   // candidates of a block that are collected without reading twice

// What is known of a slab.
template <class S>
struct SlabState {
  KeyOf<S> least;   // candidates from this key on are collected
  unsigned found;   // candidates that wanted to be collected: more than the capacity where they did not fit
  unsigned before;  // keys known to come before those that share `least`'s digits
  unsigned blocks;  // that have counted the digit at hand
  unsigned digits;  // of `least` that are found
  bool is_open;     // candidates did not fit, and digits must be found
};

// What the kernels share. T: dtype of the logits. Slabs are numbered image * levels + level.
template <class T>
struct PostprocessScan {
  using S = ArithmeticOf<T>;
  HeadLevels logits;
  int64_t first_image;          // images [first_image, batch) are taken: 0 but in tests of large indices
  unsigned strips[kMaxLevels];  // blocks of an image's level
  unsigned image_strips;        // their sum
  SlabState<S>* states;         // [batch, levels] zero before
  KeyOf<S>* keys;               // [batch, levels, capacity]
  unsigned* bins;               // [batch, levels, kPostprocessBins] zero before
  unsigned capacity;
  unsigned topk;
  S bound;      // a logit under this is under the threshold
  S threshold;  // a score up to this is no candidate
};

// A block's part of a slab.
template <class T>
struct PostprocessStrip {
  int64_t slab;
  int level;
  const T* logits;  // [size] of the slab
  int64_t size;
  int64_t begin, end;  // offsets in the slab
  unsigned blocks;     // of the slab
};

template <class T>
__device__ __forceinline__ PostprocessStrip<T> strip_of(const PostprocessScan<T>& a) {
  PostprocessStrip<T> strip;
  const int64_t image = a.first_image + blockIdx.x / a.image_strips;
  unsigned number = blockIdx.x % a.image_strips;
  strip.level = 0;
  while (number >= a.strips[strip.level]) number -= a.strips[strip.level++];
  const HeadLevel& level = a.logits.level[strip.level];
  strip.slab = image * a.logits.count + strip.level;
  strip.size = level.anchors() * a.logits.channels;
  strip.logits = static_cast<const T*>(level.values) + image * strip.size;
  strip.begin = static_cast<int64_t>(number) * kPostprocessStrip;
  strip.end = strip.begin + kPostprocessStrip < strip.size ? strip.begin + kPostprocessStrip : strip.size;
  strip.blocks = a.strips[strip.level];
  return strip;
}

// Calls body(key) for each candidate of the strip. The slab may begin anywhere: 16-byte accesses begin at the first
// address that allows them, so a block's part is moved by up to a pack, and the slab's ends are read one by one.
template <class T, class Body>
__device__ __forceinline__ void for_each_candidate(const PostprocessScan<T>& a, const PostprocessStrip<T>& strip,
                                                   const Body& body) {
  using S = ArithmeticOf<T>;
  constexpr int kPack = 16 / static_cast<int>(sizeof(T));
  const auto lead = static_cast<int64_t>(reinterpret_cast<uintptr_t>(strip.logits) % 16 / sizeof(T));
  // The last strip takes what the move leaves over.
  const int64_t end = strip.end == strip.size ? strip.size : strip.end - lead;
  const HeadLevel& level = a.logits.level[strip.level];
  const auto channels = static_cast<uint32_t>(a.logits.channels);
  for (int64_t at = strip.begin - lead + static_cast<int64_t>(threadIdx.x) * kPack; at < end;
       at += kPostprocessThreads * kPack) {
    unsigned passing = 0;
    if (at >= 0) {
      S logits[kPack];
      load_pack(strip.logits + at, end - at, true, logits);
#pragma unroll
      for (int i = 0; i < kPack; ++i) passing |= logits[i] >= a.bound && at + i < end ? 1u << i : 0u;
    } else {
      for (int i = static_cast<int>(lead); i < kPack && at + i < end; ++i) {
        passing |= to_arithmetic(strip.logits[at + i]) >= a.bound ? 1u << i : 0u;
      }
    }
    // Few pass: they are read once more, so that the code of a score stands here once.
    for (; passing != 0; passing &= passing - 1) {
      const int64_t offset = at + __ffs(static_cast<int>(passing)) - 1;
      const S score = score_of(to_arithmetic(strip.logits[offset]));
      if (score > a.threshold) body(key_of(score, place_of(level, static_cast<uint32_t>(offset), channels)));
    }
  }
}

// Writes the slabs' candidates from `least` on into `keys`, in any order; counts them in `found`.
// again: only of slabs whose candidates did not fit at first. launch: a block a strip of all slabs.
template <class T>
__global__ void __launch_bounds__(kPostprocessThreads, 4) postprocess_collect_kernel(PostprocessScan<T> a, bool again) {
  using S = ArithmeticOf<T>;
  RETINA_OPS_SHARED(KeyOf<S>[kPostprocessStaged], staged);
  RETINA_OPS_SHARED(unsigned, count);
  RETINA_OPS_SHARED(unsigned, start);
  const PostprocessStrip<T> strip = strip_of(a);
  SlabState<S>& state = a.states[strip.slab];
  if (again && state.digits == 0) return;
  const KeyOf<S> least = state.least;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for_each_candidate(a, strip, [&](KeyOf<S> key) {
    if (key < least) return;
    const unsigned position = atomicAdd(&count, 1u);
    if (position < kPostprocessStaged) staged[position] = key;
  });
  __syncthreads();
  const unsigned total = count;
  if (total == 0) return;
  if (threadIdx.x == 0) start = atomicAdd(&state.found, total);
  __syncthreads();
  if (start + total > a.capacity) return;
  KeyOf<S>* to = a.keys + strip.slab * a.capacity + start;
  if (total <= kPostprocessStaged) {
    for (unsigned i = threadIdx.x; i < total; i += kPostprocessThreads) to[i] = staged[i];
    return;
  }
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for_each_candidate(a, strip, [&](KeyOf<S> key) {
    if (key >= least) to[atomicAdd(&count, 1u)] = key;
  });
}

// The lowest bit of digit number `digit` of a key, from the highest.
template <class S>
__device__ __forceinline__ int digit_shift(int digit) {
  const int shift = CandidateKey<S>::kBits - kPostprocessDigitBits * (digit + 1);
  return shift > 0 ? shift : 0;
}

// Finds in which digit the topk-th key lies, from the counts of this digit; leaves the bins zero. All threads call it.
// bins: [kPostprocessBins] of the slab; counts: as many, shared, to work in.
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

// Counts digit number `digit` of the keys that share the digits found so far, in slabs that are open. digit 0: opens
// those whose candidates did not fit. launch: a block a strip of all slabs.
template <class T>
__global__ void __launch_bounds__(kPostprocessThreads) postprocess_narrow_kernel(PostprocessScan<T> a, int digit) {
  using S = ArithmeticOf<T>;
  RETINA_OPS_SHARED(unsigned[kPostprocessBins], counts);
  RETINA_OPS_SHARED(bool, is_last);
  const PostprocessStrip<T> strip = strip_of(a);
  SlabState<S>& state = a.states[strip.slab];
  if (digit == 0 ? state.found <= a.capacity : !state.is_open) return;
  for (int i = static_cast<int>(threadIdx.x); i < kPostprocessBins; i += kPostprocessThreads) counts[i] = 0;
  __syncthreads();
  const int shift = digit_shift<S>(digit);
  const int above = digit == 0 ? CandidateKey<S>::kBits : digit_shift<S>(digit - 1);
  const KeyOf<S> shared_digits = state.least >> above;
  const auto mask = static_cast<unsigned>((1u << (above - shift)) - 1u);
  for_each_candidate(a, strip, [&](KeyOf<S> key) {
    if (key >> above == shared_digits) atomicAdd(&counts[static_cast<unsigned>(key >> shift) & mask], 1u);
  });
  __syncthreads();
  unsigned* bins = a.bins + strip.slab * kPostprocessBins;
  for (int i = static_cast<int>(threadIdx.x); i < kPostprocessBins; i += kPostprocessThreads) {
    if (counts[i] != 0) atomicAdd(&bins[i], counts[i]);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(&state.blocks, 1u) == strip.blocks - 1u;
    __threadfence();  // the other blocks' counts are read after theirs
  }
  __syncthreads();
  if (!is_last) return;
  choose_digit(state, bins, counts, a.topk, a.capacity, digit);
}

}  // namespace retina_ops
