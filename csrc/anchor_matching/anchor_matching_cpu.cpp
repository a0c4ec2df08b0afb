// Anchor matching on the CPU. It is compute-bound: 16 pairs take about 20 vector operations and a division. So as few
// pairs as possible are compared. Anchors are taken in tiles of neighbours (the anchors of a detector come in rows of
// cells). A box is compared with a tile only if it overlaps the bounds of the tile, and these are tested only for boxes
// that overlap the bounds of the tile's group.
#include "anchor_matching/anchor_matching_cpu.h"

#include <algorithm>
#include <numeric>

#include "anchor_matching/anchor_matching_tile.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int64_t kMaxGroupsPerImage = 32;
constexpr int64_t kMinGroupSize = 4096;  // anchors; less work is not worth a thread

// Anchors [begin, end) of an image.
struct Range {
  int64_t image, begin, end;
};

template <class T>
Range range_of(const MatchWork<T>& work, int64_t group) {
  const int64_t image = group / work.groups_per_image;
  const int64_t begin = (group - image * work.groups_per_image) * work.group_size;
  return {image, begin, std::min(begin + work.group_size, work.problem.anchor_count)};
}

template <class T>
MatchThresholds<T> thresholds_of(const MatchProblem& problem) {
  return {static_cast<T>(problem.fg_iou), static_cast<T>(problem.bg_iou), static_cast<T>(problem.ignore_iof),
          static_cast<T>(problem.min_pos_iou)};
}

template <class T>
RETINA_OPS_HOST_DEVICE void find_best(MatchWork<T>& work, int64_t group) {
  const MatchProblem& problem = work.problem;
  const Range range = range_of(work, group);
  const MatchThresholds<T> thresholds = thresholds_of<T>(problem);
  const bool all = !only_overlaps_matter(thresholds);
  const Box<T>* boxes = work.gt.boxes.data() + range.image * problem.gt_capacity;
  const T* areas = work.gt.areas.data() + range.image * problem.gt_capacity;
  GroupBest<T>* in_group = work.in_group.data() + group * problem.gt_capacity;
  int64_t* matches = problem.matches + range.image * problem.anchor_count;
  const int count = problem.gt_counts[range.image];
  std::vector<int32_t> near_group(static_cast<size_t>(count) + 1);
  std::vector<int32_t> near_tile(static_cast<size_t>(count) + 1);
  AnchorTile<T> tile;
  Bounds<T> bounds = no_bounds<T>();
  for (int64_t first = range.begin; first < range.end && !all; first += kTileAnchors) {
    load_tile(problem, range.image, first, block_count<kTileAnchors>(first, range.end), tile);
    extend(bounds, tile.bounds);
  }
  const int group_count = select_boxes(bounds, all, boxes, nullptr, count, near_group.data());
  alignas(64) T best[kTileAnchors];
  alignas(64) int32_t best_index[kTileAnchors];
  for (int64_t first = range.begin; first < range.end; first += kTileAnchors) {
    const int anchors = block_count<kTileAnchors>(first, range.end);
    const auto tile_index = static_cast<int32_t>((first - range.begin) / kTileAnchors);
    load_tile(problem, range.image, first, anchors, tile);
    for (int i = 0; i < kTileAnchors; ++i) {
      best[i] = all ? -std::numeric_limits<T>::infinity() : T(0);
      best_index[i] = 0;
    }
    const int tile_count = select_boxes(tile.bounds, all, boxes, near_group.data(), group_count, near_tile.data());
    for (int n = 0; n < tile_count; ++n) {
      const int32_t j = near_tile[static_cast<size_t>(n)];
      const T highest = compare_tile(tile, boxes[j], areas[j], j, best, best_index);
      if (highest > in_group[j].iou) in_group[j] = {highest, tile_index, tile_index};
      if (highest == in_group[j].iou) in_group[j].last_tile = tile_index;
    }
    for (int i = 0; i < anchors; ++i) {
      matches[first + i] =
          count > 0 ? provisional_match(best[i], best_index[i], thresholds) : int64_t(MatchCode::kBackground);
    }
  }
}

// Makes those anchors of the range foreground whose IoU with box j is the highest that the box has.
template <class T>
RETINA_OPS_HOST_DEVICE void add_low_quality_matches(const MatchWork<T>& work, const Range& range, int64_t j,
                                                    const GroupBest<T>& highest) {
  const MatchProblem& problem = work.problem;
  const Box<T> box = work.gt.boxes[static_cast<size_t>(range.image * problem.gt_capacity + j)];
  const T area = work.gt.areas[static_cast<size_t>(range.image * problem.gt_capacity + j)];
  int64_t* matches = problem.matches + range.image * problem.anchor_count;
  AnchorTile<T> tile;
  for (int64_t t = highest.first_tile; t <= highest.last_tile; ++t) {
    const int64_t first = range.begin + t * kTileAnchors;
    const int anchors = block_count<kTileAnchors>(first, range.end);
    load_tile(problem, range.image, first, anchors, tile);
    if (!may_overlap(tile.bounds, box)) continue;
    bool is_highest[kTileAnchors];
    for (int i = 0; i < kTileAnchors; ++i) {
      is_highest[i] = box_iou(box, area, tile.anchors.box(i), tile.area[i]) == highest.iou;
    }
    for (int i = 0; i < anchors; ++i) {
      if (is_highest[i]) matches[first + i] &= ~int64_t(3);  // MatchCode::kForeground
    }
  }
}

