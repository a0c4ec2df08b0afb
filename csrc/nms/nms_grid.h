// The kept boxes of NMS in grids, so that a box is compared only with boxes of similar size near it. CPU only, no
// torch.
//
// If the IoU of two boxes is above t, then along each axis the overlap of their intervals is above t times the union.
// Hence the longer sides of the two boxes differ by a factor below 1 / t, and along an axis with sides a and b the
// distance of the centres is below (a + b) (1 - t) / (2 (1 + t)). So boxes are sorted by the octave of their longer
// side, each octave has a grid of the centres, and a box is compared with the boxes in a few cells. The bounds are
// widened by more than the rounding error: the result is exact.
#pragma once

#include <algorithm>
#include <vector>

#include "nms/box_arrays.h"

namespace retina_ops {

// Boxes that are in no cell. Inert boxes, without area or not finite, have IoU 0 or NaN with every box. Tiny boxes,
// whose products underflow, are compared with all boxes.
enum class BoxPlace : int32_t { kInert = -1, kTiny = -2 };

template <class T>
class KeptGrid {
 public:
  // boxes: all boxes of the segment; add() and suppressed() take their indices. threshold: at least 0.
  KeptGrid(const BoxArrays<T>& boxes, T threshold);

  // Adds a kept box. It is recent until settle() makes all boxes that were added settled.
  void add(size_t i);
  void settle() {
    for (const int32_t cell : recent_) settled_[static_cast<size_t>(cell)] = counts_[static_cast<size_t>(cell)];
    recent_.clear();
    settled_tiny_ = tiny_.size();
    settled_all_ = all_.size();
  }

  // Whether a kept box suppresses box i: one of the settled boxes, or of the recent boxes.
  RETINA_OPS_HOST_DEVICE bool suppressed(size_t i, bool recent) const;

 private:
  struct Level {
    int octave;
    double longest;  // upper bound of the sides of its boxes
    double origin_x, origin_y, cell;
    int64_t columns, rows, first_cell;
  };

  static int64_t cell_index(double coordinate, double origin, double cell, int64_t count) {
    const double index = (coordinate - origin) / cell;
    const double last = static_cast<double>(count - 1);
    return static_cast<int64_t>(index > 0.0 ? (index < last ? index : last) : 0.0);
  }
  static double centre(T low, T high) { return 0.5 * (static_cast<double>(low) + static_cast<double>(high)); }

  RETINA_OPS_HOST_DEVICE bool suppressed_in(const Level& level, size_t i, bool recent) const;

