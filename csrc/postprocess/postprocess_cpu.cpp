// Post-processing on the CPU. Lower bound: the logits are read once. They are compared in memory order, whatever the
// layout, with a bound in logits; exponentials and indices are computed only for logits that pass. A level of an image
// is scanned in strips. Each strip collects the logits that pass and keeps the `topk` best. Once it has topk, the bound
// of the level rises to the last of them, for all strips, so that few logits pass even where every score is above the
// threshold. A candidate that does not pass is never among the best. So no result depends on the number of threads, or
// on when a strip sees a new bound.
#include "postprocess/postprocess_cpu.h"

#include <algorithm>
#include <atomic>

#include "common/isa.h"
#include "nms/nms.h"
#include "postprocess/postprocess.h"

namespace retina_ops {
namespace {

constexpr int kBlock = 64;             // logits compared before the results are looked at
constexpr int64_t kChunk = 8192;       // logits scanned with one bound
constexpr int64_t kStrip = 64 * 4096;  // logits per strip: what a thread takes at a time
constexpr size_t kSlack = 4096;        // candidates beyond topk that are collected before the best are selected

// Finds the logits of a chunk that are at least `bound`, and their offsets in the memory of the level of an image,
// which begins at index `first` of `values`; the chunk is [begin, begin + count) of it. logits, offsets: [count].
// Returns their number.
template <class S>
RETINA_OPS_HOST_DEVICE size_t scan_chunk(const void* values, Dtype dtype, int64_t first, int64_t begin, int64_t count,
                                         S bound, S* logits, uint32_t* offsets) {
  size_t found = 0;
  alignas(64) S converted[kBlock];
  for (int64_t offset = begin; offset < begin + count; offset += kBlock) {
    const int width = block_count<kBlock>(offset, begin + count);
    const S* block = static_cast<const S*>(values) + first + offset;
    if (width < kBlock || (sizeof(S) == sizeof(float) && dtype != Dtype::kFloat32)) {
      load_block<kBlock>(values, dtype, first + offset, converted, width);
      block = converted;
    }
    int any = 0;
    for (int i = 0; i < kBlock; ++i) any |= block[i] >= bound ? 1 : 0;
    if (any == 0) continue;
    for (int i = 0; i < width; ++i) {
      logits[found] = block[i];
      offsets[found] = static_cast<uint32_t>(offset + i);
      found += block[i] >= bound ? 1 : 0;
    }
  }
  return found;
}

// Replaces logits by their scores.
template <class S>
RETINA_OPS_HOST_DEVICE void to_scores(S* logits, size_t count) {
  for (size_t i = 0; i < count; ++i) logits[i] = score_of(logits[i]);
}

// A level of an image, and the bound that its strips share.
template <class S>
struct ImageLevel {
  const HeadLevel* level;
  int64_t first;        // index of its first logit in the level
  int64_t size;         // number of logits
  int64_t first_strip;  // its strips are consecutive
  std::atomic<S> bound;
};

template <class S>
struct Strip {
  ImageLevel<S>* image_level;
  int64_t begin, end;            // offsets in the memory of the level of the image
  std::vector<KeyOf<S>> keys{};  // the best candidates
};

// Keeps the `count` best keys. The worst of them is the last; the others are in no particular order.
template <class Key>
void keep_best(std::vector<Key>& keys, size_t count) {
  if (keys.size() <= count || count == 0) return keys.resize(std::min(keys.size(), count));
  std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(count) - 1, keys.end(),
                   std::greater<Key>());
  keys.resize(count);
}

template <class S>
void raise_bound(std::atomic<S>& bound, S to) {
  S current = bound.load(std::memory_order_relaxed);
  while (current < to && !bound.compare_exchange_weak(current, to, std::memory_order_relaxed)) {
  }
}

// Finds the best candidates of a strip.
template <class S>
void scan_strip(const PostprocessProblem& problem, Strip<S>& strip) {
  const auto run_scan = isa_variant<scan_chunk<S>>();
  const auto run_scores = isa_variant<to_scores<S>>();
  ImageLevel<S>& image_level = *strip.image_level;
  const auto channels = static_cast<uint32_t>(problem.logits.channels);
  const auto topk = static_cast<size_t>(problem.topk);
  const S threshold = static_cast<S>(problem.score_threshold);
  std::vector<S> logits(static_cast<size_t>(kChunk));
  std::vector<uint32_t> offsets(static_cast<size_t>(kChunk));
  std::vector<KeyOf<S>>& keys = strip.keys;
  S worst = -std::numeric_limits<S>::infinity();  // score of the last of the topk best, once there are topk
  for (int64_t begin = strip.begin; begin < strip.end; begin += kChunk) {
    const int64_t count = std::min(kChunk, strip.end - begin);
    const S bound = image_level.bound.load(std::memory_order_relaxed);
    const size_t found = run_scan(image_level.level->values, problem.logits.dtype, image_level.first, begin, count,
                                  bound, logits.data(), offsets.data());
    run_scores(logits.data(), found);
    for (size_t i = 0; i < found; ++i) {
      const S score = logits[i];
      if (score > threshold && score >= worst) {
        keys.push_back(key_of(score, place_of(*image_level.level, offsets[i], channels)));
      }
    }
    if (keys.size() < topk + std::max(topk, kSlack)) continue;
    keep_best(keys, topk);
    worst = score_of_key<S>(keys.back());
    raise_bound(image_level.bound, logit_below(worst));
  }
  keep_best(keys, topk);
}

// All levels of all images, and their strips.
template <class S>
struct Scan {
  std::vector<ImageLevel<S>> image_levels;  // [batch, levels]
  std::vector<Strip<S>> strips;

