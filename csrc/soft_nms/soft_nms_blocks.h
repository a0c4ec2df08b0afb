// The boxes of one class in blocks of neighbours, so that a taken box meets few of those that it does not overlap. CPU
// only, no torch.
//
// Boxes are sorted by size (the octave of the longer side), in a size by bands of the image from top to bottom, in a
// band from left to right, and cut into blocks of kLanes. A block knows the smallest box around all of its boxes; one
// that this box does not meet is left out. That is decided by comparing coordinates: no bound is computed, nothing can
// round, and a pair that is left out has intersection 0 and a factor of exactly 1. Boxes without area, or whose area
// overflows, overlap nothing and widen no block.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/box.h"

namespace retina_ops {

template <class A>
class SoftNmsBlocks {
 public:
  static constexpr size_t kLanes = 16;     // boxes of a block, and blocks that are looked at together
  static constexpr size_t kUnsorted = 64;  // boxes up to which any order is as good

  // Slots: one box each, and after the last box inert ones to a whole block.
  std::vector<A> x1, y1, x2, y2, area, score, decay;
  std::vector<size_t> slot_of;              // [boxes]
  std::vector<A> left, top, right, bottom;  // of what each block spans; empty ones after the last to a whole kLanes

  // Boxes [n] and their scores [n]; decays are 1.
  void assign(const std::vector<Box<A>>& boxes, const std::vector<A>& scores) {
    const size_t n = boxes.size();
    sort_by_place(boxes);
    const size_t slots = (n + kLanes - 1) / kLanes * kLanes;
    for (auto* each : {&x1, &y1, &x2, &y2, &area, &score, &decay}) each->resize(slots);
    box_of_.resize(slots);
    slot_of.resize(n);
    for (size_t slot = 0; slot < n; ++slot) {
      const auto number = static_cast<size_t>(entries_[slot].box);
      put(slot, boxes[number], box_area(boxes[number]), scores[number], A(1), number);
    }
    finish(n);
  }

  Box<A> box(size_t slot) const { return {x1[slot], y1[slot], x2[slot], y2[slot]}; }
  size_t blocks() const { return left.size(); }

  // Bit k: block first + k may hold a box that overlaps this one.
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

  // A box that is no longer there. Once a quarter are gone, the others move together.
  void remove(size_t number) {
    score[slot_of[number]] = std::numeric_limits<A>::quiet_NaN();  // and so whatever it is multiplied by
    if (4 * ++gone_ >= count_ + 4 * kLanes) compact();
  }

 private:
  struct Entry {
    int32_t place;
    int32_t box;
    A x;
  };

  static bool is_inert(const Box<A>& box, A its_area) {
    return !(box.x2 > box.x1 && box.y2 > box.y1 && its_area > A(0) && its_area < std::numeric_limits<A>::infinity());
  }

  void put(size_t slot, const Box<A>& box, A its_area, A its_score, A its_decay, size_t number) {
    x1[slot] = box.x1;
    y1[slot] = box.y1;
    x2[slot] = box.x2;
    y2[slot] = box.y2;
    area[slot] = its_area;
    score[slot] = its_score;
    decay[slot] = its_decay;
    box_of_[slot] = static_cast<int32_t>(number);
    slot_of[number] = slot;
  }

  // Slots [0, count) hold boxes: fills up the last block and measures all.
  void finish(size_t count) {
    count_ = count;
    gone_ = 0;
    const size_t used = (count + kLanes - 1) / kLanes;
    for (size_t slot = count; slot < used * kLanes; ++slot) {
      x1[slot] = y1[slot] = x2[slot] = y2[slot] = area[slot] = A(0);
      decay[slot] = A(1);
      score[slot] = std::numeric_limits<A>::quiet_NaN();
    }
    const A infinity = std::numeric_limits<A>::infinity();
    const size_t padded = (used + kLanes - 1) / kLanes * kLanes;
    for (auto* each : {&left, &top}) each->assign(padded, infinity);
    for (auto* each : {&right, &bottom}) each->assign(padded, -infinity);
    for (size_t slot = 0; slot < count; ++slot) {
      if (is_inert(box(slot), area[slot])) continue;
      const size_t block = slot / kLanes;
      left[block] = lesser(left[block], x1[slot]);
      top[block] = lesser(top[block], y1[slot]);
      right[block] = greater(right[block], x2[slot]);
      bottom[block] = greater(bottom[block], y2[slot]);
    }
  }

  void compact() {
    size_t to = 0;
    for (size_t slot = 0; slot < count_; ++slot) {
      if (score[slot] != score[slot]) continue;
      put(to++, box(slot), area[slot], score[slot], decay[slot], static_cast<size_t>(box_of_[slot]));
    }
    finish(to);
  }

  // entries_: the boxes in the order of the slots.
  void sort_by_place(const std::vector<Box<A>>& boxes);

  std::vector<Entry> entries_;
  std::vector<int32_t> box_of_;  // [slots]
  size_t count_ = 0, gone_ = 0;
};

template <class A>
void SoftNmsBlocks<A>::sort_by_place(const std::vector<Box<A>>& boxes) {
  constexpr int kOctaves = 2200;  // of doubles, shifted by half
  struct Size {
    int64_t count = 0;
    double low = 0, high = 0;  // of the centres in y
    int32_t first = 0, bands = 1;
  };
  const auto centre = [](A low, A high) { return 0.5 * static_cast<double>(low) + 0.5 * static_cast<double>(high); };
  const size_t n = boxes.size();
  entries_.resize(n);
  for (size_t i = 0; i < n; ++i) entries_[i] = {-1, static_cast<int32_t>(i), A(0)};
  if (n <= kUnsorted) return;
  std::vector<Size> sizes(kOctaves);
  for (size_t i = 0; i < n; ++i) {
    const Box<A>& box = boxes[i];
    if (is_inert(box, box_area(box))) continue;  // before all others; its NaN are not compared
    const int octave = std::ilogb(greater(box.x2 - box.x1, box.y2 - box.y1)) + kOctaves / 2;
    entries_[i] = {octave, static_cast<int32_t>(i), box.x1};
    Size& size = sizes[static_cast<size_t>(octave)];
    const double y = centre(box.y1, box.y2);
    size.low = size.count == 0 ? y : std::min(size.low, y);
    size.high = size.count == 0 ? y : std::max(size.high, y);
    ++size.count;
  }
  int32_t next = 0;
  for (Size& size : sizes) {  // as many bands as blocks in a band
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
