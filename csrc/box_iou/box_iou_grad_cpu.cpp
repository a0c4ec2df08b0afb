// The gradient of pairwise IoU. Floor: the gradient from above, 4 bytes a pair, read once; about 90 operations and 3
// divisions a pair bound it. A block of columns stays in the first-level cache while the tile's rows pass over it: a
// row's sums are reduced at once, the columns' are kept as vectors.
#include <algorithm>

#include "box_iou/box_iou_cpu.h"
#include "common/box_planes.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kColumns = kPlaneBoxes;  // a block

template <class T>
struct Block {
  Planes<T> boxes;
  alignas(64) T area[kColumns];
  alignas(64) T angle[kColumns];
  alignas(64) T by_w[kColumns];
  alignas(64) T by_h[kColumns];
  alignas(64) T upstream[kColumns];
  Planes<T> for_row;     // of one row: still to be added up
  Planes<T> for_column;  // added up over the tile's rows

  RETINA_OPS_HOST_DEVICE MeasuredBox<T> at(int j) const {
    return {boxes.box(j), area[j], {angle[j], by_w[j], by_h[j]}};
  }
};

// Sum of a block's values; destroys them.
template <class T>
RETINA_OPS_HOST_DEVICE double sum_of(T* values) {
  for (int half = kColumns / 2; half >= 4; half /= 2) {
    for (int j = 0; j < half; ++j) values[j] += values[j + half];
  }
  return (static_cast<double>(values[0]) + static_cast<double>(values[1])) +
         (static_cast<double>(values[2]) + static_cast<double>(values[3]));
}

template <class T, IouKind K, class Math>
RETINA_OPS_HOST_DEVICE void row_of(Block<T>& block, const MeasuredBox<T>& row, const IouEps<T>& eps) {
  for (int j = 0; j < kColumns; ++j) {
    const IouTerms<T> terms = iou_terms<K, IouReading::kPairwise, T, Math>(row, block.at(j), eps);
    const T factor = -block.upstream[j];  // the terms are of 1 - similarity
    // A column past the last has no upstream, but its terms may be NaN.
    const bool counts = factor != T(0);
    block.for_row.a[j] = counts ? factor * terms.for_a.x1 : T(0);
    block.for_row.b[j] = counts ? factor * terms.for_a.y1 : T(0);
    block.for_row.c[j] = counts ? factor * terms.for_a.x2 : T(0);
    block.for_row.d[j] = counts ? factor * terms.for_a.y2 : T(0);
    block.for_column.a[j] += counts ? factor * terms.for_b.x1 : T(0);
    block.for_column.b[j] += counts ? factor * terms.for_b.y1 : T(0);
    block.for_column.c[j] += counts ? factor * terms.for_b.x2 : T(0);
    block.for_column.d[j] += counts ? factor * terms.for_b.y2 : T(0);
  }
}

