// Floor: the output, 4 bytes a pair, written once; about 15 vector operations and a division for 16 pairs. The columns
// of boxes2 are laid out one array a coordinate, a tile at a time, so that a row is branch-free vector work.
#include "box_iou/box_iou_cpu.h"

#include <algorithm>

#include "common/box.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kTile = 512;  // columns whose five arrays stay in the first-level cache

template <class T>
struct Tile {
  alignas(64) T x1[kTile];
  alignas(64) T y1[kTile];
  alignas(64) T x2[kTile];
  alignas(64) T y2[kTile];
  alignas(64) T area[kTile];
};

template <class T>
RETINA_OPS_HOST_DEVICE Box<T> load_box(const void* base, Dtype dtype, int64_t index) {
  alignas(64) T values[4];
  load_block<4>(base, dtype, 4 * index, values, 4);
  return {values[0], values[1], values[2], values[3]};
}

template <class T>
RETINA_OPS_HOST_DEVICE void run_of(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  Tile<T> tile;
  for (int64_t row = begin; row < end;) {
    const int64_t image = row / problem.n;
    const int64_t row_end = std::min(end, (image + 1) * problem.n);
    for (int64_t column = 0; column < problem.m; column += kTile) {
      const int count = static_cast<int>(std::min<int64_t>(kTile, problem.m - column));
      for (int j = 0; j < count; ++j) {
        const Box<T> box = load_box<T>(problem.boxes2, problem.dtype, image * problem.m + column + j);
        tile.x1[j] = box.x1;
        tile.y1[j] = box.y1;
        tile.x2[j] = box.x2;
        tile.y2[j] = box.y2;
        tile.area[j] = box_area(box);
      }
      for (int64_t i = row; i < row_end; ++i) {
        const Box<T> box = load_box<T>(problem.boxes1, problem.dtype, i);
        const T area = box_area(box);
        T* out = static_cast<T*>(problem.iou) + i * problem.m + column;
        for (int j = 0; j < count; ++j) {
          out[j] = box_iou(box, area, Box<T>{tile.x1[j], tile.y1[j], tile.x2[j], tile.y2[j]}, tile.area[j]);
        }
      }
    }
    row = row_end;
  }
}

template <class T>
void run_baseline(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  run_of<T>(problem, begin, end);
}
#if RETINA_OPS_HAS_X86_TARGETS
template <class T>
RETINA_OPS_TARGET_AVX2 void run_avx2(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  run_of<T>(problem, begin, end);
}
template <class T>
RETINA_OPS_TARGET_AVX512 void run_avx512(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  run_of<T>(problem, begin, end);
}
#endif

template <class T>
void run_for_isa(const BoxIouProblem& problem, int64_t begin, int64_t end) {
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return run_avx512<T>(problem, begin, end);
  if (cpu_isa() == Isa::kAvx2) return run_avx2<T>(problem, begin, end);
#endif
  run_baseline<T>(problem, begin, end);
}

}  // namespace

void box_iou_range(const BoxIouProblem& problem, int64_t begin, int64_t end) {
  if (problem.dtype == Dtype::kFloat64) {
    run_for_isa<double>(problem, begin, end);
  } else {
    run_for_isa<float>(problem, begin, end);
  }
}

}  // namespace retina_ops
