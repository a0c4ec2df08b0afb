// The boxes of one class, grouped by place so that a taken box meets few of those that it does not overlap. CPU only,
// no torch.
//
// A group holds boxes of about one height (an octave) from one band of the image, by ascending x1. Groups know the
// interval that their boxes span in y, and for each box the furthest x2 of those up to it: so which group, and which
// range of a group, can overlap a box is decided by comparing coordinates. No bound is computed, nothing can round: a
// pair that is left out has intersection 0, its factor is exactly 1. Boxes without area, or whose area overflows, are
// in a group that nothing overlaps.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "common/box.h"

namespace retina_ops {

template <class A>
class SoftNmsGroups {
 public:
  static constexpr size_t kLanes = 16;       // groups start at multiples of this, and are padded to one
  static constexpr size_t kUngrouped = 64;   // boxes up to which one group is as good
  static constexpr size_t kGroupBoxes = 48;  // boxes that a group should have on average

  struct Group {
    size_t begin, count, dead;  // slots; those of taken boxes
    A low, high;                // no box of it reaches past these in y
  };

  // Slots: one box each, and inert ones to fill up.
  std::vector<A> x1, y1, x2, y2, area, score, decay;
  std::vector<A> reach;          // the greatest x2 of the group's slots up to this one
  std::vector<int32_t> box_of;   // [slots] number of the box
  std::vector<size_t> slot_of;   // [boxes]
  std::vector<size_t> group_of;  // [boxes]
  std::vector<Group> groups;

  // Boxes [n] and their scores [n]; decays are 1.
  void assign(const std::vector<Box<A>>& boxes, const std::vector<A>& scores) {
    const size_t n = boxes.size();
    sort_by_group(boxes);
    groups.clear();
    resize_slots(0);
    slot_of.resize(n);
    group_of.resize(n);
    for (size_t first = 0; first < n;) {
      size_t last = first;
      while (last < n && entries_[last].group == entries_[first].group) ++last;
      const bool inert = entries_[first].group == kInert;
      const size_t begin = score.size();
      const A infinity = std::numeric_limits<A>::infinity();
      groups.push_back({begin, last - first, 0, infinity, -infinity});
      resize_slots(begin + (last - first + kLanes - 1) / kLanes * kLanes);
      for (size_t k = first; k < last; ++k) {
        const auto number = static_cast<size_t>(entries_[k].box);
        const Box<A>& box = boxes[number];
        put(begin + k - first, box, box_area(box), scores[number], A(1), number);
        group_of[number] = groups.size() - 1;
      }
      if (!inert) measure(groups.back());
      first = last;
    }
  }

  Box<A> box(size_t slot) const { return {x1[slot], y1[slot], x2[slot], y2[slot]}; }

  // The slots of a group that box may overlap, whole multiples of kLanes; empty where begin >= end.
  RETINA_OPS_HOST_DEVICE void range_of(const Group& group, const Box<A>& box, size_t& begin, size_t& end) const {
    const auto first = static_cast<std::ptrdiff_t>(group.begin);
    const auto last = static_cast<std::ptrdiff_t>(group.begin + group.count);
    begin = group.begin;
    end = group.begin + group.count;
    if (group.count > kLanes && sorted_) {
      end = static_cast<size_t>(std::lower_bound(x1.begin() + first, x1.begin() + last, box.x2) - x1.begin());
      begin =
          static_cast<size_t>(std::upper_bound(reach.begin() + first, reach.begin() + last, box.x1) - reach.begin());
    }
    begin = begin / kLanes * kLanes;
    end = (end + kLanes - 1) / kLanes * kLanes;
  }

  // Leaves a box's slot dead; a group of which a quarter is dead is compacted.
  void remove(size_t number) {
    score[slot_of[number]] = std::numeric_limits<A>::quiet_NaN();  // and so whatever it is multiplied by
    Group& group = groups[group_of[number]];
    if (4 * ++group.dead >= group.count + 2 * kLanes) compact(group);
  }

 private:
  static constexpr int32_t kInert = -1;
  struct Entry {
    int32_t group;
    int32_t box;
    A x1;
  };

  void resize_slots(size_t count) {
    for (auto* each : {&x1, &y1, &x2, &y2, &area, &reach}) each->resize(count, A(0));
    score.resize(count, std::numeric_limits<A>::quiet_NaN());
    decay.resize(count, A(1));
    box_of.resize(count, -1);
  }

