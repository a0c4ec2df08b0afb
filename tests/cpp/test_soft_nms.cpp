// The CPU soft NMS over plain memory against the stepwise definition, with and without classes; its exp.
#include "soft_nms/soft_nms.h"

#include "boxes.h"
#include "check.h"
#include "soft_nms/soft_nms_cpu.h"

using namespace retina_ops;

namespace {

// Step by step over all boxes, in the same arithmetic.
template <bool kGaussian, class A>
SoftNmsTaken<A> stepwise(const SoftNmsProblem& problem) {
  const auto n = static_cast<size_t>(problem.n);
  const SoftNmsRule<A> rule = soft_nms_rule<A>(problem.threshold, problem.sigma, problem.min_score);
  const A* scores = static_cast<const A*>(problem.scores);
  const auto box = [&](size_t i) {
    const A* v = static_cast<const A*>(problem.boxes) + 4 * i;
    return Box<A>{v[0], v[1], v[2], v[3]};
  };
  std::vector<A> decays(n, A(1));
  std::vector<bool> left(n, true);
  SoftNmsTaken<A> taken;
  while (true) {
    size_t best = n;
    for (size_t i = 0; i < n; ++i) {
      left[i] = left[i] && scores[i] * decays[i] >= rule.min_score;
      if (left[i] && (best == n || scores[i] * decays[i] > scores[best] * decays[best])) best = i;
    }
    if (best == n) return taken;
    left[best] = false;
    taken.keep.push_back(static_cast<int32_t>(best));
    taken.scores.push_back(scores[best] * decays[best]);
    taken.decays.push_back(decays[best]);
    for (size_t i = 0; i < n; ++i) {
      if (problem.classes != nullptr && problem.classes[i] != problem.classes[best]) continue;
      const A iou = box_iou(box(best), box_area(box(best)), box(i), box_area(box(i)));
      decays[i] *= soft_nms_factor<kGaussian>(iou, rule);
    }
  }
}

template <class A>
void test_matches_stepwise(Dtype dtype, int count, double side) {
  const std::vector<A> boxes = retina_ops_test::random_boxes<A>(count, side, 17);
  std::vector<A> scores;
  std::vector<int64_t> classes;
  std::mt19937 random(7);
  for (int i = 0; i < count; ++i) {
    scores.push_back(static_cast<A>(random() % 64) / A(64));
    classes.push_back(static_cast<int64_t>(random() % 3) - 1);
  }
  if (count > 10) scores[3] = std::numeric_limits<A>::quiet_NaN();
  for (const double min_score : {0.0, 0.05, 0.6}) {
    for (const int kind : {0, 1, 2, 3}) {
      const bool gaussian = kind % 2 != 0;
      const SoftNmsProblem problem{boxes.data(), dtype, scores.data(), dtype, kind > 1 ? classes.data() : nullptr,
                                   count,        0.2,   gaussian,      0.4,   min_score};
      const SoftNmsTaken<A> expected = gaussian ? stepwise<true, A>(problem) : stepwise<false, A>(problem);
      const SoftNmsTaken<A> taken = soft_nms_taken<A>(problem, serial_for);
      EXPECT(taken.keep == expected.keep);
      EXPECT(taken.scores == expected.scores);
      EXPECT(taken.decays == expected.decays);
    }
  }
}

// Against libm, over the range and past it.
template <class A>
void test_exp(double lowest, double tolerance) {
  double worst = 0;
  for (int i = 0; i <= 100000; ++i) {
    const A y = static_cast<A>(lowest * i / 100000);
    const double exact = std::exp(static_cast<double>(y));
    worst = std::max(worst, std::abs(static_cast<double>(exp_of_decay(y)) / exact - 1));
  }
  EXPECT(worst < tolerance);
  EXPECT(exp_of_decay(A(0)) == A(1));
  EXPECT(exp_of_decay(-std::numeric_limits<A>::infinity()) == A(0));
}

}  // namespace

int main() {
  test_exp<float>(-87.0, 3e-7);
  test_exp<double>(-707.0, 5e-16);
  // No box, one box, unsorted blocks, sorted blocks, a crowded field that is compacted often.
  for (const int count : {0, 1, 50, 64, 65, 700}) test_matches_stepwise<float>(Dtype::kFloat32, count, 400.0);
  test_matches_stepwise<float>(Dtype::kFloat32, 500, 90.0);
  test_matches_stepwise<double>(Dtype::kFloat64, 400, 300.0);
  return retina_ops_test::failures;
}
