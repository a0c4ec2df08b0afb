// Tiles of neighbouring anchors: loading a tile, selecting the boxes that may overlap it, and comparing one box with
// all of its anchors. CPU only, no torch.
#pragma once

#include <limits>

#include "anchor_matching/anchor_matching.h"
#include "anchor_matching/anchor_matching_cpu.h"
#include "common/box_block.h"

namespace retina_ops {

constexpr int kTileAnchors = kBlockBoxes;

// Past the last anchor the coordinates are NaN: such anchors overlap nothing.
template <class T>
struct AnchorTile {
  BoxBlock<T> anchors;
  alignas(64) T area[kTileAnchors];
  Bounds<T> bounds;
};

template <class T>
RETINA_OPS_HOST_DEVICE void load_tile(const MatchProblem& problem, int64_t image, int64_t first, int count,
                                      AnchorTile<T>& tile) {
  alignas(64) T values[4 * kTileAnchors];
  const int64_t base = problem.anchors_per_image ? image * problem.anchor_count : 0;
  load_block<4 * kTileAnchors>(problem.anchors, problem.dtype, 4 * (base + first), values, 4 * count);
  for (int i = 0; i < kTileAnchors; ++i) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    tile.anchors.x1[i] = i < count ? values[4 * i] : nan;
    tile.anchors.y1[i] = i < count ? values[4 * i + 1] : nan;
    tile.anchors.x2[i] = i < count ? values[4 * i + 2] : nan;
    tile.anchors.y2[i] = i < count ? values[4 * i + 3] : nan;
  }
  tile.bounds = no_bounds<T>();
  for (int i = 0; i < kTileAnchors; ++i) {
    const Box<T> anchor = tile.anchors.box(i);
    tile.area[i] = box_area(anchor);
    extend(tile.bounds, Bounds<T>{anchor.x1, anchor.y1, anchor.x2, anchor.y2});
  }
}

// Selects the boxes that may overlap the bounds, or `all`. Writes their indices to `selected`, ascending, and returns
// their number. candidates: [count] indices to select from; null means 0 to count - 1.
template <class T>
RETINA_OPS_HOST_DEVICE int select_boxes(const Bounds<T>& bounds, bool all, const Box<T>* boxes,
                                        const int32_t* candidates, int count, int32_t* selected) {
  int kept = 0;
  for (int i = 0; i < count; ++i) {
    const int32_t index = candidates == nullptr ? i : candidates[i];
    selected[kept] = index;
    kept += all || may_overlap(bounds, boxes[index]) ? 1 : 0;
  }
  return kept;
}

// Compares box `index` with the anchors of a tile: updates the best IoU and the best box of each anchor, and returns
// the highest IoU of the box.
template <class T>
RETINA_OPS_HOST_DEVICE T compare_tile(const AnchorTile<T>& tile, const Box<T>& box, T area, int32_t index, T* best,
                                      int32_t* best_index) {
  constexpr int kLanes = 64 / sizeof(T);  // of a vector of 512 bits
  alignas(64) T highest[kLanes] = {};
  for (int i = 0; i < kTileAnchors; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const T iou = box_iou(box, area, tile.anchors.box(i + lane), tile.area[i + lane]);
      const bool better = iou > best[i + lane];
      best[i + lane] = better ? iou : best[i + lane];
      best_index[i + lane] = better ? index : best_index[i + lane];
      highest[lane] = iou > highest[lane] ? iou : highest[lane];
    }
  }
  T result = T(0);
  for (const T value : highest) result = value > result ? value : result;
  return result;
}

}  // namespace retina_ops
