// The gradient of pairwise IoU on the CPU. Lower bounds: the upstream gradient, 4 bytes per pair, is read once; about
// 90 operations and 3 divisions per pair, which take longer. A block of columns stays in the L1 cache while the rows of
// a tile pass over it. The sums of a row are reduced at once; those of the columns stay vectors.
#include <algorithm>

#include "box_iou/box_iou.h"
#include "common/box_block.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kColumns = kBlockBoxes;  // columns per block

template <class T>
struct ColumnBlock {
  BoxBlock<T> boxes;
  alignas(64) T area[kColumns];
  alignas(64) T angle[kColumns];
  alignas(64) T angle_by_w[kColumns];
  alignas(64) T angle_by_h[kColumns];
  alignas(64) T upstream[kColumns];
  BoxBlock<T> for_row;     // gradients by the current row's box, one per column; their sum is the row's
  BoxBlock<T> for_column;  // gradients by each column's box, summed over the rows of the tile

  RETINA_OPS_HOST_DEVICE MeasuredBox<T> at(int j) const {
    return {boxes.box(j), area[j], {angle[j], angle_by_w[j], angle_by_h[j]}};
  }
};

// The sum of the values of a block. It overwrites them.
template <class T>
RETINA_OPS_HOST_DEVICE double sum_of(T* values) {
  for (int half = kColumns / 2; half >= 4; half /= 2) {
    for (int j = 0; j < half; ++j) values[j] += values[j + half];
  }
  return (static_cast<double>(values[0]) + static_cast<double>(values[1])) +
         (static_cast<double>(values[2]) + static_cast<double>(values[3]));
}

template <class T, IouKind K, class Math>
RETINA_OPS_HOST_DEVICE void add_row(ColumnBlock<T>& block, const MeasuredBox<T>& row, const IouEps<T>& eps) {
  for (int j = 0; j < kColumns; ++j) {
    const IouTerms<T> terms = iou_terms<K, IouReading::kPairwise, T, Math>(row, block.at(j), eps);
    const T factor = -block.upstream[j];  // the terms are gradients of 1 - similarity
    // Past the last column the upstream gradient is 0, but the terms may be NaN.
    const bool counts = factor != T(0);
    block.for_row.x1[j] = counts ? factor * terms.for_a.x1 : T(0);
    block.for_row.y1[j] = counts ? factor * terms.for_a.y1 : T(0);
    block.for_row.x2[j] = counts ? factor * terms.for_a.x2 : T(0);
    block.for_row.y2[j] = counts ? factor * terms.for_a.y2 : T(0);
    block.for_column.x1[j] += counts ? factor * terms.for_b.x1 : T(0);
    block.for_column.y1[j] += counts ? factor * terms.for_b.y1 : T(0);
    block.for_column.x2[j] += counts ? factor * terms.for_b.x2 : T(0);
    block.for_column.y2[j] += counts ? factor * terms.for_b.y2 : T(0);
  }
}

