// The box loss of the RetinaNet loss on CUDA. No torch.
//
// Lower bound: 32 bytes per anchor, for float32 deltas and their gradient. Only the foreground anchors, which are few,
// need arithmetic.
#pragma once

#include "retinanet_loss/retinanet_loss_levels.cuh"

namespace retina_ops {

constexpr int kBoxBlocks = 2;  // blocks that a multiprocessor must be able to run at once

template <class T>
struct BoxLossArguments : LossArguments<T> {
  using A = ArithmeticOf<T>;
  const A* anchor_boxes;  // [anchors, 4]
  const A* gt_boxes;      // [batch, capacity, 4]
  BoxCoding<A> coding;
  A beta;
  bool boxes_aligned;  // anchor_boxes and gt_boxes allow 16-byte accesses
};

// The box loss of the foreground anchors; the gradient of all others is 0.
// launch: at least one block of kLossThreads per level; the blocks of a level are contiguous.
template <class T, BoxLoss K>
__global__ void __launch_bounds__(kLossThreads, kBoxBlocks) retinanet_box_kernel(BoxLossArguments<T> args) {
  using A = ArithmeticOf<T>;
  const LossPlace place = loss_place(args);
  const LossLevel<T>& level = args.level[place.level];
  const int64_t items = args.batch * level.cells * level.per_cell;
  clear_gap(level, 4 * items, place);
  double sum = 0.0;
  for (int64_t item = args.first_image * level.cells * level.per_cell + place.block * kLossThreads + threadIdx.x;
       item < items; item += place.blocks * kLossThreads) {
    const int64_t set = level.by_cells(item);
    const int64_t cell = item - set * level.cells;
    const int64_t image = level.by_per_cell(set);
    const int64_t in_cell = set - image * level.per_cell;
    const int64_t anchor = level.first_anchor + cell * level.per_cell + in_cell;
    const int64_t match = args.matches[image * args.anchors + anchor];
    const int64_t step = level.is_planar ? level.cells : 1;  // from one delta of the anchor to the next
    const int64_t at = level.is_planar ? set * 4 * level.cells + cell : 4 * item;
    A gradient[4] = {A(0), A(0), A(0), A(0)};
    if (match >= 0 && match < args.capacity) {
      A anchor_box[4], gt_box[4];
      load_pack(args.anchor_boxes + 4 * anchor, 4, args.boxes_aligned, anchor_box);
      load_pack(args.gt_boxes + 4 * (image * args.capacity + match), 4, args.boxes_aligned, gt_box);
      const Deltas<A> deltas{to_arithmetic(level.values[at]), to_arithmetic(level.values[at + step]),
                             to_arithmetic(level.values[at + 2 * step]), to_arithmetic(level.values[at + 3 * step])};
      const BoxLossTerms<A> terms = box_loss<K, A, FusedMath>(
          args.coding, args.beta, deltas, {anchor_box[0], anchor_box[1], anchor_box[2], anchor_box[3]},
          {gt_box[0], gt_box[1], gt_box[2], gt_box[3]});
      const LossScale<A> scale = scale_of(args, image);
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
  if (args.result == nullptr || !grid_sum<kLossThreads>(sum, args.partial, args.done, total)) return;
  *args.result = static_cast<A>(total);
}

}  // namespace retina_ops
