// One read of the logits bounds it. They are scanned in memory order, whatever that is, against a bound in logits: no
// exponential and no index until one passes. Each strip of a level collects what passes and keeps the best `topk`;
// whenever it has found these, the bound rises to the last of them, for all strips of the level, so that even where
// every score is above the threshold few logits pass. No result depends on when a strip sees the bound, nor on the
// number of threads: a candidate left out is never among the best.
#include "postprocess/postprocess_cpu.h"

#include <algorithm>
#include <atomic>

#include "common/isa.h"
#include "postprocess/postprocess.h"

namespace retina_ops {
namespace {

constexpr int kBlock = 64;             // logits compared before the first look at what passed
constexpr int64_t kChunk = 8192;       // logits scanned with one bound
constexpr int64_t kStrip = 64 * 4096;  // logits of a level that a thread takes at once
constexpr size_t kSlack = 4096;        // candidates beyond topk that are collected before the best are kept

// The logits of [begin, begin + count) at least `bound`, and their offsets in the level's memory of an image, which
// begins at `first`. logits, offsets: [count].
template <class S>
RETINA_OPS_HOST_DEVICE size_t scan_in(const void* values, Dtype dtype, int64_t first, int64_t begin, int64_t count,
                                      S bound, S* logits, uint32_t* offsets) {
  size_t found = 0;
  alignas(64) S converted[kBlock];
  for (int64_t at = begin; at < begin + count; at += kBlock) {
    const int width = begin + count - at < kBlock ? static_cast<int>(begin + count - at) : kBlock;
    const S* block = static_cast<const S*>(values) + first + at;
    if (width < kBlock || (sizeof(S) == sizeof(float) && dtype != Dtype::kFloat32)) {
      load_block<kBlock>(values, dtype, first + at, converted, width);
      block = converted;
    }
    int any = 0;
    for (int i = 0; i < kBlock; ++i) any |= block[i] >= bound ? 1 : 0;
    if (any == 0) continue;
    for (int i = 0; i < width; ++i) {
      logits[found] = block[i];
      offsets[found] = static_cast<uint32_t>(at + i);
      found += block[i] >= bound ? 1 : 0;
    }
  }
  return found;
}

template <class S>
RETINA_OPS_HOST_DEVICE void scores_in(S* logits, size_t count) {
  for (size_t i = 0; i < count; ++i) logits[i] = score_of(logits[i]);
}

// The two loops for one instruction set; the bodies above are always inlined and take on the target.
template <class S>
struct ScanLoops {
  size_t (*scan)(const void*, Dtype, int64_t, int64_t, int64_t, S, S*, uint32_t*);
  void (*scores)(S*, size_t);
};

#define RETINA_OPS_SCAN_LOOPS(TARGET, NAME)                                                                        \
  template <class S>                                                                                               \
  TARGET size_t scan_##NAME(const void* values, Dtype dtype, int64_t first, int64_t begin, int64_t count, S bound, \
                            S* logits, uint32_t* offsets) {                                                        \
    return scan_in<S>(values, dtype, first, begin, count, bound, logits, offsets);                                 \
  }                                                                                                                \
  template <class S>                                                                                               \
  TARGET void scores_##NAME(S* logits, size_t count) {                                                             \
    scores_in(logits, count);                                                                                      \
  }

RETINA_OPS_SCAN_LOOPS(, baseline)
#if RETINA_OPS_HAS_X86_TARGETS
RETINA_OPS_SCAN_LOOPS(RETINA_OPS_TARGET_AVX2, avx2)
RETINA_OPS_SCAN_LOOPS(RETINA_OPS_TARGET_AVX512, avx512)
#endif

template <class S>
ScanLoops<S> loops_for_isa() {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return {scan_avx512<S>, scores_avx512<S>};
  if (cpu_isa() == Isa::kAvx2) return {scan_avx2<S>, scores_avx2<S>};
#endif
  return {scan_baseline<S>, scores_baseline<S>};
}

