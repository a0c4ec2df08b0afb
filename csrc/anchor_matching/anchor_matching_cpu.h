// Anchor matching on the CPU, over plain memory. The anchors are cut into groups, which two phases process; the groups
// of a phase are independent of each other. No torch.
//
//   MatchWork<T> work = prepare_matching<T>(problem);
//   for each group: match_find_best(work, group);
//   match_merge(work);
//   for each group: match_decide(work, group);
//   match_count(work);
#pragma once

#include <vector>

#include "common/box.h"
#include "common/half_block.h"

namespace retina_ops {

// One call of the operator. All arrays are contiguous; arithmetic is in float, or double for float64 boxes.
struct MatchProblem {
  const void* anchors;  // [anchor_count, 4], or [batch, anchor_count, 4]
  bool anchors_per_image;
  const void* gt_boxes;      // [batch, gt_capacity, 4]
  const int32_t* gt_counts;  // [batch] number of valid boxes per image
  const void* regions;       // [batch, region_capacity, 4] regions to ignore, or null
  const int32_t* region_counts;
  Dtype dtype;
  int64_t batch;
  int64_t anchor_count;
  int64_t gt_capacity;
  int64_t region_capacity;
  double fg_iou;
  double bg_iou;
  double ignore_iof;
  bool allow_low_quality;
  double min_pos_iou;   // lowest IoU of a low-quality match
  int64_t* matches;     // [batch, anchor_count]
  int64_t* foreground;  // [batch] number of foreground anchors per image
};

// The highest IoU of a box with the anchors of a group, and the first and the last tile in which an anchor has it.
template <class T>
struct GroupBest {
  T iou;
  int32_t first_tile, last_tile;
};

// Ground-truth boxes or ignore regions in the type of the arithmetic, and their areas.
template <class T>
struct MatchBoxes {
  std::vector<Box<T>> boxes;  // [batch, capacity]
  std::vector<T> areas;
};

template <class T>
struct MatchWork {
  MatchProblem problem;
  MatchBoxes<T> gt;
  MatchBoxes<T> regions;
  int64_t groups_per_image;            // bounded, so that memory is O(anchors + boxes)
  int64_t group_size;                  // anchors per group
  std::vector<GroupBest<T>> in_group;  // [batch, groups_per_image, gt_capacity]
  std::vector<T> best;                 // [batch, gt_capacity] over all groups
  std::vector<int64_t> foreground;     // [batch, groups_per_image] number of foreground anchors

  int64_t groups() const { return problem.batch * groups_per_image; }
};

template <class T>
MatchWork<T> prepare_matching(const MatchProblem& problem);
// Finds the best box of each anchor, and the best IoU of each box in the group.
template <class T>
void match_find_best(MatchWork<T>& work, int64_t group);
// Finds the best IoU of each box over all groups.
template <class T>
void match_merge(MatchWork<T>& work);
// Applies low-quality matches and regions to ignore, writes the final matches and counts the foreground of the group.
template <class T>
void match_decide(MatchWork<T>& work, int64_t group);
// Adds up the foreground anchors of each image.
template <class T>
void match_count(const MatchWork<T>& work);

}  // namespace retina_ops
