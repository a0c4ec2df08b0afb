// The box loss of the RetinaNet loss on CUDA. No torch.
//
// Floor: 32 bytes an anchor, for float32 deltas and their gradient; the foreground anchors, few, are arithmetic.
#pragma once

#include "retinanet_loss/retinanet_loss_levels.cuh"

namespace retina_ops {

constexpr int kBoxBlocks = 2;  // that a multiprocessor must hold

template <class T>
struct BoxLossArguments : LossArguments<T> {
  using A = ArithmeticOf<T>;
  const A* anchor_boxes;  // [anchors, 4]
  const A* gt_boxes;      // [batch, capacity, 4]
  BoxCoding<A> coding;
  A beta;
  bool boxes_aligned;  // 16-byte accesses to both kinds of boxes
};

// The box loss of the foreground anchors, and zeros as the gradient of all others. launch: as above.
template <class T, BoxLoss K>
__global__ void __launch_bounds__(kLossThreads, kBoxBlocks) retinanet_box_kernel(BoxLossArguments<T> a) {
  using A = ArithmeticOf<T>;
  const LossPlace place = loss_place(a);
  const LossLevel<T>& level = a.level[place.level];
  const int64_t items = a.batch * level.cells * level.per_cell;
  clear_gap(level, 4 * items, place);
  double sum = 0.0;
  for (int64_t item = a.first_image * level.cells * level.per_cell + place.block * kLossThreads + threadIdx.x;
       item < items; item += place.blocks * kLossThreads) {
    const int64_t set = level.by_cells(item);
    const int64_t cell = item - set * level.cells;
    const int64_t image = level.by_per_cell(set);
    const int64_t in_cell = set - image * level.per_cell;
    const int64_t anchor = level.first_anchor + cell * level.per_cell + in_cell;
    const int64_t match = a.matches[image * a.anchors + anchor];
    const int64_t step = level.is_planar ? level.cells : 1;  // from one delta to the next
    const int64_t at = level.is_planar ? set * 4 * level.cells + cell : 4 * item;
    A gradient[4] = {A(0), A(0), A(0), A(0)};
    if (match >= 0 && match < a.capacity) {
      A anchor_box[4], wanted[4];
      load_pack(a.anchor_boxes + 4 * anchor, 4, a.boxes_aligned, anchor_box);
      load_pack(a.gt_boxes + 4 * (image * a.capacity + match), 4, a.boxes_aligned, wanted);
      const Deltas<A> deltas{to_arithmetic(level.values[at]), to_arithmetic(level.values[at + step]),
                             to_arithmetic(level.values[at + 2 * step]), to_arithmetic(level.values[at + 3 * step])};
      const BoxLossTerms<A> terms = box_loss<K, A, FusedMath>(
          a.coding, a.beta, deltas, {anchor_box[0], anchor_box[1], anchor_box[2], anchor_box[3]},
          {wanted[0], wanted[1], wanted[2], wanted[3]});
      const LossScale<A> scale = scale_of(a, image);
      sum += static_cast<double>(terms.loss * scale.loss);
      gradient[0] = terms.gradient.dx * scale.gradient;
      gradient[1] = terms.gradient.dy * scale.gradient;
      gradient[2] = terms.gradient.dw * scale.gradient;
      gradient[3] = terms.gradient.dh * scale.gradient;
    }
    if (level.gradient == nullptr) continue;
    if (level.is_planar) {
#pragma unroll
      for (int c = 0; c < 4; ++c) level.gradient[at + c * step] = from_arithmetic<T>(gradient[c]);
    } else {
      store_pack(level.gradient + at, 4, level.aligned, gradient);
    }
  }
  double total = 0.0;
  if (a.result == nullptr || !grid_sum<kLossThreads>(sum, a.partial, a.done, total)) return;
  *a.result = static_cast<A>(total);
}

}  // namespace retina_ops