template <class T, IouKind K, class Math>
RETINA_OPS_HOST_DEVICE void grad_tile(const BoxIouGradProblem& problem, int64_t tile) {
  const BoxIouProblem& forward = problem.forward;
  const int64_t n = forward.n, m = forward.m;
  const int64_t column_tile = tile % problem.column_tiles();
  const int64_t row_tile = tile / problem.column_tiles() % problem.row_tiles();
  const int64_t image = tile / problem.column_tiles() / problem.row_tiles();
  const int64_t first_row = row_tile * kGradRows, first_column = column_tile * kGradColumns;
  const int rows = static_cast<int>(std::min(kGradRows, n - first_row));
  const int64_t end_column = std::min(first_column + kGradColumns, m);
  const IouEps<T> eps = pairwise_eps<T>(forward);
  ColumnBlock<T> block;
  MeasuredBox<T> row_boxes[kGradRows];
  double row_sums[kGradRows][4] = {};
  for (int r = 0; r < rows; ++r) {
    row_boxes[r] = measured<K, T, Math>(load_box<T>(forward.boxes1, forward.dtype, image * n + first_row + r));
  }
  for (int64_t column = first_column; column < end_column; column += kColumns) {
    const int columns = block_count<kColumns>(column, end_column);
    block.boxes.load(forward.boxes2, forward.dtype, image * m + column, columns);
    for (int j = 0; j < kColumns; ++j) {
      const MeasuredBox<T> box = measured<K, T, Math>(block.boxes.box(j));
      block.area[j] = box.area;
      block.angle[j] = box.aspect.angle;
      block.angle_by_w[j] = box.aspect.by_w;
      block.angle_by_h[j] = box.aspect.by_h;
      block.for_column.set(j, Box<T>{T(0), T(0), T(0), T(0)});
    }
    for (int r = 0; r < rows; ++r) {
      load_block<kColumns>(problem.grad, kDtypeOf<T>, (image * n + first_row + r) * m + column, block.upstream,
                           columns);
      add_row<T, K, Math>(block, row_boxes[r], eps);
      row_sums[r][0] += sum_of(block.for_row.x1);
      row_sums[r][1] += sum_of(block.for_row.y1);
      row_sums[r][2] += sum_of(block.for_row.x2);
      row_sums[r][3] += sum_of(block.for_row.y2);
    }
    if (problem.column_sums != nullptr) {
      double* sums = problem.column_sums + 4 * ((row_tile * problem.batch + image) * m + column);
      for (int j = 0; j < columns; ++j) {
        const Box<T> sum = block.for_column.box(j);
        sums[4 * j] = static_cast<double>(sum.x1);
        sums[4 * j + 1] = static_cast<double>(sum.y1);
        sums[4 * j + 2] = static_cast<double>(sum.x2);
        sums[4 * j + 3] = static_cast<double>(sum.y2);
      }
    }
  }
  if (problem.row_sums != nullptr) {
    double* sums = problem.row_sums + 4 * ((column_tile * problem.batch + image) * n + first_row);
    memcpy(sums, row_sums, static_cast<size_t>(rows) * sizeof(row_sums[0]));
  }
}

template <class T, IouKind K>
void tiles_for_isa(const BoxIouGradProblem& problem, int64_t begin, int64_t end) {
  const auto run = isa_variant<grad_tile<T, K, PlainMath>, grad_tile<T, K, FusedMath>>();
  for (int64_t tile = begin; tile < end; ++tile) run(problem, tile);
}

template <class T>
void typed_tiles(const BoxIouGradProblem& problem, int64_t begin, int64_t end) {
  switch (problem.forward.kind) {
    case IouKind::kPlain: return tiles_for_isa<T, IouKind::kPlain>(problem, begin, end);
    case IouKind::kGeneralized: return tiles_for_isa<T, IouKind::kGeneralized>(problem, begin, end);
    case IouKind::kDistance: return tiles_for_isa<T, IouKind::kDistance>(problem, begin, end);
    case IouKind::kComplete: return tiles_for_isa<T, IouKind::kComplete>(problem, begin, end);
  }
}

}  // namespace

void box_iou_grad_range(const BoxIouGradProblem& problem, int64_t begin, int64_t end) {
  if (problem.forward.dtype == Dtype::kFloat64) {
    typed_tiles<double>(problem, begin, end);
  } else {
    typed_tiles<float>(problem, begin, end);
  }
}

void add_tiles_range(const double* sums, int64_t tiles, int64_t count, void* values, Dtype dtype, int64_t begin,
                     int64_t end) {
  constexpr int kWidth = 64;
  for (int64_t first = begin; first < end; first += kWidth) {
    const int width = block_count<kWidth>(first, end);
    double total[kWidth] = {};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int i = 0; i < width; ++i) total[i] += sums[tile * count + first + i];
    }
    if (dtype == Dtype::kFloat64) {
      store_block<kWidth>(values, dtype, first, total, width);
    } else {
      float rounded[kWidth];
      for (int i = 0; i < kWidth; ++i) rounded[i] = static_cast<float>(total[i]);
      store_block<kWidth>(values, dtype, first, rounded, width);
    }
  }
}

}  // namespace retina_ops