template <class T, IouKind K, class Math>
RETINA_OPS_HOST_DEVICE void tile_of(const BoxIouGradProblem& problem, int64_t tile) {
  constexpr Dtype kNative = sizeof(T) == sizeof(float) ? Dtype::kFloat32 : Dtype::kFloat64;
  const BoxIouProblem& forward = problem.forward;
  const int64_t n = forward.n, m = forward.m;
  const int64_t column_tile = tile % problem.column_tiles();
  const int64_t row_tile = tile / problem.column_tiles() % problem.row_tiles();
  const int64_t image = tile / problem.column_tiles() / problem.row_tiles();
  const int64_t first_row = row_tile * kGradRows, first_column = column_tile * kGradColumns;
  const int rows = static_cast<int>(std::min(kGradRows, n - first_row));
  const int64_t end_column = std::min(first_column + kGradColumns, m);
  const IouEps<T> eps = pairwise_eps<T>(forward);
  Block<T> block;
  MeasuredBox<T> own[kGradRows];
  double row_sums[kGradRows][4] = {};
  for (int r = 0; r < rows; ++r) {
    alignas(64) T values[4];
    load_block<4>(forward.boxes1, forward.dtype, 4 * (image * n + first_row + r), values, 4);
    own[r] = measured<K, T, Math>(Box<T>{values[0], values[1], values[2], values[3]});
  }
  for (int64_t column = first_column; column < end_column; column += kColumns) {
    const int columns = static_cast<int>(std::min<int64_t>(kColumns, end_column - column));
    block.boxes.load(forward.boxes2, forward.dtype, image * m + column, columns);
    for (int j = 0; j < kColumns; ++j) {
      const MeasuredBox<T> box = measured<K, T, Math>(block.boxes.box(j));
      block.area[j] = box.area;
      block.angle[j] = box.aspect.angle;
      block.by_w[j] = box.aspect.by_w;
      block.by_h[j] = box.aspect.by_h;
      block.for_column.put(j, Box<T>{T(0), T(0), T(0), T(0)});
    }
    for (int r = 0; r < rows; ++r) {
      load_block<kColumns>(problem.grad, kNative, (image * n + first_row + r) * m + column, block.upstream, columns);
      row_of<T, K, Math>(block, own[r], eps);
      row_sums[r][0] += sum_of(block.for_row.a);
      row_sums[r][1] += sum_of(block.for_row.b);
      row_sums[r][2] += sum_of(block.for_row.c);
      row_sums[r][3] += sum_of(block.for_row.d);
    }
    if (problem.column_sums != nullptr) {
      double* to = problem.column_sums + 4 * ((row_tile * problem.batch + image) * m + column);
      for (int j = 0; j < columns; ++j) {
        const Box<T> sum = block.for_column.box(j);
        to[4 * j] = static_cast<double>(sum.x1);
        to[4 * j + 1] = static_cast<double>(sum.y1);
        to[4 * j + 2] = static_cast<double>(sum.x2);
        to[4 * j + 3] = static_cast<double>(sum.y2);
      }
    }
  }
  if (problem.row_sums != nullptr) {
    double* to = problem.row_sums + 4 * ((column_tile * problem.batch + image) * n + first_row);
    memcpy(to, row_sums, static_cast<size_t>(rows) * sizeof(row_sums[0]));
  }
}

template <class T, IouKind K>
void tile_baseline(const BoxIouGradProblem& problem, int64_t tile) {
  tile_of<T, K, PlainMath>(problem, tile);
}
#if RETINA_OPS_HAS_X86_TARGETS
template <class T, IouKind K>
RETINA_OPS_TARGET_AVX2 void tile_avx2(const BoxIouGradProblem& problem, int64_t tile) {
  tile_of<T, K, FusedMath>(problem, tile);
}
template <class T, IouKind K>
RETINA_OPS_TARGET_AVX512 void tile_avx512(const BoxIouGradProblem& problem, int64_t tile) {
  tile_of<T, K, FusedMath>(problem, tile);
}
#endif

template <class T, IouKind K>
void tile_for_isa(const BoxIouGradProblem& problem, int64_t tile) {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return tile_avx512<T, K>(problem, tile);
  if (cpu_isa() == Isa::kAvx2) return tile_avx2<T, K>(problem, tile);
#endif
  tile_baseline<T, K>(problem, tile);
}

template <class T>
void tile_typed(const BoxIouGradProblem& problem, int64_t tile) {
  switch (problem.forward.kind) {
    case IouKind::kPlain: return tile_for_isa<T, IouKind::kPlain>(problem, tile);
    case IouKind::kGeneralized: return tile_for_isa<T, IouKind::kGeneralized>(problem, tile);
    case IouKind::kDistance: return tile_for_isa<T, IouKind::kDistance>(problem, tile);
    case IouKind::kComplete: return tile_for_isa<T, IouKind::kComplete>(problem, tile);
  }
}

}  // namespace

void box_iou_grad_range(const BoxIouGradProblem& problem, int64_t begin, int64_t end) {
  for (int64_t tile = begin; tile < end; ++tile) {
    if (problem.forward.dtype == Dtype::kFloat64) {
      tile_typed<double>(problem, tile);
    } else {
      tile_typed<float>(problem, tile);
    }
  }
}

void add_tiles_range(const double* sums, int64_t tiles, int64_t count, void* values, Dtype dtype, int64_t begin,
                     int64_t end) {
  constexpr int kWidth = 64;
  for (int64_t first = begin; first < end; first += kWidth) {
    const int width = static_cast<int>(std::min<int64_t>(kWidth, end - first));
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