  void put(size_t slot, const Box<A>& box, A its_area, A its_score, A its_decay, size_t number) {
    x1[slot] = box.x1;
    y1[slot] = box.y1;
    x2[slot] = box.x2;
    y2[slot] = box.y2;
    area[slot] = its_area;
    score[slot] = its_score;
    decay[slot] = its_decay;
    box_of[slot] = static_cast<int32_t>(number);
    slot_of[number] = slot;
  }

  void measure(Group& group) {
    const A infinity = std::numeric_limits<A>::infinity();
    group.low = infinity;
    group.high = -infinity;
    A furthest = -infinity;
    for (size_t slot = group.begin; slot < group.begin + group.count; ++slot) {
      furthest = greater(furthest, x2[slot]);
      reach[slot] = furthest;
      group.low = lesser(group.low, y1[slot]);
      group.high = greater(group.high, y2[slot]);
    }
  }

  void compact(Group& group) {
    const size_t end = group.begin + group.count;
    size_t to = group.begin;
    for (size_t slot = group.begin; slot < end; ++slot) {
      if (score[slot] != score[slot]) continue;
      put(to++, box(slot), area[slot], score[slot], decay[slot], static_cast<size_t>(box_of[slot]));
    }
    group.count = to - group.begin;
    group.dead = 0;
    for (; to < end; ++to) {
      x1[to] = y1[to] = x2[to] = y2[to] = area[to] = A(0);
      score[to] = std::numeric_limits<A>::quiet_NaN();
    }
    if (group.low < group.high) measure(group);
  }

  // entries_: the boxes, those of a group side by side.
  void sort_by_group(const std::vector<Box<A>>& boxes);

  std::vector<Entry> entries_;
  bool sorted_ = false;
};

template <class A>
void SoftNmsGroups<A>::sort_by_group(const std::vector<Box<A>>& boxes) {
  constexpr int kOctaves = 2200;  // of doubles, shifted by half
  struct Level {
    int64_t count = 0;
    double low = 0, high = 0;  // of the centres
    int32_t first = 0, bands = 1;
  };
  const auto centre = [](const Box<A>& box) {
    return 0.5 * static_cast<double>(box.y1) + 0.5 * static_cast<double>(box.y2);
  };
  const size_t n = boxes.size();
  sorted_ = n > kUngrouped;
  std::vector<Level> levels(sorted_ ? kOctaves : 0);
  entries_.resize(n);
  for (size_t i = 0; i < n; ++i) {
    const Box<A>& box = boxes[i];
    const A height = box.y2 - box.y1;
    const A area_of_box = box_area(box);
    const bool inert =
        !(box.x2 > box.x1 && height > A(0) && area_of_box > A(0) && area_of_box < std::numeric_limits<A>::infinity());
    entries_[i] = {inert ? kInert : 0, static_cast<int32_t>(i), inert ? A(0) : box.x1};  // no NaN is compared
    if (inert || !sorted_) continue;
    const int octave = std::ilogb(height) + kOctaves / 2;
    entries_[i].group = octave;
    Level& level = levels[static_cast<size_t>(octave)];
    const double y = centre(box);
    level.low = level.count == 0 ? y : std::min(level.low, y);
    level.high = level.count == 0 ? y : std::max(level.high, y);
    ++level.count;
  }
  const auto by_group = [](const Entry& a, const Entry& b) { return a.group < b.group; };
  if (!sorted_) {
    std::stable_sort(entries_.begin(), entries_.end(), by_group);
    return;
  }
  int32_t next = 0;
  for (int octave = 0; octave < kOctaves; ++octave) {
    Level& level = levels[static_cast<size_t>(octave)];
    level.first = next;
    if (level.count == 0) continue;
    const double most = std::max(1.0, static_cast<double>(level.count) / static_cast<double>(kGroupBoxes));
    const double wanted = (level.high - level.low) / std::ldexp(1.0, octave - kOctaves / 2) + 1.0;
    level.bands = static_cast<int32_t>(std::min(most, wanted));
    next += level.bands;
  }
  for (Entry& entry : entries_) {
    if (entry.group == kInert) continue;
    const Level& level = levels[static_cast<size_t>(entry.group)];
    const double share = (centre(boxes[static_cast<size_t>(entry.box)]) - level.low) / (level.high - level.low);
    const double band = share * level.bands;  // NaN where all have one centre
    entry.group = level.first + static_cast<int32_t>(band > 0.0 ? std::min(band, level.bands - 1.0) : 0.0);
  }
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    if (a.group != b.group) return a.group < b.group;
    if (a.x1 < b.x1 || b.x1 < a.x1) return a.x1 < b.x1;
    return a.box < b.box;
  });
}

}  // namespace retina_ops
