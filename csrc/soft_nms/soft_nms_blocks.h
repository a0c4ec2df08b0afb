// The boxes of one class in blocks of neighbours, so that a taken box is compared with few boxes that it does not
// overlap. CPU only, no torch.
//
// Boxes are sorted by size (the octave of the longer side), boxes of one size by horizontal bands of the image from top
// to bottom, boxes of one band from left to right, and cut into blocks of kLanes boxes. Each block has the smallest box
// around its boxes. A taken box that does not overlap it skips the block. Skipping is exact: it only compares
// coordinates, without rounding, and the pairs that are skipped have intersection 0 and a factor of exactly 1. Boxes
// without area, or whose area overflows, overlap nothing and do not count in the box around the block.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "nms/box_arrays.h"

namespace retina_ops {

template <class A>
class SoftNmsBlocks {
 public:
  static constexpr size_t kLanes = 16;        // boxes per block, and blocks that are tested together
  static constexpr size_t kMaxUnsorted = 64;  // so few boxes are not worth sorting

  // One slot per box; inert boxes fill the last block.
  BoxArrays<A> slots;
  std::vector<A> score, decay;              // [slots]
  std::vector<size_t> slot_of;              // [boxes]
  std::vector<A> left, top, right, bottom;  // the box around each block; empty boxes fill a multiple of kLanes

  // Takes boxes [n] and their scores [n]; decays are 1.
  void assign(const std::vector<Box<A>>& boxes, const std::vector<A>& scores) {
    const size_t n = boxes.size();
    sort_by_place(boxes);
    const size_t slot_count = (n + kLanes - 1) / kLanes * kLanes;
    slots.resize(slot_count);
    score.resize(slot_count);
    decay.resize(slot_count);
    box_of_.resize(slot_count);
    slot_of.resize(n);
    for (size_t slot = 0; slot < n; ++slot) {
      const auto number = static_cast<size_t>(entries_[slot].box);
      fill_slot(slot, boxes[number], box_area(boxes[number]), scores[number], A(1), number);
    }
    fill_blocks(n);
  }

  size_t blocks() const { return left.size(); }

  // Bit k: block first + k may hold a box that overlaps `box`.
  RETINA_OPS_HOST_DEVICE uint32_t blocks_near(size_t first, const Box<A>& box) const {
    const A* l = left.data() + first;
    const A* t = top.data() + first;
    const A* r = right.data() + first;
    const A* b = bottom.data() + first;
    uint32_t bits = 0;
    for (uint32_t k = 0; k < kLanes; ++k) {
      const bool near = (l[k] < box.x2) & (r[k] > box.x1) & (t[k] < box.y2) & (b[k] > box.y1);
      bits |= near ? uint32_t(1) << k : 0u;
    }
    return bits;
  }

  // Removes a box. Once a quarter of the boxes are removed, the others are compacted.
  void remove(size_t number) {
    score[slot_of[number]] = std::numeric_limits<A>::quiet_NaN();  // stays NaN, whatever its decay
    if (4 * ++removed_ >= count_ + 4 * kLanes) compact();
  }

 private:
  struct Entry {
    int32_t place;
    int32_t box;
    A x;
  };

  static bool is_inert(const Box<A>& box, A area) {
    return !(box.x2 > box.x1 && box.y2 > box.y1 && area > A(0) && area < std::numeric_limits<A>::infinity());
  }

  void fill_slot(size_t slot, const Box<A>& box, A area, A box_score, A box_decay, size_t number) {
    slots.set(slot, box, area);
    score[slot] = box_score;
    decay[slot] = box_decay;
    box_of_[slot] = static_cast<int32_t>(number);
    slot_of[number] = slot;
  }

