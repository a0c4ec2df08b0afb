// Tiles of neighbouring anchors on the CPU: how they are loaded, which boxes can touch one, and a box compared with all
// anchors of one. No torch.
#pragma once

#include <limits>

#include "anchor_matching/anchor_matching.h"
#include "anchor_matching/anchor_matching_cpu.h"

namespace retina_ops {

constexpr int kTile = 64;  // anchors compared together

template <class T>
constexpr int kLanes = 64 / sizeof(T);

// A tile of anchors, one array a coordinate. Past the last anchor they are NaN: they overlap nothing.
template <class T>
struct Tile {
  alignas(64) T x1[kTile];
  alignas(64) T y1[kTile];
  alignas(64) T x2[kTile];
  alignas(64) T y2[kTile];
  alignas(64) T area[kTile];
  Bounds<T> bounds;
};

template <class T>
RETINA_OPS_HOST_DEVICE void load_tile(const MatchProblem& problem, int64_t image, int64_t first, int count,
                                      Tile<T>& tile) {
  alignas(64) T values[4 * kTile];
  const int64_t base = problem.anchors_per_image ? image * problem.anchor_count : 0;
  load_block<4 * kTile>(problem.anchors, problem.dtype, 4 * (base + first), values, 4 * count);
  for (int i = 0; i < kTile; ++i) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    tile.x1[i] = i < count ? values[4 * i] : nan;
    tile.y1[i] = i < count ? values[4 * i + 1] : nan;
    tile.x2[i] = i < count ? values[4 * i + 2] : nan;
    tile.y2[i] = i < count ? values[4 * i + 3] : nan;
  }
  tile.bounds = no_bounds<T>();
  for (int i = 0; i < kTile; ++i) {
    const Box<T> anchor{tile.x1[i], tile.y1[i], tile.x2[i], tile.y2[i]};
    tile.area[i] = box_area(anchor);
    extend(tile.bounds, Bounds<T>{anchor.x1, anchor.y1, anchor.x2, anchor.y2});
  }
}

template <class T>
RETINA_OPS_HOST_DEVICE Box<T> anchor_at(const Tile<T>& tile, int i) {
  return {tile.x1[i], tile.y1[i], tile.x2[i], tile.y2[i]};
}

// Which of `boxes` [count] may overlap the bounds: their indices, ascending. `from` null means all of 0..count-1.
template <class T>
RETINA_OPS_HOST_DEVICE int select_boxes(const Bounds<T>& bounds, bool all, const Box<T>* boxes, const int32_t* from,
                                        int count, int32_t* selected) {
  int kept = 0;
  for (int i = 0; i < count; ++i) {
    const int32_t index = from == nullptr ? i : from[i];
    selected[kept] = index;
    kept += all || may_overlap(bounds, boxes[index]) ? 1 : 0;
  }
  return kept;
}

// The highest IoU of box `index` with the tile's anchors; the anchors' own best are brought up to date.
template <class T>
RETINA_OPS_HOST_DEVICE T compare_tile(const Tile<T>& tile, const Box<T>& box, T area, int32_t index, T* best,
                                      int32_t* best_index) {
  alignas(64) T highest[kLanes<T>] = {};
  for (int i = 0; i < kTile; i += kLanes<T>) {
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const T iou = box_iou(box, area, anchor_at(tile, i + lane), tile.area[i + lane]);
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