// Ignores those anchors of the range that an ignore region covers and that are not foreground.
template <class T>
RETINA_OPS_HOST_DEVICE void apply_ignore_regions(const MatchWork<T>& work, const Range& range) {
  const MatchProblem& problem = work.problem;
  const Box<T>* regions = work.regions.boxes.data() + range.image * problem.region_capacity;
  const T threshold = static_cast<T>(problem.ignore_iof);
  int64_t* matches = problem.matches + range.image * problem.anchor_count;
  AnchorTile<T> tile;
  for (int64_t first = range.begin; first < range.end; first += kTileAnchors) {
    const int anchors = block_count<kTileAnchors>(first, range.end);
    load_tile(problem, range.image, first, anchors, tile);
    for (int32_t r = 0; r < problem.region_counts[range.image]; ++r) {
      if (!may_overlap(tile.bounds, regions[r])) continue;
      for (int i = 0; i < anchors; ++i) {
        const T covered = div_rn(box_intersection(regions[r], tile.anchors.box(i)), tile.area[i]);
        int64_t& match = matches[first + i];
        if (!is_foreground(match) && covered >= threshold) match = int64_t(MatchCode::kBetween);
      }
    }
  }
}

template <class T>
RETINA_OPS_HOST_DEVICE void decide(MatchWork<T>& work, int64_t group) {
  const MatchProblem& problem = work.problem;
  const Range range = range_of(work, group);
  const GroupBest<T>* in_group = work.in_group.data() + group * problem.gt_capacity;
  const T* best = work.best.data() + range.image * problem.gt_capacity;
  for (int32_t j = 0; problem.allow_low_quality && j < problem.gt_counts[range.image]; ++j) {
    const bool has_matches = best[j] > T(0) && best[j] >= static_cast<T>(problem.min_pos_iou);
    if (has_matches && in_group[j].iou == best[j]) add_low_quality_matches(work, range, j, in_group[j]);
  }
  if (problem.regions != nullptr && problem.region_counts[range.image] > 0) apply_ignore_regions(work, range);
  int64_t* matches = problem.matches + range.image * problem.anchor_count;
  int64_t foreground = 0;
  for (int64_t i = range.begin; i < range.end; ++i) {
    matches[i] = final_match(matches[i]);
    foreground += matches[i] >= 0 ? 1 : 0;
  }
  work.foreground[static_cast<size_t>(group)] = foreground;
}

template <class T>
MatchBoxes<T> load_boxes(const void* boxes, Dtype dtype, int64_t count) {
  MatchBoxes<T> loaded;
  loaded.boxes.resize(static_cast<size_t>(count));
  loaded.areas.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    loaded.boxes[static_cast<size_t>(i)] = load_box<T>(boxes, dtype, i);
    loaded.areas[static_cast<size_t>(i)] = box_area(loaded.boxes[static_cast<size_t>(i)]);
  }
  return loaded;
}

}  // namespace

template <class T>
MatchWork<T> prepare_matching(const MatchProblem& problem) {
  MatchWork<T> work{};
  work.problem = problem;
  work.gt = load_boxes<T>(problem.gt_boxes, problem.dtype, problem.batch * problem.gt_capacity);
  if (problem.regions != nullptr) {
    work.regions = load_boxes<T>(problem.regions, problem.dtype, problem.batch * problem.region_capacity);
  }
  const int64_t share = (problem.anchor_count + kMaxGroupsPerImage - 1) / kMaxGroupsPerImage;
  work.group_size = std::max(kMinGroupSize, (share + kTileAnchors - 1) / kTileAnchors * kTileAnchors);
  work.groups_per_image = (problem.anchor_count + work.group_size - 1) / work.group_size;
  work.in_group.resize(static_cast<size_t>(work.groups() * problem.gt_capacity), GroupBest<T>{T(0), 0, 0});
  work.best.resize(static_cast<size_t>(problem.batch * problem.gt_capacity), T(0));
  work.foreground.resize(static_cast<size_t>(work.groups()), 0);
  return work;
}

template <class T>
void match_find_best(MatchWork<T>& work, int64_t group) {
  isa_variant<find_best<T>>()(work, group);
}

template <class T>
void match_merge(MatchWork<T>& work) {
  const int64_t capacity = work.problem.gt_capacity;
  for (int64_t group = 0; group < work.groups(); ++group) {
    T* best = work.best.data() + group / work.groups_per_image * capacity;
    const GroupBest<T>* in_group = work.in_group.data() + group * capacity;
    for (int64_t j = 0; j < capacity; ++j) best[j] = in_group[j].iou > best[j] ? in_group[j].iou : best[j];
  }
}

template <class T>
void match_decide(MatchWork<T>& work, int64_t group) {
  isa_variant<decide<T>>()(work, group);
}

template <class T>
void match_count(const MatchWork<T>& work) {
  for (int64_t image = 0; image < work.problem.batch; ++image) {
    const int64_t* first = work.foreground.data() + image * work.groups_per_image;
    work.problem.foreground[image] = std::accumulate(first, first + work.groups_per_image, int64_t(0));
  }
}

template MatchWork<float> prepare_matching(const MatchProblem&);
template MatchWork<double> prepare_matching(const MatchProblem&);
template void match_find_best(MatchWork<float>&, int64_t);
template void match_find_best(MatchWork<double>&, int64_t);
template void match_merge(MatchWork<float>&);
template void match_merge(MatchWork<double>&);
template void match_decide(MatchWork<float>&, int64_t);
template void match_decide(MatchWork<double>&, int64_t);
template void match_count(const MatchWork<float>&);
template void match_count(const MatchWork<double>&);

}  // namespace retina_ops