  // Slots [0, count) hold boxes: fills the last block, and computes the box around each block.
  void fill_blocks(size_t count) {
    count_ = count;
    removed_ = 0;
    const size_t used = (count + kLanes - 1) / kLanes;
    for (size_t slot = count; slot < used * kLanes; ++slot) {
      slots.set(slot, Box<A>{A(0), A(0), A(0), A(0)}, A(0));
      decay[slot] = A(1);
      score[slot] = std::numeric_limits<A>::quiet_NaN();
    }
    const A infinity = std::numeric_limits<A>::infinity();
    const size_t padded = (used + kLanes - 1) / kLanes * kLanes;
    for (std::vector<A>* edge : {&left, &top}) edge->assign(padded, infinity);
    for (std::vector<A>* edge : {&right, &bottom}) edge->assign(padded, -infinity);
    for (size_t slot = 0; slot < count; ++slot) {
      const Box<A> box = slots.box(slot);
      if (is_inert(box, slots.area[slot])) continue;
      const size_t block = slot / kLanes;
      left[block] = lesser(left[block], box.x1);
      top[block] = lesser(top[block], box.y1);
      right[block] = greater(right[block], box.x2);
      bottom[block] = greater(bottom[block], box.y2);
    }
  }

  void compact() {
    size_t to = 0;
    for (size_t slot = 0; slot < count_; ++slot) {
      if (score[slot] != score[slot]) continue;
      fill_slot(to++, slots.box(slot), slots.area[slot], score[slot], decay[slot], static_cast<size_t>(box_of_[slot]));
    }
    fill_blocks(to);
  }

  // Sets entries_ to the boxes in the order of the slots.
  void sort_by_place(const std::vector<Box<A>>& boxes);

  std::vector<Entry> entries_;
  std::vector<int32_t> box_of_;  // [slots]
  size_t count_ = 0, removed_ = 0;
};

template <class A>
void SoftNmsBlocks<A>::sort_by_place(const std::vector<Box<A>>& boxes) {
  constexpr int kOctaves = 2200;  // octave o of a double has index o + kOctaves / 2
  struct Size {
    int64_t count = 0;
    double low = 0, high = 0;  // range of the y coordinates of the centres
    int32_t first = 0, bands = 1;
  };
  const auto centre = [](A low, A high) { return 0.5 * static_cast<double>(low) + 0.5 * static_cast<double>(high); };
  const size_t n = boxes.size();
  entries_.resize(n);
  for (size_t i = 0; i < n; ++i) entries_[i] = {-1, static_cast<int32_t>(i), A(0)};
  if (n <= kMaxUnsorted) return;
  std::vector<Size> sizes(kOctaves);
  for (size_t i = 0; i < n; ++i) {
    const Box<A>& box = boxes[i];
    if (is_inert(box, box_area(box))) continue;  // they come first, without comparisons of NaN
    const int octave = std::ilogb(greater(box.x2 - box.x1, box.y2 - box.y1)) + kOctaves / 2;
    entries_[i] = {octave, static_cast<int32_t>(i), box.x1};
    Size& size = sizes[static_cast<size_t>(octave)];
    const double y = centre(box.y1, box.y2);
    size.low = size.count == 0 ? y : std::min(size.low, y);
    size.high = size.count == 0 ? y : std::max(size.high, y);
    ++size.count;
  }
  int32_t next = 0;
  for (Size& size : sizes) {  // as many bands as blocks per band
    size.first = next;
    size.bands = static_cast<int32_t>(std::ceil(std::sqrt(static_cast<double>(size.count) / kLanes)));
    next += size.bands;
  }
  for (Entry& entry : entries_) {
    if (entry.place < 0) continue;
    const Size& size = sizes[static_cast<size_t>(entry.place)];
    const Box<A>& box = boxes[static_cast<size_t>(entry.box)];
    const double band = (centre(box.y1, box.y2) - size.low) / (size.high - size.low) * size.bands;  // or NaN
    entry.place = size.first + static_cast<int32_t>(band > 0.0 ? std::min(band, size.bands - 1.0) : 0.0);
  }
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    if (a.place != b.place) return a.place < b.place;
    if (a.x < b.x || b.x < a.x) return a.x < b.x;
    return a.box < b.box;
  });
}

}  // namespace retina_ops
