// The levels of a head's outputs that a case is given.
#pragma once

#include <string>

#include "case.h"
#include "common/head_levels.h"

// Levels NAME0, NAME1, ..., and where each begins in an array of all; pointers are moved back by `first` images.
inline retina_ops::HeadLevels levels_of(const Case& c, const std::string& name, int64_t channels, int64_t first) {
  using retina_ops::kLevelAlignment;
  retina_ops::HeadLevels all{};
  all.count = static_cast<int>(c.integer("levels"));
  all.dtype = c.dtype(name + "_dtype");
  all.batch = first + c.integer("batch");
  all.channels = channels;
  for (int l = 0; l < all.count; ++l) {
    const std::string number = std::to_string(l);
    retina_ops::HeadLevel& level = all.level[l];
    level.cells = c.integer(name + "_cells" + number);
    level.per_cell = c.integer(name + "_per_cell" + number);
    level.is_planar = c.flag(name + "_is_planar" + number);
    level.first_anchor = all.anchors;
    const int64_t before = first * level.anchors() * channels;
    level.values = c.array(name + number, before * bytes_of_box(all.dtype) / 4);
    level.start = all.elements - before;
    all.anchors += level.anchors();
    const int64_t end = all.elements + c.integer("batch") * level.anchors() * channels;
    all.elements = (end + kLevelAlignment - 1) / kLevelAlignment * kLevelAlignment;
  }
  return all;
}
