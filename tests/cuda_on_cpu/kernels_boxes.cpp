// The kernels of box_iou/, box_coding/, anchor_matching/ and nms/, launched as by their operators.
#include "anchor_matching/anchor_matching_launch.cuh"
#include "box_coding/box_coding_launch.cuh"
#include "box_iou/box_iou_launch.cuh"
#include "case.h"
#include "nms/nms_launch.cuh"

using namespace retina_ops;

namespace {

int64_t bytes_of_box(Dtype dtype) { return 4 * (dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2); }

}  // namespace

// The first image is image `first`: the arrays' pointers are moved back by as much.
void run_box_iou(const Case& c) {
  const int64_t first = c.integer("first"), n = c.integer("n"), m = c.integer("m");
  const Dtype dtype = c.dtype("dtype");
  const int64_t box = bytes_of_box(dtype);
  const int64_t value = dtype == Dtype::kFloat64 ? 8 : 4;
  const BoxIouProblem problem{c.array("boxes1", first * n * box),   c.array("boxes2", first * m * box), dtype, n, m,
                              c.array("iou", first * n * m * value)};
  launch_box_iou(problem, first, first + c.integer("batch"), nullptr);
}

// The first box is box `first`: the arrays' pointers are moved back by as much.
void run_box_coding(const Case& c) {
  const int64_t first = c.integer("first");
  const Dtype code_dtype = c.dtype("code_dtype"), proposal_dtype = c.dtype("proposal_dtype");
  const int64_t of_codes = first * bytes_of_box(code_dtype), of_others = first * bytes_of_box(proposal_dtype);
  const bool is_one_to_one = c.integer("period") == c.integer("n");
  BoxCodingProblem problem{};
  problem.op = static_cast<BoxCodingOp>(c.integer("op"));
  problem.codes = c.array("codes", of_codes);
  problem.code_dtype = code_dtype;
  problem.proposals = c.array("proposals", is_one_to_one ? of_others : 0);
  problem.proposal_dtype = proposal_dtype;
  problem.period = is_one_to_one ? first + c.integer("n") : c.integer("period");
  problem.grad = c.array("grad", of_others);
  problem.out = c.array("out", of_others);
  problem.out2 = c.array("out2", of_others);
  problem.out_dtype = proposal_dtype;
  for (int i = 0; i < 4; ++i) problem.weights[i] = c.number("w" + std::to_string(i));
  problem.image_height = c.number("image_height");
  problem.image_width = c.number("image_width");
  launch_box_coding(problem, first, first + c.integer("n"), nullptr);
}

// The first image is image `first`, as above.
void run_match_anchors(const Case& c) {
  const int64_t first = c.integer("first");
  const Dtype dtype = c.dtype("dtype");
  const int64_t box = bytes_of_box(dtype);
  MatchProblem problem{};
  problem.anchor_count = c.integer("anchor_count");
  problem.gt_capacity = c.integer("gt_capacity");
  problem.region_capacity = c.integer("region_capacity");
  problem.anchors_per_image = c.flag("anchors_per_image");
  problem.anchors = c.array("anchors", problem.anchors_per_image ? first * problem.anchor_count * box : 0);
  problem.gt_boxes = c.array("gt_boxes", first * problem.gt_capacity * box);
  problem.gt_counts = c.array<int32_t>("gt_counts", first * 4);
  problem.regions = c.array("regions", first * problem.region_capacity * box);
  problem.region_counts = c.array<int32_t>("region_counts", first * 4);
  problem.dtype = dtype;
  problem.batch = first + c.integer("batch");
  problem.fg_iou = c.number("fg_iou");
  problem.bg_iou = c.number("bg_iou");
  problem.ignore_iof = c.number("ignore_iof");
  problem.allow_low_quality = c.flag("allow_low_quality");
  problem.matches = c.array<int64_t>("matches", first * problem.anchor_count * 8);
  void* best = c.array("best", first * problem.gt_capacity * (dtype == Dtype::kFloat64 ? 8 : 4));
  launch_match_anchors(problem, best, first, nullptr);
}

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