  explicit Scan(const PostprocessProblem& problem)
      : image_levels(static_cast<size_t>(problem.logits.batch * problem.logits.count)) {
    const HeadLevels& levels = problem.logits;
    const S threshold = static_cast<S>(problem.score_threshold);
    for (size_t i = 0; i < image_levels.size(); ++i) {
      const auto image = static_cast<int64_t>(i) / levels.count;
      const HeadLevel& level = levels.level[static_cast<int64_t>(i) % levels.count];
      const int64_t size = level.anchors() * levels.channels;
      ImageLevel<S>& image_level = image_levels[i];
      image_level.level = &level;
      image_level.first = image * size;
      image_level.size = size;
      image_level.first_strip = static_cast<int64_t>(strips.size());
      image_level.bound.store(logit_below(threshold), std::memory_order_relaxed);
      for (int64_t begin = 0; begin < size; begin += kStrip) {
        strips.push_back({&image_level, begin, std::min(size, begin + kStrip)});
      }
    }
  }

  // The best candidates of image_levels[i], in order.
  std::vector<KeyOf<S>> best(size_t i, int64_t topk) const {
    const size_t end =
        i + 1 < image_levels.size() ? static_cast<size_t>(image_levels[i + 1].first_strip) : strips.size();
    std::vector<KeyOf<S>> keys;
    for (auto s = static_cast<size_t>(image_levels[i].first_strip); s < end; ++s) {
      keys.insert(keys.end(), strips[s].keys.begin(), strips[s].keys.end());
    }
    keep_best(keys, static_cast<size_t>(topk));
    std::sort(keys.begin(), keys.end(), std::greater<KeyOf<S>>());
    return keys;
  }
};

// Writes the detections of an image: decodes its candidates and suppresses the duplicates.
template <class A, class S>
void detect(const PostprocessProblem& problem, const Scan<S>& scan, int64_t image, ParallelFor parallel) {
  const BoxCoding<A> coding = box_coding_of<A>(problem.weights);
  std::vector<Box<A>> boxes;
  std::vector<S> scores;
  std::vector<int64_t> labels;
  std::vector<int64_t> indices;
  for (int l = 0; l < problem.logits.count; ++l) {
    for (const KeyOf<S> key : scan.best(static_cast<size_t>(image * problem.logits.count + l), problem.topk)) {
      const int64_t place = place_of_key<S>(key);
      const int64_t anchor = place / problem.logits.channels;
      boxes.push_back(candidate_box<A, PlainMath>(problem.deltas.level[l], problem.deltas.dtype,
                                                  static_cast<const A*>(problem.anchors),
                                                  static_cast<const A*>(problem.image_sizes), coding, image, anchor));
      scores.push_back(score_of_key<S>(key));
      labels.push_back(place - anchor * problem.logits.channels);
      indices.push_back(problem.logits.level[l].first_anchor + anchor);
    }
  }
  const NmsProblem nms{boxes.data(),         problem.box_dtype, scores.data(),
                       kDtypeOf<S>,          labels.data(),     static_cast<int64_t>(boxes.size()),
                       problem.nms_threshold};
  const std::vector<int32_t> kept = nms_keep(nms, problem.detections, parallel);
  Box<A>* out_boxes = static_cast<Box<A>*>(problem.boxes) + image * problem.detections;
  S* out_scores = static_cast<S*>(problem.scores) + image * problem.detections;
  int64_t* out_labels = problem.labels + image * problem.detections;
  int64_t* out_indices = problem.indices + image * problem.detections;
  for (int64_t i = 0; i < problem.detections; ++i) {
    const bool is_kept = i < static_cast<int64_t>(kept.size());
    const auto candidate = is_kept ? static_cast<size_t>(kept[static_cast<size_t>(i)]) : 0;
    out_boxes[i] = is_kept ? boxes[candidate] : Box<A>{A(0), A(0), A(0), A(0)};
    out_scores[i] = is_kept ? scores[candidate] : S(0);
    out_labels[i] = is_kept ? labels[candidate] : -1;
    out_indices[i] = is_kept ? indices[candidate] : -1;
  }
  problem.counts[image] = static_cast<int64_t>(kept.size());
}

template <class A, class S>
void run(const PostprocessProblem& problem, ParallelFor parallel) {
  Scan<S> scan(problem);
  if (problem.topk > 0) {
    parallel(static_cast<int64_t>(scan.strips.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) scan_strip(problem, scan.strips[static_cast<size_t>(s)]);
    });
  }
  if (problem.logits.batch == 1) return detect<A, S>(problem, scan, 0, parallel);
  parallel(problem.logits.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) detect<A, S>(problem, scan, image, serial_for);
  });
}

}  // namespace

void postprocess_images(const PostprocessProblem& problem, ParallelFor parallel) {
  const bool double_boxes = problem.box_dtype == Dtype::kFloat64;
  if (problem.logits.dtype == Dtype::kFloat64) {
    return double_boxes ? run<double, double>(problem, parallel) : run<float, double>(problem, parallel);
  }
  return double_boxes ? run<double, float>(problem, parallel) : run<float, float>(problem, parallel);
}

}  // namespace retina_ops
