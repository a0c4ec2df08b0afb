// Comparisons bound it, so the work is to make few. Each class is a segment of its own. A segment compares with the
// plain list of its kept boxes: all of a small one, and of a large one until the list is long, which it never is where
// boxes crowd one place and nothing in space could be cut off. From there on a large segment keeps its boxes in a grid
// (nms_grid.h) and is taken in chunks: all boxes of a chunk are compared with the boxes kept before, in parallel; the
// survivors then among themselves, in order. Small segments run in parallel. No result depends on the number of
// threads.
#include "nms/nms_cpu.h"

#include <algorithm>
#include <unordered_map>

#include "common/isa.h"
#include "nms/nms_grid.h"
#include "nms/score_order.h"

namespace retina_ops {
namespace {

constexpr size_t kGridSegment = 512;  // boxes from which a grid is worth building
constexpr size_t kListed = 256;       // kept boxes of a large segment from which the grid takes over
constexpr size_t kChunk = 2048;
constexpr size_t kSlice = 128;  // boxes of a chunk that a thread takes at once

// Boxes of one class, in order of score.
template <class T>
struct Segment {
  BoxArrays<T> boxes;
  std::vector<int32_t> ranks;  // [n] of each box in the order of all scores
};

// Which boxes of [begin, end) no old kept box suppresses.
template <class T>
RETINA_OPS_HOST_DEVICE void survivors_in(const KeptGrid<T>& grid, size_t begin, size_t end, uint8_t* survives) {
  for (size_t i = begin; i < end; ++i) survives[i] = grid.suppressed(i, false) ? 0 : 1;
}

// The survivors of [begin, end) among themselves, in order: the grid takes those that are kept.
template <class T>
RETINA_OPS_HOST_DEVICE void keep_in(KeptGrid<T>& grid, size_t begin, size_t end, uint8_t* survives) {
  for (size_t i = begin; i < end; ++i) {
    if (survives[i] == 0) continue;
    survives[i] = grid.suppressed(i, true) ? 0 : 1;
    if (survives[i] != 0) grid.add(i);
  }
}

// Decides boxes in order until `limit` are kept; returns how many it decided. Right for every threshold, also under 0,
// where distance proves nothing.
template <class T>
RETINA_OPS_HOST_DEVICE size_t keep_in_list(const BoxArrays<T>& boxes, T threshold, size_t limit, uint8_t* keeps) {
  const size_t n = boxes.size();
  BoxArrays<T> kept(limit);
  size_t count = 0, i = 0;
  for (; i < n && count < limit; ++i) {
    keeps[i] = any_suppresses(kept, 0, count, boxes.box(i), boxes.area[i], threshold) ? 0 : 1;
    if (keeps[i] != 0) kept.set(count++, boxes.box(i), boxes.area[i]);
  }
  return i;
}

// The three loops for one instruction set; the bodies above are always inlined and take on the target.
template <class T>
struct NmsLoops {
  void (*survivors)(const KeptGrid<T>&, size_t, size_t, uint8_t*);
  void (*keep)(KeptGrid<T>&, size_t, size_t, uint8_t*);
  size_t (*keep_list)(const BoxArrays<T>&, T, size_t, uint8_t*);
};

#define RETINA_OPS_NMS_LOOPS(TARGET, NAME)                                                               \
  template <class T>                                                                                     \
  TARGET void survivors_##NAME(const KeptGrid<T>& grid, size_t begin, size_t end, uint8_t* survives) {   \
    survivors_in(grid, begin, end, survives);                                                            \
  }                                                                                                      \
  template <class T>                                                                                     \
  TARGET void keep_##NAME(KeptGrid<T>& grid, size_t begin, size_t end, uint8_t* survives) {              \
    keep_in(grid, begin, end, survives);                                                                 \
  }                                                                                                      \
  template <class T>                                                                                     \
  TARGET size_t keep_list_##NAME(const BoxArrays<T>& boxes, T threshold, size_t limit, uint8_t* keeps) { \
    return keep_in_list(boxes, threshold, limit, keeps);                                                 \
  }

RETINA_OPS_NMS_LOOPS(, baseline)
#if RETINA_OPS_HAS_X86_TARGETS
RETINA_OPS_NMS_LOOPS(RETINA_OPS_TARGET_AVX2, avx2)
RETINA_OPS_NMS_LOOPS(RETINA_OPS_TARGET_AVX512, avx512)
#endif

template <class T>
NmsLoops<T> loops_for_isa() {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return {survivors_avx512<T>, keep_avx512<T>, keep_list_avx512<T>};
  if (cpu_isa() == Isa::kAvx2) return {survivors_avx2<T>, keep_avx2<T>, keep_list_avx2<T>};
#endif
  return {survivors_baseline<T>, keep_baseline<T>, keep_list_baseline<T>};
}

