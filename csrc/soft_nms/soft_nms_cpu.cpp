// Soft NMS on the CPU. A pair costs one or two divisions, so as few of the n^2 / 2 pairs as possible are computed: only
// those in blocks that a taken box may overlap (soft_nms_blocks.h), and divisions only in blocks where at least one box
// does overlap. A pair without intersection has a factor of exactly 1, so this is exact.
//
// The box with the highest current score comes from a heap whose keys are earlier scores. Scores only fall, so a key is
// at least the current score. If the key at the top equals the score of its box, this box is taken; if not, the box
// goes back with its score as the key.
//
// The boxes of each class are a segment; segments run in parallel. The steps in a segment depend on each other, and
// each is too short for several threads.
#include "soft_nms/soft_nms_cpu.h"

#include <unordered_map>

#include "common/isa.h"
#include "nms/score_order.h"
#include "soft_nms/soft_nms.h"
#include "soft_nms/soft_nms_blocks.h"

namespace retina_ops {
namespace {

constexpr int64_t kMinParallelBoxes = 512;  // calls with fewer boxes are not worth a second thread

template <class A>
struct Segment {
  std::vector<Box<A>> boxes;
  std::vector<A> scores;       // descending, ties in input order
  std::vector<int32_t> input;  // input indices
};

// Decayed scores [n] and decays [n] by input index. The score of a box that is not taken stays NaN.
template <class A>
struct Outcome {
  std::vector<A> scores, decays;
};

// Multiplies the decays of the boxes of a block by their factors for the taken box.
template <bool kGaussian, class A>
RETINA_OPS_HOST_DEVICE void decay_block(SoftNmsBlocks<A>& blocks, size_t block, const Box<A>& box, A area,
                                        const SoftNmsRule<A>& rule) {
  constexpr size_t kLanes = SoftNmsBlocks<A>::kLanes;
  const A* __restrict x1 = blocks.slots.x1.data() + block * kLanes;
  const A* __restrict y1 = blocks.slots.y1.data() + block * kLanes;
  const A* __restrict x2 = blocks.slots.x2.data() + block * kLanes;
  const A* __restrict y2 = blocks.slots.y2.data() + block * kLanes;
  const A* __restrict areas = blocks.slots.area.data() + block * kLanes;
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
  A score;        // at least the current score
  int32_t input;  // input index
  int32_t box;    // index in the segment
};

template <class A>
RETINA_OPS_HOST_DEVICE bool comes_before(const Key<A>& a, const Key<A>& b) {
  return a.score > b.score || (a.score == b.score && a.input < b.input);
}

// Replaces the top of the heap by `key` and restores the order of the heap.
template <class A>
RETINA_OPS_HOST_DEVICE void replace_top(std::vector<Key<A>>& heap, const Key<A>& key) {
  const size_t n = heap.size();
  size_t parent = 0;
  for (size_t child = 1; child < n; child = 2 * parent + 1) {
    if (child + 1 < n && comes_before(heap[child + 1], heap[child])) ++child;
    if (!comes_before(heap[child], key)) break;
    heap[parent] = heap[child];
    parent = child;
  }
  heap[parent] = key;
}

// Memory of a thread, which its segments use in turn.
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
  for (size_t i = 0; i < segment.boxes.size(); ++i) {  // the scores are descending, which is a heap
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
    const Box<A> box = blocks.slots.box(slot);
    const A area = blocks.slots.area[slot];
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

// Values [first, first + kWidth) of an array of any dtype, as A.
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

// The segments: the boxes of each class whose scores are at least min_score, in the order of the scores.
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
    A values[4];
    load_as<4>(problem.boxes, problem.box_dtype, 4 * static_cast<int64_t>(input), values);
    segments[number].boxes.push_back({values[0], values[1], values[2], values[3]});
    segments[number].scores.push_back(score);
    segments[number].input.push_back(input);
  }
  return segments;
}

}  // namespace

template <class A>
SoftNmsTaken<A> soft_nms_taken(const SoftNmsProblem& problem, ParallelFor parallel) {
  const SoftNmsRule<A> rule = soft_nms_rule<A>(problem.threshold, problem.sigma, problem.min_score);
  const auto take = problem.gaussian ? isa_variant<take_boxes<true, A>>() : isa_variant<take_boxes<false, A>>();
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
  if (count <= 1 || problem.n < kMinParallelBoxes) {
    run(0, count);
  } else {
    parallel(count, 1, run);
  }
  // Each class is taken by descending decayed score, ties in input order. The output has all classes in this order.
  SoftNmsTaken<A> taken;
  taken.keep = descending_order(outcome.scores.data(), kDtypeOf<A>, problem.n);
  for (const int32_t input : taken.keep) {
    taken.scores.push_back(outcome.scores[static_cast<size_t>(input)]);
    taken.decays.push_back(outcome.decays[static_cast<size_t>(input)]);
  }
  return taken;
}

template SoftNmsTaken<float> soft_nms_taken(const SoftNmsProblem&, ParallelFor);
template SoftNmsTaken<double> soft_nms_taken(const SoftNmsProblem&, ParallelFor);

}  // namespace retina_ops