// A level of an image, and the bound that its strips share.
template <class S>
struct Slab {
  const HeadLevel* level;
  int64_t first;  // index of its first logit in the level
  int64_t size;   // logits
  int64_t first_strip;
  std::atomic<S> bound;
};

template <class S>
struct Strip {
  Slab<S>* slab;
  int64_t begin, end;            // of the slab's memory
  std::vector<KeyOf<S>> keys{};  // its best candidates
};

// Leaves the best `count` keys, in no order but that the last of them stands last.
template <class Key>
void keep_best(std::vector<Key>& keys, size_t count) {
  if (keys.size() <= count || count == 0) return keys.resize(std::min(keys.size(), count));
  std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(count) - 1, keys.end(),
                   std::greater<Key>());
  keys.resize(count);
}

template <class S>
void raise_bound(std::atomic<S>& bound, S to) {
  S now = bound.load(std::memory_order_relaxed);
  while (now < to && !bound.compare_exchange_weak(now, to, std::memory_order_relaxed)) {
  }
}

template <class S>
void take_strip(const PostprocessProblem& problem, const ScanLoops<S>& loops, Strip<S>& strip) {
  Slab<S>& slab = *strip.slab;
  const auto channels = static_cast<uint32_t>(problem.logits.channels);
  const auto topk = static_cast<size_t>(problem.topk);
  const S threshold = static_cast<S>(problem.score_threshold);
  std::vector<S> logits(static_cast<size_t>(kChunk));
  std::vector<uint32_t> offsets(static_cast<size_t>(kChunk));
  std::vector<KeyOf<S>>& keys = strip.keys;
  S last = -std::numeric_limits<S>::infinity();  // score of the last of the best, once there are so many
  for (int64_t at = strip.begin; at < strip.end; at += kChunk) {
    const int64_t count = std::min(kChunk, strip.end - at);
    const S bound = slab.bound.load(std::memory_order_relaxed);
    const size_t found = loops.scan(slab.level->values, problem.logits.dtype, slab.first, at, count, bound,
                                    logits.data(), offsets.data());
    loops.scores(logits.data(), found);
    for (size_t i = 0; i < found; ++i) {
      const S score = logits[i];
      if (score > threshold && score >= last)
        keys.push_back(key_of(score, place_of(*slab.level, offsets[i], channels)));
    }
    if (keys.size() < topk + std::max(topk, kSlack)) continue;
    keep_best(keys, topk);
    last = score_of_key<S>(keys.back());
    raise_bound(slab.bound, logit_below(last));
  }
  keep_best(keys, topk);
}

template <class S>
struct Slabs {
  std::vector<Slab<S>> slabs;  // [batch, levels]
  std::vector<Strip<S>> strips;

  explicit Slabs(const PostprocessProblem& problem)
      : slabs(static_cast<size_t>(problem.logits.batch * problem.logits.count)) {
    const HeadLevels& all = problem.logits;
    const S threshold = static_cast<S>(problem.score_threshold);
    for (size_t i = 0; i < slabs.size(); ++i) {
      const auto image = static_cast<int64_t>(i) / all.count;
      const HeadLevel& level = all.level[static_cast<int64_t>(i) % all.count];
      const int64_t size = level.anchors() * all.channels;
      Slab<S>& slab = slabs[i];
      slab.level = &level;
      slab.first = image * size;
      slab.size = size;
      slab.first_strip = static_cast<int64_t>(strips.size());
      slab.bound.store(logit_below(threshold), std::memory_order_relaxed);
      for (int64_t begin = 0; begin < size; begin += kStrip) {
        strips.push_back({&slab, begin, std::min(size, begin + kStrip)});
      }
    }
  }

