// The outputs of a detection head, level by level, in the memory layout in which the head left them. Host and device,
// no torch.
//
// A level holds C values (logits of K classes, or 4 deltas) for each of the A anchors of each cell, in one of two
// layouts:
//   by anchor  [B, cells * A, C]: channels-last maps, or outputs that are permuted already
//   planar     [B, A, C, cells]:  maps [B, A * C, H, W] as a convolution writes them, one plane per anchor and value
// The anchors of an image are numbered by level, cell and index in the cell: first_anchor + cell * A + a.
#pragma once

#include "common/half_block.h"

namespace retina_ops {

constexpr int kMaxLevels = 8;

struct HeadLevel {
  const void* values;    // of the levels' dtype
  int64_t cells;         // H * W; by anchor: the number of anchors of the level
  int64_t per_cell;      // A; by anchor: 1
  int64_t first_anchor;  // number of the level's first anchor among the anchors of an image
  int64_t start;         // index of the level's first element in an array that holds all levels in turn
  bool is_planar;

  RETINA_OPS_HOST_DEVICE int64_t anchors() const { return cells * per_cell; }
  // The index of value c of an anchor of an image; anchors are counted within the level.
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
  int64_t anchors;   // per image, over all levels
  int64_t elements;  // of an array that holds all levels in turn
};

// In an array of all levels each level begins at a multiple of this many elements, so that 16-byte accesses are
// aligned.
constexpr int64_t kLevelAlignment = 64;

// In an array of all levels: the index past the level's last element, and how many unused elements follow.
inline int64_t level_end(const HeadLevels& levels, int number) {
  const HeadLevel& level = levels.level[number];
  return level.start + levels.batch * level.anchors() * levels.channels;
}
inline int64_t level_gap(const HeadLevels& levels, int number) {
  return (kLevelAlignment - level_end(levels, number) % kLevelAlignment) % kLevelAlignment;
}

}  // namespace retina_ops
