// The outputs of a detection head, level by level, read where the convolutions left them. Host and device, no torch.
//
// A level gives C values (logits of K classes, or 4 deltas) for each of the A anchors of each cell, in one of two
// orders:
//   by anchor  [B, cells * A, C]: channels-last maps, or outputs that were permuted already
//   planar     [B, A, C, cells]:  maps [B, A * C, H, W] as a convolution writes them, a plane for each anchor and value
// An anchor of an image is numbered by level, cell and place in the cell: first_anchor + cell * A + a.
#pragma once

#include "common/half_block.h"

namespace retina_ops {

constexpr int kMaxLevels = 8;

struct HeadLevel {
  const void* values;    // of the levels' dtype
  int64_t cells;         // H * W; by anchor: anchors of the level
  int64_t per_cell;      // A; by anchor: 1
  int64_t first_anchor;  // of the level, among the anchors of an image
  int64_t start;         // where the level begins in an array of all levels one after the other
  bool is_planar;

  RETINA_OPS_HOST_DEVICE int64_t anchors() const { return cells * per_cell; }
  // Where value c of anchor `anchor` (counted in the level) of an image stands.
  RETINA_OPS_HOST_DEVICE int64_t index(int64_t image, int64_t anchor, int64_t c, int64_t channels) const {
    if (!is_planar) return (image * anchors() + anchor) * channels + c;
    const int64_t cell = anchor / per_cell;
    const int64_t a = anchor - cell * per_cell;
    return ((image * per_cell + a) * channels + c) * cells + cell;
  }
};

struct HeadLevels {
  HeadLevel level[kMaxLevels];
  int count;
  Dtype dtype;
  int64_t batch;
  int64_t channels;  // C
  int64_t anchors;   // of an image, over all levels
  int64_t elements;  // of the array of all levels one after the other
};

// Levels begin at multiples of this many elements in the array of all levels, so that 16-byte accesses stay aligned.
constexpr int64_t kLevelAlignment = 64;

// Where a level ends in the array of all levels, and how many elements lie between it and the next.
inline int64_t level_end(const HeadLevels& levels, int number) {
  const HeadLevel& level = levels.level[number];
  return level.start + levels.batch * level.anchors() * levels.channels;
}
inline int64_t level_gap(const HeadLevels& levels, int number) {
  return (kLevelAlignment - level_end(levels, number) % kLevelAlignment) % kLevelAlignment;
}

}  // namespace retina_ops