  // The best candidates of slab i in order.
  std::vector<KeyOf<S>> best(size_t i, int64_t topk) const {
    const size_t end = i + 1 < slabs.size() ? static_cast<size_t>(slabs[i + 1].first_strip) : strips.size();
    std::vector<KeyOf<S>> keys;
    for (auto s = static_cast<size_t>(slabs[i].first_strip); s < end; ++s) {
      keys.insert(keys.end(), strips[s].keys.begin(), strips[s].keys.end());
    }
    keep_best(keys, static_cast<size_t>(topk));
    std::sort(keys.begin(), keys.end(), std::greater<KeyOf<S>>());
    return keys;
  }
};

// From the candidates of an image to its detections.
template <class A, class S>
void take_image(const PostprocessProblem& problem, const Slabs<S>& slabs, int64_t image, const ParallelFor& parallel) {
  const BoxCoding<A> coding = coding_of<A>(problem);
  std::vector<Box<A>> boxes;
  std::vector<S> scores;
  std::vector<int64_t> labels;
  for (int l = 0; l < problem.logits.count; ++l) {
    for (const KeyOf<S> key : slabs.best(static_cast<size_t>(image * problem.logits.count + l), problem.topk)) {
      const int64_t place = place_of_key<S>(key);
      const int64_t anchor = place / problem.logits.channels;
      boxes.push_back(candidate_box<A, PlainMath>(problem.deltas.level[l], problem.deltas.dtype,
                                                  static_cast<const A*>(problem.anchors),
                                                  static_cast<const A*>(problem.image_sizes), coding, image, anchor));
      scores.push_back(score_of_key<S>(key));
      labels.push_back(place - anchor * problem.logits.channels);
    }
  }
  const bool is_double = sizeof(S) == sizeof(double);
  const NmsProblem nms{boxes.data(),         problem.box_dtype,
                       scores.data(),        is_double ? Dtype::kFloat64 : Dtype::kFloat32,
                       labels.data(),        static_cast<int64_t>(boxes.size()),
                       problem.nms_threshold};
  const std::vector<int32_t> kept = nms_keep(nms, problem.detections, parallel);
  Box<A>* out_boxes = static_cast<Box<A>*>(problem.boxes) + image * problem.detections;
  S* out_scores = static_cast<S*>(problem.scores) + image * problem.detections;
  int64_t* out_labels = problem.labels + image * problem.detections;
  for (int64_t i = 0; i < problem.detections; ++i) {
    const bool is_kept = i < static_cast<int64_t>(kept.size());
    const auto from = is_kept ? static_cast<size_t>(kept[static_cast<size_t>(i)]) : 0;
    out_boxes[i] = is_kept ? boxes[from] : Box<A>{A(0), A(0), A(0), A(0)};
    out_scores[i] = is_kept ? scores[from] : S(0);
    out_labels[i] = is_kept ? labels[from] : -1;
  }
  problem.counts[image] = static_cast<int64_t>(kept.size());
}

template <class A, class S>
void run(const PostprocessProblem& problem, const ParallelFor& parallel) {
  const ScanLoops<S> loops = loops_for_isa<S>();
  Slabs<S> slabs(problem);
  if (problem.topk > 0) {
    parallel(static_cast<int64_t>(slabs.strips.size()), [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) take_strip(problem, loops, slabs.strips[static_cast<size_t>(s)]);
    });
  }
  if (problem.logits.batch == 1) return take_image<A, S>(problem, slabs, 0, parallel);
  const ParallelFor alone = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) { body(0, count); };
  parallel(problem.logits.batch, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) take_image<A, S>(problem, slabs, image, alone);
  });
}

}  // namespace

void postprocess_images(const PostprocessProblem& problem, const ParallelFor& parallel) {
  const bool double_boxes = problem.box_dtype == Dtype::kFloat64;
  if (problem.logits.dtype == Dtype::kFloat64) {
    return double_boxes ? run<double, double>(problem, parallel) : run<float, double>(problem, parallel);
  }
  return double_boxes ? run<double, float>(problem, parallel) : run<float, float>(problem, parallel);
}

}  // namespace retina_ops
