// The kernels of soft_nms/, launched as by their operator but for the sort and the read of the count between them.
#include "soft_nms/soft_nms_launch.cuh"

#include "case.h"

using namespace retina_ops;

// The first box is box `first`; `rank` and `order` count from there too. step: 0 takes, 1 writes.
void run_soft_nms(const Case& c) {
  const int64_t first = c.integer("first");
  SoftNmsDevice d{};
  d.box_dtype = c.dtype("box_dtype");
  d.score_dtype = c.dtype("score_dtype");
  const int64_t bytes = first * (is_double(d) ? 8 : 4);  // of the arithmetic
  d.boxes = c.array("boxes", first * bytes_of_box(d.box_dtype));
  d.scores = c.array("scores", first * bytes_of_box(d.score_dtype) / 4);
  d.classes = c.array<int64_t>("classes", first * 8);
  d.rank = c.array<int64_t>("rank", first * 8);
  d.threshold = c.number("threshold");
  d.gaussian = c.flag("gaussian");
  d.sigma = c.number("sigma");
  d.min_score = c.number("min_score");
  d.first = first;
  d.n = first + c.integer("n");
  d.slot_boxes = c.array("slot_boxes", 4 * bytes);
  d.slot_scores = c.array("slot_scores", bytes);
  d.slot_decays = c.array("slot_decays", bytes);
  d.slot_inputs = c.array<int64_t>("slot_inputs", first * 8);
  d.slot_classes = c.array<int64_t>("slot_classes", first * 8);
  d.segment_starts = c.array<int64_t>("segment_starts");
  d.segments = c.array<int32_t>("segments");
  d.taken_scores = c.array("taken_scores", bytes);
  d.taken_decays = c.array("taken_decays", bytes);
  d.count = c.array<int64_t>("count");
  if (c.integer("step") == 0) {
    launch_soft_nms(d);
  } else {
    launch_soft_nms_write(d, c.array<int64_t>("order"), c.integer("size"), c.array("out_scores"),
                          c.array("out_decays"));
  }
}
