// Floor: the output, 4 bytes a pair, written once; about 15 vector operations and a division for 16 pairs, 28 and 2
// divisions for the generalized and distance kinds. The columns of boxes2 are laid out one array a coordinate, a tile
// at a time, so that a row is branch-free vector work; what a box needs of itself alone is computed once.
#include "box_iou/box_iou_cpu.h"

#include <algorithm>

#include "common/box.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kTile = 512;  // columns whose six arrays stay in the first-level cache

template <class T>
struct Tile {
  alignas(64) T x1[kTile];
  alignas(64) T y1[kTile];
  alignas(64) T x2[kTile];
  alignas(64) T y2[kTile];
  alignas(64) T area[kTile];
  alignas(64) T angle[kTile];

  RETINA_OPS_HOST_DEVICE MeasuredBox<T> at(int j) const {
    return {{x1[j], y1[j], x2[j], y2[j]}, area[j], {angle[j], T(0), T(0)}};
  }
};

template <class T>
RETINA_OPS_HOST_DEVICE Box<T> load_box(const void* base, Dtype dtype, int64_t index) {
  alignas(64) T values[4];
  load_block<4>(base, dtype, 4 * index, values, 4);
  return {values[0], values[1], values[2], values[3]};
}

template <class T, IouKind K, class Math>
RETINA_OPS_HOST_DEVICE void run_of(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  Tile<T> tile;
  const IouEps<T> eps = pairwise_eps<T>(problem);
  for (int64_t row = begin; row < end;) {
    const int64_t image = row / problem.n;
    const int64_t row_end = std::min(end, (image + 1) * problem.n);
    for (int64_t column = 0; column < problem.m; column += kTile) {
      const int count = static_cast<int>(std::min<int64_t>(kTile, problem.m - column));
      for (int j = 0; j < count; ++j) {
        const Box<T> box = load_box<T>(problem.boxes2, problem.dtype, image * problem.m + column + j);
        const MeasuredBox<T> own = measured<K, T, Math>(box);
        tile.x1[j] = box.x1;
        tile.y1[j] = box.y1;
        tile.x2[j] = box.x2;
        tile.y2[j] = box.y2;
        tile.area[j] = own.area;
        tile.angle[j] = own.aspect.angle;
      }
      for (int64_t i = row; i < row_end; ++i) {
        const MeasuredBox<T> own = measured<K, T, Math>(load_box<T>(problem.boxes1, problem.dtype, i));
        T* out = static_cast<T*>(problem.iou) + i * problem.m + column;
        for (int j = 0; j < count; ++j) {
          out[j] = iou_terms<K, IouReading::kPairwise, T, Math>(own, tile.at(j), eps).value;
        }
      }
    }
    row = row_end;
  }
}

template <class T, IouKind K>
void run_baseline(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  run_of<T, K, PlainMath>(problem, begin, end);
}
#if RETINA_OPS_HAS_X86_TARGETS
template <class T, IouKind K>
RETINA_OPS_TARGET_AVX2 void run_avx2(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  run_of<T, K, FusedMath>(problem, begin, end);
}
template <class T, IouKind K>
RETINA_OPS_TARGET_AVX512 void run_avx512(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  run_of<T, K, FusedMath>(problem, begin, end);
}
#endif

template <class T, IouKind K>
void run_for_isa(const BoxIouProblem& problem, int64_t begin, int64_t end) {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return run_avx512<T, K>(problem, begin, end);
  if (cpu_isa() == Isa::kAvx2) return run_avx2<T, K>(problem, begin, end);
#endif
  run_baseline<T, K>(problem, begin, end);
}

template <class T>
void run_typed(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  switch (problem.kind) {
    case IouKind::kPlain: return run_for_isa<T, IouKind::kPlain>(problem, begin, end);
    case IouKind::kGeneralized: return run_for_isa<T, IouKind::kGeneralized>(problem, begin, end);
    case IouKind::kDistance: return run_for_isa<T, IouKind::kDistance>(problem, begin, end);
    case IouKind::kComplete: return run_for_isa<T, IouKind::kComplete>(problem, begin, end);
  }
}

}  // namespace

void box_iou_range(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  if (problem.dtype == Dtype::kFloat64) {
    run_typed<double>(problem, begin, end);
  } else {
    run_typed<float>(problem, begin, end);
  }
}

}  // namespace retina_ops
