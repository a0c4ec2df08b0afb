// The CPU NMS over plain memory against the greedy definition, with and without classes.
#include "boxes.h"
#include "check.h"
#include "nms/nms.h"
#include "nms/score_order.h"

using namespace retina_ops;

namespace {

template <class T>
std::vector<int32_t> greedy(const std::vector<T>& boxes, const std::vector<float>& scores,
                            const std::vector<int64_t>& classes, double threshold) {
  const std::vector<int32_t> order =
      descending_order(scores.data(), Dtype::kFloat32, static_cast<int64_t>(scores.size()));
  std::vector<int32_t> kept;
  const auto box = [&](int32_t i) {
    const T* v = boxes.data() + 4 * i;
    return Box<T>{v[0], v[1], v[2], v[3]};
  };
  for (const int32_t i : order) {
    bool keep = true;
    for (const int32_t k : kept) {
      const bool same = classes.empty() || classes[static_cast<size_t>(i)] == classes[static_cast<size_t>(k)];
      const T iou = box_iou(box(k), box_area(box(k)), box(i), box_area(box(i)));
      keep = keep && !(same && static_cast<double>(iou) > threshold);
    }
    if (keep) kept.push_back(i);
  }
  return kept;
}

template <class T>
void test_matches_greedy(Dtype dtype, int count, double side) {
  const std::vector<T> boxes = retina_ops_test::random_boxes<T>(count, side, 11);
  std::vector<float> scores;
  std::vector<int64_t> classes;
  std::mt19937 random(5);
  for (int i = 0; i < count; ++i) {
    scores.push_back(static_cast<float>(random() % 64));
    classes.push_back(static_cast<int64_t>(random() % 3) - 1);
  }
  for (const double threshold : {-0.5, 0.0, 0.3, 0.5, 0.99}) {
    for (const bool with_classes : {false, true}) {
      const NmsProblem problem{
          boxes.data(), dtype,    scores.data(), Dtype::kFloat32, with_classes ? classes.data() : nullptr,
          count,        threshold};
      const std::vector<int32_t> expected =
          greedy(boxes, scores, with_classes ? classes : std::vector<int64_t>(), threshold);
      EXPECT(nms_keep(problem, count, serial_for) == expected);
      if (expected.size() > 2) EXPECT(nms_keep(problem, 2, serial_for).size() == 2);
    }
  }
}

void test_order() {
  const float nan = std::nanf("");
  const std::vector<float> scores{1.0f, nan, -0.0f, INFINITY, 0.0f, -INFINITY, 1.0f, -3.5f, 1e-40f};
  const std::vector<int32_t> expected{3, 0, 6, 8, 2, 4, 7, 5};
  EXPECT(descending_order(scores.data(), Dtype::kFloat32, 9) == expected);
}

}  // namespace

int main() {
  test_order();
  // No box, one box, a list, a grid and one chunk, several chunks, a crowded field.
  for (const int count : {0, 1, 70, 600, 4500}) test_matches_greedy<float>(Dtype::kFloat32, count, 700.0);
  test_matches_greedy<float>(Dtype::kFloat32, 900, 90.0);
  test_matches_greedy<double>(Dtype::kFloat64, 700, 300.0);
  return retina_ops_test::failures;
}