  const BoxArrays<T>& boxes_;
  const T threshold_;
  double ratio_;  // the threshold that the bounds use, slightly lower
  std::vector<Level> levels_;
  std::vector<int32_t> place_;      // [n] cell, or a BoxPlace; cells count through all octaves
  std::vector<int32_t> octave_;     // [n]
  std::vector<size_t> starts_;      // [cells + 1] index in `kept_` of the first box of each cell
  std::vector<int32_t> counts_;     // [cells] number of kept boxes
  std::vector<int32_t> settled_;    // [cells] number of settled boxes, which come first
  std::vector<int32_t> recent_;     // cells with recent boxes
  BoxArrays<T> kept_;               // the kept boxes, cell by cell
  std::vector<size_t> tiny_, all_;  // indices of the kept tiny boxes, and of all kept boxes
  size_t settled_tiny_ = 0, settled_all_ = 0;
};

template <class T>
KeptGrid<T>::KeptGrid(const BoxArrays<T>& boxes, T threshold)
    : boxes_(boxes),
      threshold_(threshold),
      ratio_(static_cast<double>(threshold) * (1.0 - 1e-5)),
      place_(boxes.size()),
      octave_(boxes.size()),
      kept_(boxes.size()) {
  const size_t n = boxes.size();
  const T tiny = sizeof(T) == 4 ? T(1e-30) : T(1e-290);
  constexpr int kOctaves = 2200;  // octave o of a double has index o + kOctaves / 2
  std::vector<int64_t> in_octave(kOctaves, 0);
  struct Extent {
    double x1, y1, x2, y2;
  };
  std::vector<Extent> extents(kOctaves);
  for (size_t i = 0; i < n; ++i) {
    const T width = boxes.x2[i] - boxes.x1[i];
    const T height = boxes.y2[i] - boxes.y1[i];
    if (!(width > T(0) && height > T(0) && boxes.area[i] < std::numeric_limits<T>::infinity())) {
      place_[i] = static_cast<int32_t>(BoxPlace::kInert);
      continue;
    }
    if (boxes.area[i] < tiny) {
      place_[i] = static_cast<int32_t>(BoxPlace::kTiny);
      continue;
    }
    const int octave = std::ilogb(static_cast<double>(greater(width, height))) + kOctaves / 2;
    const double x = centre(boxes.x1[i], boxes.x2[i]);
    const double y = centre(boxes.y1[i], boxes.y2[i]);
    Extent& extent = extents[static_cast<size_t>(octave)];
    if (in_octave[static_cast<size_t>(octave)]++ == 0) {
      extent = {x, y, x, y};
    } else {
      extent = {std::min(extent.x1, x), std::min(extent.y1, y), std::max(extent.x2, x), std::max(extent.y2, y)};
    }
    octave_[i] = octave;
    place_[i] = 0;
  }
  std::vector<int32_t> level_of(kOctaves, -1);
  int64_t cells = 0;
  for (int octave = 0; octave < kOctaves; ++octave) {
    const int64_t count = in_octave[static_cast<size_t>(octave)];
    if (count == 0) continue;
    const Extent& extent = extents[static_cast<size_t>(octave)];
    const double longest = std::ldexp(1.0, octave - kOctaves / 2 + 1);
    const double span = std::max(extent.x2 - extent.x1, extent.y2 - extent.y1);
    // At most about two cells per box, however far apart the boxes are.
    const double cell = std::max(0.5 * longest, span / std::sqrt(static_cast<double>(2 * count)));
    Level level{octave, longest, extent.x1, extent.y1, cell, 0, 0, cells};
    level.columns = static_cast<int64_t>((extent.x2 - extent.x1) / cell) + 1;
    level.rows = static_cast<int64_t>((extent.y2 - extent.y1) / cell) + 1;
    cells += level.columns * level.rows;
    level_of[static_cast<size_t>(octave)] = static_cast<int32_t>(levels_.size());
    levels_.push_back(level);
  }
  starts_.resize(static_cast<size_t>(cells) + 1, 0);
  counts_.resize(static_cast<size_t>(cells), 0);
  settled_.resize(static_cast<size_t>(cells), 0);
  for (size_t i = 0; i < n; ++i) {
    if (place_[i] < 0) continue;
    const Level& level = levels_[static_cast<size_t>(level_of[static_cast<size_t>(octave_[i])])];
    const int64_t column = cell_index(centre(boxes.x1[i], boxes.x2[i]), level.origin_x, level.cell, level.columns);
    const int64_t row = cell_index(centre(boxes.y1[i], boxes.y2[i]), level.origin_y, level.cell, level.rows);
    place_[i] = static_cast<int32_t>(level.first_cell + row * level.columns + column);
    ++starts_[static_cast<size_t>(place_[i]) + 1];
  }
  for (size_t cell = 1; cell < starts_.size(); ++cell) starts_[cell] += starts_[cell - 1];
}

template <class T>
void KeptGrid<T>::add(size_t i) {
  all_.push_back(i);
  const int32_t place = place_[i];
  if (place < 0) {
    if (place == static_cast<int32_t>(BoxPlace::kTiny)) tiny_.push_back(i);
    return;
  }
  const auto cell = static_cast<size_t>(place);
  kept_.set(starts_[cell] + static_cast<size_t>(counts_[cell]), boxes_.box(i), boxes_.area[i]);
  if (counts_[cell]++ == settled_[cell]) recent_.push_back(place);
}

template <class T>
RETINA_OPS_HOST_DEVICE bool KeptGrid<T>::suppressed_in(const Level& level, size_t i, bool recent) const {
  const Box<T> box = boxes_.box(i);
  const double width = static_cast<double>(box.x2) - static_cast<double>(box.x1);
  const double height = static_cast<double>(box.y2) - static_cast<double>(box.y1);
  const double factor = (1.0 - ratio_) / (2.0 * (1.0 + ratio_)) * (1.0 + 1e-5);
  const double other_width = ratio_ > 0.0 ? std::min(level.longest, width / ratio_) : level.longest;
  const double other_height = ratio_ > 0.0 ? std::min(level.longest, height / ratio_) : level.longest;
  const double x = centre(box.x1, box.x2);
  const double y = centre(box.y1, box.y2);
  const double reach_x = (width + other_width) * factor + std::abs(x) * 1e-12;
  const double reach_y = (height + other_height) * factor + std::abs(y) * 1e-12;
  const int64_t left = cell_index(x - reach_x, level.origin_x, level.cell, level.columns);
  const int64_t right = cell_index(x + reach_x, level.origin_x, level.cell, level.columns);
  const int64_t top = cell_index(y - reach_y, level.origin_y, level.cell, level.rows);
  const int64_t bottom = cell_index(y + reach_y, level.origin_y, level.cell, level.rows);
  for (int64_t row = top; row <= bottom; ++row) {
    for (int64_t column = left; column <= right; ++column) {
      const auto cell = static_cast<size_t>(level.first_cell + row * level.columns + column);
      const size_t start = starts_[cell];
      const size_t begin = start + static_cast<size_t>(recent ? settled_[cell] : 0);
      const size_t end = start + static_cast<size_t>(recent ? counts_[cell] : settled_[cell]);
      if (begin < end && any_suppresses(kept_, begin, end, box, boxes_.area[i], threshold_)) return true;
    }
  }
  return false;
}

template <class T>
RETINA_OPS_HOST_DEVICE bool KeptGrid<T>::suppressed(size_t i, bool recent) const {
  const int32_t place = place_[i];
  if (place == static_cast<int32_t>(BoxPlace::kInert)) return false;
  const bool is_tiny = place == static_cast<int32_t>(BoxPlace::kTiny);
  const std::vector<size_t>& listed = is_tiny ? all_ : tiny_;
  const size_t settled = is_tiny ? settled_all_ : settled_tiny_;
  const size_t end = recent ? listed.size() : settled;
  for (size_t k = recent ? settled : 0; k < end; ++k) {
    const size_t kept = listed[k];
    if (suppresses(boxes_.box(kept), boxes_.area[kept], boxes_.box(i), boxes_.area[i], threshold_)) return true;
  }
  if (is_tiny) return false;
  const int reach = ratio_ > 0.0 ? std::ilogb(1.0 / ratio_) + 1 : 1 << 20;
  for (const Level& level : levels_) {
    if (std::abs(level.octave - octave_[i]) <= reach && suppressed_in(level, i, recent)) return true;
  }
  return false;
}

}  // namespace retina_ops
