// CPU box coding and IoU over plain memory: decoding inverts encoding, with clipping, repeated proposals and blocks
// that are not full.
#include <algorithm>
#include <cmath>

#include "box_coding/box_coding.h"
#include "box_iou/box_iou.h"
#include "boxes.h"
#include "check.h"

using namespace retina_ops;

namespace {

BoxCodingProblem problem_of(BoxCodingOp op, const std::vector<float>& codes, const std::vector<float>& proposals,
                            std::vector<float>& out) {
  BoxCodingProblem problem{};
  problem.op = op;
  problem.codes = codes.data();
  problem.proposals = proposals.data();
  problem.code_dtype = problem.proposal_dtype = problem.out_dtype = Dtype::kFloat32;
  problem.period = static_cast<int64_t>(proposals.size() / 4);
  problem.out = out.data();
  std::fill(problem.weights, problem.weights + 4, 2.0);
  problem.image_height = problem.image_width = -1.0;
  return problem;
}

void test_decode_inverts_encode(int count, int repeats) {
  const std::vector<float> boxes = retina_ops_test::random_boxes<float>(count * repeats, 300.0, 1);
  const std::vector<float> proposals = retina_ops_test::random_boxes<float>(count, 300.0, 2);
  std::vector<float> deltas(boxes.size());
  std::vector<float> decoded(boxes.size());
  box_coding_range(problem_of(BoxCodingOp::kEncode, boxes, proposals, deltas), 0, count * repeats);
  BoxCodingProblem decode = problem_of(BoxCodingOp::kDecode, deltas, proposals, decoded);
  box_coding_range(decode, 0, count * repeats);
  for (size_t i = 0; i < boxes.size(); ++i) EXPECT(std::abs(decoded[i] - boxes[i]) < 1e-3f);
  decode.image_height = 50.0;
  decode.image_width = 70.0;
  box_coding_range(decode, 0, count * repeats);
  for (size_t i = 0; i < boxes.size(); ++i) {
    EXPECT(std::abs(decoded[i] - std::min(boxes[i], i % 2 == 0 ? 70.0f : 50.0f)) < 1e-3f);
  }
}

void test_iou(int rows, int columns) {
  const std::vector<float> a = retina_ops_test::random_boxes<float>(rows, 100.0, 1);
  const std::vector<float> b = retina_ops_test::random_boxes<float>(columns, 100.0, 2);
  std::vector<float> iou(static_cast<size_t>(rows * columns), -1.0f);
  box_iou_range({a.data(), b.data(), Dtype::kFloat32, rows, columns, iou.data()}, 0, rows);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      const float* p = a.data() + 4 * i;
      const float* q = b.data() + 4 * j;
      const float w = std::max(0.0f, std::min(p[2], q[2]) - std::max(p[0], q[0]));
      const float h = std::max(0.0f, std::min(p[3], q[3]) - std::max(p[1], q[1]));
      const float area = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]);
      EXPECT(iou[static_cast<size_t>(i * columns + j)] == w * h / (area - w * h));
    }
  }
}

}  // namespace

int main() {
  for (const int count : {1, 31, 32, 33, 1000}) {
    test_decode_inverts_encode(count, 1);
    test_decode_inverts_encode(count, 3);
  }
  test_iou(1, 1);
  test_iou(17, 513);
  return retina_ops_test::failures;
}
