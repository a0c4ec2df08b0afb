// The kernels of nms/, launched as by their operator.
#include "nms/nms_launch.cuh"

#include "case.h"

using namespace retina_ops;

// The first box is box `first`; `order` and `rank` count from there too.
void run_nms(const Case& c) {
  const int64_t first = c.integer("first"), bits = first / 8;
  NmsDevice d{};
  d.box_dtype = c.dtype("box_dtype");
  d.score_dtype = c.dtype("score_dtype");
  d.boxes = c.array("boxes", first * bytes_of_box(d.box_dtype));
  d.scores = c.array("scores", first * bytes_of_box(d.score_dtype) / 4);
  d.classes = c.array<int64_t>("classes", first * 8);
  d.order = c.array<int64_t>("order", first * 8);
  d.rank = c.array<int64_t>("rank", first * 8);
  d.threshold = c.number("threshold");
  d.first = first;
  d.n = first + c.integer("n");
  d.sorted_boxes = c.array("sorted_boxes", first * (d.box_dtype == Dtype::kFloat64 ? 32 : 16));
  d.sorted_classes = c.array<int64_t>("sorted_classes", first * 8);
  d.struck = c.array<uint32_t>("struck", bits);
  d.kept = c.array<uint32_t>("kept", bits);
  d.mask = c.array<uint64_t>("mask");
  d.by_score = c.array<uint32_t>("by_score", bits);
  launch_nms(d, c.array<int64_t>("output"), c.integer("max_output"), c.array<int64_t>("count"));
}
