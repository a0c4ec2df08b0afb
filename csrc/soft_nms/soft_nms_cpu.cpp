// A pair costs a division or two, so the work is to meet few pairs: of n^2 / 2 only those that may overlap are looked
// at (soft_nms_blocks.h), a block of vectors at a time, and only a block where something does overlap is divided. A
// pair without intersection has a factor of exactly 1, so nothing is lost.
//
// The box of the highest current score comes from a heap whose keys are old scores. Scores only fall, so a key is never
// under the true score: a box whose key is its score is the one to take, any other goes back with its score.
//
// Each class is a segment of its own; segments run in parallel. Within one the steps depend on each other, and each is
// too short to be shared out.
#include "soft_nms/soft_nms_cpu.h"

#include <unordered_map>

#include "common/isa.h"
#include "nms/score_order.h"
#include "soft_nms/soft_nms.h"
#include "soft_nms/soft_nms_blocks.h"

namespace retina_ops {
namespace {

constexpr int64_t kParallelBoxes = 512;  // boxes of a call from which threads are worth waking

template <class A>
struct Segment {
  std::vector<Box<A>> boxes;
  std::vector<A> scores;       // by descending score, ties in input order
  std::vector<int32_t> input;  // input indices
};

// Scores [n] and decays [n] by input index; the score of a box that is not taken stays NaN.
template <class A>
struct Outcome {
  std::vector<A> scores, decays;
};

// Multiplies the decays of a block by what `box` makes of them.
template <bool kGaussian, class A>
RETINA_OPS_HOST_DEVICE void decay_block(SoftNmsBlocks<A>& blocks, size_t block, const Box<A>& box, A area,
                                        const SoftNmsRule<A>& rule) {
  constexpr size_t kLanes = SoftNmsBlocks<A>::kLanes;
  const A* __restrict x1 = blocks.x1.data() + block * kLanes;
  const A* __restrict y1 = blocks.y1.data() + block * kLanes;
  const A* __restrict x2 = blocks.x2.data() + block * kLanes;
  const A* __restrict y2 = blocks.y2.data() + block * kLanes;
  const A* __restrict areas = blocks.area.data() + block * kLanes;
  A* __restrict decay = blocks.decay.data() + block * kLanes;
  A intersection[kLanes];
  int overlaps = 0;
  for (size_t k = 0; k < kLanes; ++k) {
    intersection[k] = box_intersection(box, Box<A>{x1[k], y1[k], x2[k], y2[k]});
    overlaps |= intersection[k] > A(0) ? 1 : 0;
  }
  if (overlaps == 0) return;
  for (size_t k = 0; k < kLanes; ++k) {
    const A iou = div_rn(intersection[k], sub_rn(add_rn(area, areas[k]), intersection[k]));
    decay[k] = mul_rn(decay[k], soft_nms_factor<kGaussian>(iou, rule));
  }
}

template <class A>
struct Key {
  A score;  // at least the current one
  int32_t input;
  int32_t box;  // of the segment
};

template <class A>
RETINA_OPS_HOST_DEVICE bool comes_before(const Key<A>& a, const Key<A>& b) {
  return a.score > b.score || (a.score == b.score && a.input < b.input);
}

// Puts `key` where the top was and lets it sink.
template <class A>
RETINA_OPS_HOST_DEVICE void replace_top(std::vector<Key<A>>& heap, const Key<A>& key) {
  const size_t n = heap.size();
  size_t at = 0;
  for (size_t child = 1; child < n; child = 2 * at + 1) {
    if (child + 1 < n && comes_before(heap[child + 1], heap[child])) ++child;
    if (!comes_before(heap[child], key)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = key;
}

// What a thread needs, kept from segment to segment.
template <class A>
struct Workspace {
  SoftNmsBlocks<A> blocks;
  std::vector<Key<A>> heap;
};

template <bool kGaussian, class A>
RETINA_OPS_HOST_DEVICE void take_boxes(const Segment<A>& segment, const SoftNmsRule<A>& rule, Workspace<A>& work,
                                       Outcome<A>& outcome) {
  SoftNmsBlocks<A>& blocks = work.blocks;
  std::vector<Key<A>>& heap = work.heap;
  heap.clear();
  for (size_t i = 0; i < segment.boxes.size(); ++i) {  // descending: a heap already
    heap.push_back({segment.scores[i], segment.input[i], static_cast<int32_t>(i)});
  }
  while (!heap.empty()) {
    const Key<A> top = heap.front();
    const auto number = static_cast<size_t>(top.box);
    const size_t slot = blocks.slot_of[number];
    const A decay = blocks.decay[slot];
    const A score = mul_rn(blocks.score[slot], decay);
    if (score >= rule.min_score && score != top.score) {
      replace_top(heap, {score, top.input, top.box});
      continue;
    }
    const Key<A> last = heap.back();
    heap.pop_back();
    if (!heap.empty()) replace_top(heap, last);
    const bool taken = score >= rule.min_score;
    const Box<A> box = blocks.box(slot);
    const A area = blocks.area[slot];
    if (taken) {
      outcome.scores[static_cast<size_t>(top.input)] = score;
      outcome.decays[static_cast<size_t>(top.input)] = decay;
    }
    blocks.remove(number);
    if (!taken || heap.empty()) continue;
    for (size_t first = 0; first < blocks.blocks(); first += SoftNmsBlocks<A>::kLanes) {
      for (uint32_t near = blocks.blocks_near(first, box); near != 0; near &= near - 1) {
        decay_block<kGaussian>(blocks, first + static_cast<size_t>(__builtin_ctz(near)), box, area, rule);
      }
    }
  }
}

template <class A>
using TakeBoxes = void (*)(const Segment<A>&, const SoftNmsRule<A>&, Workspace<A>&, Outcome<A>&);

// The loop for one instruction set; what it calls is always inlined and takes on the target.
#define RETINA_OPS_SOFT_NMS_LOOP(TARGET, NAME)                                                             \
  template <bool kGaussian, class A>                                                                       \
  TARGET void take_boxes_##NAME(const Segment<A>& segment, const SoftNmsRule<A>& rule, Workspace<A>& work, \
                                Outcome<A>& outcome) {                                                     \
    take_boxes<kGaussian>(segment, rule, work, outcome);                                                   \
  }

RETINA_OPS_SOFT_NMS_LOOP(, baseline)
#if RETINA_OPS_HAS_X86_TARGETS
RETINA_OPS_SOFT_NMS_LOOP(RETINA_OPS_TARGET_AVX2, avx2)
RETINA_OPS_SOFT_NMS_LOOP(RETINA_OPS_TARGET_AVX512, avx512)
#endif

template <bool kGaussian, class A>
TakeBoxes<A> loop_for_isa() {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return take_boxes_avx512<kGaussian, A>;
  if (cpu_isa() == Isa::kAvx2) return take_boxes_avx2<kGaussian, A>;
#endif
  return take_boxes_baseline<kGaussian, A>;
}

// Values [first, first + count) of any dtype.
template <int kWidth, class A>
void load_as(const void* base, Dtype dtype, int64_t first, A* out) {
  if (dtype == Dtype::kFloat64) {
    double values[kWidth];
    load_block<kWidth>(base, dtype, first, values, kWidth);
    for (int i = 0; i < kWidth; ++i) out[i] = static_cast<A>(values[i]);
  } else {
    float values[kWidth];
    load_block<kWidth>(base, dtype, first, values, kWidth);
    for (int i = 0; i < kWidth; ++i) out[i] = static_cast<A>(values[i]);
  }
}

// The boxes of each class whose scores reach min_score, in the order of the scores.
template <class A>
std::vector<Segment<A>> segments_of(const SoftNmsProblem& problem, A min_score) {
  std::vector<Segment<A>> segments;
  std::unordered_map<int64_t, size_t> numbers;
  for (const int32_t input : descending_order(problem.scores, problem.score_dtype, problem.n)) {
    A score;
    load_as<1>(problem.scores, problem.score_dtype, input, &score);
    if (!(score >= min_score)) break;
    size_t number = 0;
    if (problem.classes != nullptr) number = numbers.emplace(problem.classes[input], segments.size()).first->second;
    if (number == segments.size()) segments.emplace_back();
    A v[4];
    load_as<4>(problem.boxes, problem.box_dtype, 4 * static_cast<int64_t>(input), v);
    segments[number].boxes.push_back({v[0], v[1], v[2], v[3]});
    segments[number].scores.push_back(score);
    segments[number].input.push_back(input);
  }
  return segments;
}

template <class A>
constexpr Dtype kDtypeOf = sizeof(A) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;

}  // namespace

template <class A>
SoftNmsTaken<A> soft_nms_taken(const SoftNmsProblem& problem, const SoftNmsParallelFor& parallel) {
  const SoftNmsRule<A> rule = soft_nms_rule<A>(problem.threshold, problem.sigma, problem.min_score);
  const TakeBoxes<A> take = problem.gaussian ? loop_for_isa<true, A>() : loop_for_isa<false, A>();
  const std::vector<Segment<A>> segments = segments_of(problem, rule.min_score);
  const auto n = static_cast<size_t>(problem.n);
  Outcome<A> outcome{std::vector<A>(n, std::numeric_limits<A>::quiet_NaN()), std::vector<A>(n)};
  const auto run = [&](int64_t begin, int64_t end) {
    Workspace<A> work;
    for (int64_t s = begin; s < end; ++s) {
      const Segment<A>& segment = segments[static_cast<size_t>(s)];
      work.blocks.assign(segment.boxes, segment.scores);
      take(segment, rule, work, outcome);
    }
  };
  const auto count = static_cast<int64_t>(segments.size());
  if (count <= 1 || problem.n < kParallelBoxes) {
    run(0, count);
  } else {
    parallel(count, run);
  }
  // In a class, boxes are taken by descending decayed score, equal ones in input order: so in all classes together.
  SoftNmsTaken<A> taken;
  taken.keep = descending_order(outcome.scores.data(), kDtypeOf<A>, problem.n);
  for (const int32_t input : taken.keep) {
    taken.scores.push_back(outcome.scores[static_cast<size_t>(input)]);
    taken.decays.push_back(outcome.decays[static_cast<size_t>(input)]);
  }
  return taken;
}

template SoftNmsTaken<float> soft_nms_taken(const SoftNmsProblem&, const SoftNmsParallelFor&);
template SoftNmsTaken<double> soft_nms_taken(const SoftNmsProblem&, const SoftNmsParallelFor&);

}  // namespace retina_ops