template <class T>
void keep_large(const NmsLoops<T>& loops, const BoxArrays<T>& boxes, T threshold, uint8_t* keeps,
                const ParallelFor& parallel) {
  const size_t n = boxes.size();
  const size_t decided = loops.keep_list(boxes, threshold, kListed, keeps);
  if (decided == n) return;
  KeptGrid<T> grid(boxes, threshold);
  for (size_t i = 0; i < decided; ++i) {
    if (keeps[i] != 0) grid.add(i);
  }
  grid.settle();
  for (size_t begin = decided; begin < n; begin += kChunk) {
    const size_t end = std::min(n, begin + kChunk);
    const auto slices = static_cast<int64_t>((end - begin + kSlice - 1) / kSlice);
    parallel(slices, [&](int64_t first, int64_t last) {
      loops.survivors(grid, begin + static_cast<size_t>(first) * kSlice,
                      std::min(end, begin + static_cast<size_t>(last) * kSlice), keeps);
    });
    loops.keep(grid, begin, end, keeps);
    grid.settle();
  }
}

// The boxes of each class, taken in the order of the scores.
template <class T>
std::vector<Segment<T>> segments_of(const NmsProblem& problem, const std::vector<int32_t>& order) {
  std::vector<int32_t> segment_of(order.size(), 0);
  std::vector<size_t> sizes;
  if (problem.classes == nullptr) {
    sizes.push_back(order.size());
  } else {
    std::unordered_map<int64_t, int32_t> numbers;
    for (size_t rank = 0; rank < order.size(); ++rank) {
      const auto found = numbers.emplace(problem.classes[order[rank]], static_cast<int32_t>(sizes.size()));
      if (found.second) sizes.push_back(0);
      segment_of[rank] = found.first->second;
      ++sizes[static_cast<size_t>(found.first->second)];
    }
  }
  std::vector<Segment<T>> segments;
  segments.reserve(sizes.size());
  for (const size_t size : sizes) {
    segments.push_back({BoxArrays<T>(size), {}});
    segments.back().ranks.reserve(size);
  }
  for (size_t rank = 0; rank < order.size(); ++rank) {
    alignas(64) T v[4];
    load_block<4>(problem.boxes, problem.box_dtype, 4 * static_cast<int64_t>(order[rank]), v, 4);
    const Box<T> box{v[0], v[1], v[2], v[3]};
    Segment<T>& segment = segments[static_cast<size_t>(segment_of[rank])];
    segment.boxes.set(segment.ranks.size(), box, box_area(box));
    segment.ranks.push_back(static_cast<int32_t>(rank));
  }
  return segments;
}

template <class T>
std::vector<int32_t> keep_of(const NmsProblem& problem, int64_t limit, const ParallelFor& parallel) {
  const std::vector<int32_t> order = descending_order(problem.scores, problem.score_dtype, problem.n);
  const T threshold = threshold_below<T>(problem.threshold);
  const NmsLoops<T> loops = loops_for_isa<T>();
  const std::vector<Segment<T>> segments = segments_of<T>(problem, order);
  std::vector<uint8_t> keeps(order.size(), 0);
  const auto write = [&](const Segment<T>& segment, const std::vector<uint8_t>& its_keeps) {
    for (size_t i = 0; i < its_keeps.size(); ++i) keeps[static_cast<size_t>(segment.ranks[i])] = its_keeps[i];
  };
  const auto is_large = [&](const Segment<T>& segment) {
    return segment.ranks.size() >= kGridSegment && threshold >= T(0);
  };
  const auto run_small = [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const Segment<T>& segment = segments[static_cast<size_t>(s)];
      if (is_large(segment)) continue;
      std::vector<uint8_t> its_keeps(segment.ranks.size());
      loops.keep_list(segment.boxes, threshold, its_keeps.size(), its_keeps.data());
      write(segment, its_keeps);
    }
  };
  if (segments.size() == 1 || order.size() < kGridSegment) {
    run_small(0, static_cast<int64_t>(segments.size()));
  } else {
    parallel(static_cast<int64_t>(segments.size()), run_small);
  }
  for (const Segment<T>& segment : segments) {
    if (!is_large(segment)) continue;
    std::vector<uint8_t> its_keeps(segment.ranks.size());
    keep_large(loops, segment.boxes, threshold, its_keeps.data(), parallel);
    write(segment, its_keeps);
  }
  std::vector<int32_t> kept;
  for (size_t rank = 0; rank < order.size() && static_cast<int64_t>(kept.size()) < limit; ++rank) {
    if (keeps[rank] != 0) kept.push_back(order[rank]);
  }
  return kept;
}

}  // namespace

std::vector<int32_t> nms_keep(const NmsProblem& problem, int64_t limit, const ParallelFor& parallel) {
  return problem.box_dtype == Dtype::kFloat64 ? keep_of<double>(problem, limit, parallel)
                                              : keep_of<float>(problem, limit, parallel);
}

}  // namespace retina_ops
