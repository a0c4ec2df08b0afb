// NMS on the CPU. The time goes into comparisons of pairs, so as few pairs as possible are compared.
//
// The boxes of each class are a segment. In a small segment each box is compared with the list of boxes kept so far. A
// large segment starts in the same way; where boxes crowd in one place the list stays short, and a grid would exclude
// nothing. Once the list is long, the kept boxes go into a grid (nms_grid.h) and the rest of the segment is taken in
// chunks: all boxes of a chunk are compared with the boxes kept before it, in parallel, and the survivors are compared
// with each other, in order. Small segments run in parallel. No result depends on the number of threads.
#include <algorithm>
#include <unordered_map>

#include "common/box_block.h"
#include "common/isa.h"
#include "nms/nms_grid.h"
#include "nms/score_order.h"

namespace retina_ops {
namespace {

constexpr size_t kLargeSegment = 512;  // boxes from which a segment is large
constexpr size_t kMaxListed = 256;     // kept boxes from which a large segment uses a grid
constexpr size_t kChunk = 2048;        // boxes per chunk
constexpr size_t kSlice = 128;         // boxes of a chunk that a thread takes at a time

// Boxes of one class, in order of score.
template <class T>
struct Segment {
  BoxArrays<T> boxes;
  std::vector<int32_t> ranks;  // [n] position of each box in the order of all scores
};

// Marks the boxes of [begin, end) that no settled box of the grid suppresses.
template <class T>
RETINA_OPS_HOST_DEVICE void find_survivors(const KeptGrid<T>& grid, size_t begin, size_t end, uint8_t* survives) {
  for (size_t i = begin; i < end; ++i) survives[i] = grid.suppressed(i, false) ? 0 : 1;
}

// Compares the survivors of [begin, end) with each other, in order, and adds those that are kept to the grid.
template <class T>
RETINA_OPS_HOST_DEVICE void keep_survivors(KeptGrid<T>& grid, size_t begin, size_t end, uint8_t* survives) {
  for (size_t i = begin; i < end; ++i) {
    if (survives[i] == 0) continue;
    survives[i] = grid.suppressed(i, true) ? 0 : 1;
    if (survives[i] != 0) grid.add(i);
  }
}

// Decides boxes in order, by comparison with the list of kept boxes, until `limit` are kept. Returns the number of
// decided boxes. It takes any threshold, also a negative one, for which distant boxes suppress each other.
template <class T>
RETINA_OPS_HOST_DEVICE size_t keep_with_list(const BoxArrays<T>& boxes, T threshold, size_t limit, uint8_t* keeps) {
  const size_t n = boxes.size();
  BoxArrays<T> kept(limit);
  size_t count = 0, i = 0;
  for (; i < n && count < limit; ++i) {
    keeps[i] = any_suppresses(kept, 0, count, boxes.box(i), boxes.area[i], threshold) ? 0 : 1;
    if (keeps[i] != 0) kept.set(count++, boxes.box(i), boxes.area[i]);
  }
  return i;
}

template <class T>
void keep_in_large_segment(const BoxArrays<T>& boxes, T threshold, uint8_t* keeps, ParallelFor parallel) {
  const auto run_survivors = isa_variant<find_survivors<T>>();
  const auto run_keep = isa_variant<keep_survivors<T>>();
  const size_t n = boxes.size();
  const size_t decided = isa_variant<keep_with_list<T>>()(boxes, threshold, kMaxListed, keeps);
  if (decided == n) return;
  KeptGrid<T> grid(boxes, threshold);
  for (size_t i = 0; i < decided; ++i) {
    if (keeps[i] != 0) grid.add(i);
  }
  grid.settle();
  for (size_t begin = decided; begin < n; begin += kChunk) {
    const size_t end = std::min(n, begin + kChunk);
    const auto slices = static_cast<int64_t>((end - begin + kSlice - 1) / kSlice);
    parallel(slices, 1, [&](int64_t first, int64_t last) {
      run_survivors(grid, begin + static_cast<size_t>(first) * kSlice,
                    std::min(end, begin + static_cast<size_t>(last) * kSlice), keeps);
    });
    run_keep(grid, begin, end, keeps);
    grid.settle();
  }
}

// The segments, their boxes in the order of the scores.
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
    const Box<T> box = load_box<T>(problem.boxes, problem.box_dtype, order[rank]);
    Segment<T>& segment = segments[static_cast<size_t>(segment_of[rank])];
    segment.boxes.set(segment.ranks.size(), box, box_area(box));
    segment.ranks.push_back(static_cast<int32_t>(rank));
  }
  return segments;
}

template <class T>
std::vector<int32_t> typed_keep(const NmsProblem& problem, int64_t limit, ParallelFor parallel) {
  const std::vector<int32_t> order = descending_order(problem.scores, problem.score_dtype, problem.n);
  const T threshold = threshold_below<T>(problem.threshold);
  const auto run_list = isa_variant<keep_with_list<T>>();
  const std::vector<Segment<T>> segments = segments_of<T>(problem, order);
  std::vector<uint8_t> keeps(order.size(), 0);
  const auto write = [&](const Segment<T>& segment, const std::vector<uint8_t>& segment_keeps) {
    for (size_t i = 0; i < segment_keeps.size(); ++i) keeps[static_cast<size_t>(segment.ranks[i])] = segment_keeps[i];
  };
  const auto is_large = [&](const Segment<T>& segment) {
    return segment.ranks.size() >= kLargeSegment && threshold >= T(0);
  };
  const auto run_small = [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const Segment<T>& segment = segments[static_cast<size_t>(s)];
      if (is_large(segment)) continue;
      std::vector<uint8_t> segment_keeps(segment.ranks.size());
      run_list(segment.boxes, threshold, segment_keeps.size(), segment_keeps.data());
      write(segment, segment_keeps);
    }
  };
  if (segments.size() == 1 || order.size() < kLargeSegment) {
    run_small(0, static_cast<int64_t>(segments.size()));
  } else {
    parallel(static_cast<int64_t>(segments.size()), 1, run_small);
  }
  for (const Segment<T>& segment : segments) {
    if (!is_large(segment)) continue;
    std::vector<uint8_t> segment_keeps(segment.ranks.size());
    keep_in_large_segment(segment.boxes, threshold, segment_keeps.data(), parallel);
    write(segment, segment_keeps);
  }
  std::vector<int32_t> kept;
  for (size_t rank = 0; rank < order.size() && static_cast<int64_t>(kept.size()) < limit; ++rank) {
    if (keeps[rank] != 0) kept.push_back(order[rank]);
  }
  return kept;
}

}  // namespace

std::vector<int32_t> nms_keep(const NmsProblem& problem, int64_t limit, ParallelFor parallel) {
  return problem.box_dtype == Dtype::kFloat64 ? typed_keep<double>(problem, limit, parallel)
                                              : typed_keep<float>(problem, limit, parallel);
}

}  // namespace retina_ops
