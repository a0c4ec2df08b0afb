// The CPU focal loss over plain memory, in chunks, against the definition in double.
#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "focal_loss/focal_loss_cpu.h"

using namespace retina_ops;

namespace {

double definition(double x, bool positive, double alpha, double gamma) {
  const double z = positive ? x : -x;
  const double p = 1.0 / (1.0 + std::exp(-z));
  return (positive ? alpha : 1.0 - alpha) * std::pow(1.0 - p, gamma) * std::log1p(std::exp(-z));
}

struct Case {
  int64_t rows;
  int64_t classes;
};

void test_matches_definition(Case size) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  const int64_t n = size.rows * size.classes;
  std::vector<float> logits(static_cast<size_t>(n));
  std::vector<float> losses(static_cast<size_t>(n), -1.0f);
  std::vector<float> grad(static_cast<size_t>(n), -1.0f);
  std::vector<int64_t> labels(static_cast<size_t>(size.rows));
  for (float& x : logits) x = normal(random);
  for (int64_t& label : labels) label = static_cast<int64_t>(random() % static_cast<unsigned>(size.classes + 2)) - 1;

  FocalProblem problem{};
  problem.logits = logits.data();
  problem.dtype = Dtype::kFloat32;
  problem.classes = size.classes;
  problem.labels = labels.data();
  problem.ignore_index = -1;
  problem.alpha = 0.25;
  problem.gamma = 2.0;
  problem.order = 1;
  problem.loss_out = losses.data();
  problem.grad_out = grad.data();
  problem.upstream_scalar = 1.0;
  double sum = 0.0;
  for (int64_t begin = 0; begin < n; begin += kFocalChunk) {
    sum += focal_loss_range(problem, begin, begin + kFocalChunk < n ? begin + kFocalChunk : n);
  }
  double expected_sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t label = labels[static_cast<size_t>(i / size.classes)];
    const bool ignored = label == -1;
    const bool positive = label == i % size.classes;
    const double x = logits[static_cast<size_t>(i)];
    const double loss = ignored ? 0.0 : definition(x, positive, 0.25, 2.0);
    const double step = 1e-5;
    const double slope =
        ignored
            ? 0.0
            : (definition(x + step, positive, 0.25, 2.0) - definition(x - step, positive, 0.25, 2.0)) / (2.0 * step);
    expected_sum += loss;
    EXPECT(std::abs(losses[static_cast<size_t>(i)] - loss) <= 4e-6 * loss);
    EXPECT(std::abs(grad[static_cast<size_t>(i)] - slope) <= 1e-5 * std::abs(slope) + 1e-9);
  }
  EXPECT(std::abs(sum - expected_sum) <= 1e-6 * expected_sum);
}

void test_bad_labels_are_found() {
  const std::vector<int64_t> labels{0, 3, -1, 4, 2};
  FocalProblem problem{};
  const auto found = [&](int64_t classes, int64_t ignore_index, int64_t begin_row) {
    problem.labels = labels.data();
    problem.classes = classes;
    problem.ignore_index = ignore_index;
    return first_bad_label(problem, begin_row, 5);
  };
  EXPECT(found(3, -1, 0) == 3);
  EXPECT(found(3, -1, 4) == -1);
  EXPECT(found(4, -1, 0) == -1);
  EXPECT(found(4, -2, 0) == 2);
  problem.labels = nullptr;
  EXPECT(first_bad_label(problem, 0, 5) == -1);
}

}  // namespace

int main() {
  // One row wider than a chunk, rows that straddle chunks, exact blocks, odd tails, one class.
  for (const Case size : {Case{1, 40000}, Case{700, 91}, Case{64, 64}, Case{9, 7}, Case{1000, 1}, Case{1, 1}}) {
    test_matches_definition(size);
  }
  test_bad_labels_are_found();
  return retina_ops_test::failures;
}
