// Pairwise IoU on the CPU. Lower bounds: the output, 4 bytes per pair, is written once; 16 pairs take about 15 vector
// operations and 1 division, or 28 and 2 for the generalized and distance kinds. The columns, boxes of boxes2, are
// taken in tiles with one array per coordinate, so that a row is branch-free vector work. What depends on one box only
// is computed once per box.
#include <algorithm>

#include "box_iou/box_iou.h"
#include "common/box_block.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kTileColumns = 512;  // the six arrays of a tile stay in the L1 cache

template <class T>
struct ColumnTile {
  BoxBlock<T, kTileColumns> boxes;
  alignas(64) T area[kTileColumns];
  alignas(64) T angle[kTileColumns];

  RETINA_OPS_HOST_DEVICE MeasuredBox<T> at(int j) const { return {boxes.box(j), area[j], {angle[j], T(0), T(0)}}; }
};

template <class T, IouKind K, class Math>
RETINA_OPS_HOST_DEVICE void iou_rows(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  ColumnTile<T> tile;
  const IouEps<T> eps = pairwise_eps<T>(problem);
  for (int64_t row = begin; row < end;) {
    const int64_t image = row / problem.n;
    const int64_t row_end = std::min(end, (image + 1) * problem.n);
    for (int64_t column = 0; column < problem.m; column += kTileColumns) {
      const int count = block_count<kTileColumns>(column, problem.m);
      for (int j = 0; j < count; ++j) {
        const Box<T> box = load_box<T>(problem.boxes2, problem.dtype, image * problem.m + column + j);
        const MeasuredBox<T> column_box = measured<K, T, Math>(box);
        tile.boxes.set(j, box);
        tile.area[j] = column_box.area;
        tile.angle[j] = column_box.aspect.angle;
      }
      for (int64_t i = row; i < row_end; ++i) {
        const MeasuredBox<T> row_box = measured<K, T, Math>(load_box<T>(problem.boxes1, problem.dtype, i));
        T* out = static_cast<T*>(problem.iou) + i * problem.m + column;
        for (int j = 0; j < count; ++j) {
          out[j] = iou_terms<K, IouReading::kPairwise, T, Math>(row_box, tile.at(j), eps).value;
        }
      }
    }
    row = row_end;
  }
}

template <class T, IouKind K>
void rows_for_isa(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  isa_variant<iou_rows<T, K, PlainMath>, iou_rows<T, K, FusedMath>>()(problem, begin, end);
}

template <class T>
void typed_rows(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  switch (problem.kind) {
    case IouKind::kPlain: return rows_for_isa<T, IouKind::kPlain>(problem, begin, end);
    case IouKind::kGeneralized: return rows_for_isa<T, IouKind::kGeneralized>(problem, begin, end);
    case IouKind::kDistance: return rows_for_isa<T, IouKind::kDistance>(problem, begin, end);
    case IouKind::kComplete: return rows_for_isa<T, IouKind::kComplete>(problem, begin, end);
  }
}

}  // namespace

void box_iou_range(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  if (problem.dtype == Dtype::kFloat64) {
    typed_rows<double>(problem, begin, end);
  } else {
    typed_rows<float>(problem, begin, end);
  }
}

}  // namespace retina_ops
