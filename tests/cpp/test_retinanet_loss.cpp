// The RetinaNet loss over plain memory: a planar level and one by anchor against the definition, anchor by anchor.
#include <cmath>
#include <vector>

#include "check.h"
#include "retinanet_loss/retinanet_loss_cpu.h"

using namespace retina_ops;

namespace {

constexpr int64_t kBatch = 2, kClasses = 3, kCapacity = 2;
constexpr int64_t kPlanarCells = 70, kPerCell = 2, kRows = 45;
constexpr int64_t kAnchors = kPlanarCells * kPerCell + kRows;
constexpr double kAlpha = 0.25, kGamma = 2.0, kBeta = 0.3;

double uniform() {
  static uint64_t state = 11;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<double>(state >> 33) / 2147483648.0;
}

double focal(double x, bool is_positive) {
  const double p = 1.0 / (1.0 + std::exp(-x));
  const double p_t = is_positive ? p : 1.0 - p;
  return -(is_positive ? kAlpha : 1.0 - kAlpha) * std::pow(1.0 - p_t, kGamma) * std::log(p_t);
}

double smooth_l1(double difference) {
  const double size = std::abs(difference);
  return size < kBeta ? 0.5 * size * size / kBeta : size - 0.5 * kBeta;
}

template <class F>
double slope(F f, double x) {
  return (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
}

template <class T>
struct Case {
  std::vector<T> logits, deltas, anchors, gt_boxes, logits_gradient, deltas_gradient;
  std::vector<int64_t> labels{2, 0, 1, 1}, matches;
  std::vector<double> normalizer{3.0, 5.0};
  RetinanetLossProblem problem{};

  Case() {
    problem.logits = levels(kClasses);
    problem.deltas = levels(4);
    for (int64_t i = 0; i < problem.logits.elements; ++i) logits.push_back(static_cast<T>(6 * uniform() - 4));
    for (int64_t i = 0; i < problem.deltas.elements; ++i) deltas.push_back(static_cast<T>(uniform() - 0.5));
    for (int64_t i = 0; i < kAnchors; ++i) add_box(anchors);
    for (int64_t i = 0; i < kBatch * kCapacity; ++i) add_box(gt_boxes);
    for (int64_t i = 0; i < kBatch * kAnchors; ++i) matches.push_back(static_cast<int64_t>(uniform() * 6) % 4 - 2);
    logits_gradient.assign(logits.size(), T(7));
    deltas_gradient.assign(deltas.size(), T(7));
    for (int l = 0; l < 2; ++l) {
      problem.logits.level[l].values = logits.data() + problem.logits.level[l].start;
      problem.deltas.level[l].values = deltas.data() + problem.deltas.level[l].start;
    }
    problem.anchors = anchors.data();
    problem.gt_boxes = gt_boxes.data();
    problem.gt_labels = labels.data();
    problem.gt_capacity = kCapacity;
    problem.matches = matches.data();
    problem.normalizer = normalizer.data();
    problem.alpha = kAlpha;
    problem.gamma = kGamma;
    problem.box_loss = BoxLoss::kSmoothL1;
    problem.smooth_l1_beta = kBeta;
    for (double& weight : problem.weights) weight = 1.0;
    problem.upstream_classification = 2.0;
    problem.upstream_box = 0.5;
    problem.logits_gradient = logits_gradient.data();
    problem.deltas_gradient = deltas_gradient.data();
  }

  static void add_box(std::vector<T>& boxes) {
    const double x = 50 * uniform(), y = 50 * uniform();
    for (const double value : {x, y, x + 5 + 20 * uniform(), y + 5 + 20 * uniform()}) {
      boxes.push_back(static_cast<T>(value));
    }
  }

  static HeadLevels levels(int64_t channels) {
    HeadLevels its{};
    its.count = 2;
    its.dtype = sizeof(T) == sizeof(float) ? Dtype::kFloat32 : Dtype::kFloat64;
    its.batch = kBatch;
    its.channels = channels;
    its.anchors = kAnchors;
    its.level[0] = {nullptr, kPlanarCells, kPerCell, 0, 0, true};
    its.level[1] = {nullptr, kRows, 1, kPlanarCells * kPerCell, 0, false};
    its.level[1].start = level_end(its, 0) + level_gap(its, 0);
    its.elements = level_end(its, 1);
    return its;
  }

  RetinanetLosses run() const {
    const std::vector<LossUnit> units = loss_units(problem);
    std::vector<UnitSum> sums;
    for (const LossUnit& unit : units) sums.push_back(run_loss_unit(problem, unit));
    return add_losses(units, sums);
  }
};

// x1, y1, x2, y2 to centre and size.
template <class T>
std::vector<double> centred(const T* box) {
  const double w = static_cast<double>(box[2] - box[0]), h = static_cast<double>(box[3] - box[1]);
  return {static_cast<double>(box[0]) + w / 2, static_cast<double>(box[1]) + h / 2, w, h};
}

template <class T>
void test_against_the_definition(double tolerance) {
  const Case<T> c;
  const RetinanetLosses losses = c.run();
  double classification = 0.0, box = 0.0;
  for (int64_t image = 0; image < kBatch; ++image) {
    for (int64_t anchor = 0; anchor < kAnchors; ++anchor) {
      const int l = anchor < kPlanarCells * kPerCell ? 0 : 1;
      const HeadLevel& logits = c.problem.logits.level[l];
      const HeadLevel& deltas = c.problem.deltas.level[l];
      const double divisor = c.normalizer[static_cast<size_t>(image)];
      const int64_t match = c.matches[static_cast<size_t>(image * kAnchors + anchor)];
      for (int64_t k = 0; k < kClasses; ++k) {
        const auto at =
            static_cast<size_t>(logits.start + logits.index(image, anchor - logits.first_anchor, k, kClasses));
        const bool is_positive = match >= 0 && c.labels[static_cast<size_t>(image * kCapacity + match)] == k;
        const auto loss = [&](double x) { return match == -2 ? 0.0 : focal(x, is_positive) / divisor; };
        const double x = static_cast<double>(c.logits[at]);
        classification += loss(x);
        EXPECT(std::abs(static_cast<double>(c.logits_gradient[at]) - 2.0 * slope(loss, x)) <= tolerance);
      }
      const std::vector<double> from = centred(&c.anchors[static_cast<size_t>(4 * anchor)]);
      const std::vector<double> to =
          centred(&c.gt_boxes[static_cast<size_t>(4 * (image * kCapacity + (match < 0 ? 0 : match)))]);
      const double targets[4] = {(to[0] - from[0]) / from[2], (to[1] - from[1]) / from[3], std::log(to[2] / from[2]),
                                 std::log(to[3] / from[3])};
      for (int64_t i = 0; i < 4; ++i) {
        const auto at = static_cast<size_t>(deltas.start + deltas.index(image, anchor - deltas.first_anchor, i, 4));
        const auto loss = [&](double x) { return match < 0 ? 0.0 : smooth_l1(x - targets[i]) / divisor; };
        const double x = static_cast<double>(c.deltas[at]);
        box += loss(x);
        EXPECT(std::abs(static_cast<double>(c.deltas_gradient[at]) - 0.5 * slope(loss, x)) <= tolerance);
      }
    }
  }
  EXPECT(!losses.has_bad_label);
  EXPECT(std::abs(losses.classification - classification) <= tolerance * classification);
  EXPECT(std::abs(losses.box - box) <= tolerance * box);
}

// A match or a label that does not exist is reported, and nothing outside the arrays is read.
void test_bad_labels() {
  for (const int64_t match : {kCapacity, int64_t(1) << 40}) {
    Case<float> c;
    c.matches[5] = match;
    EXPECT(c.run().has_bad_label);
  }
  for (const int64_t label : {int64_t(-1), kClasses, int64_t(1) << 40}) {
    Case<float> c;
    c.labels[0] = label;
    c.matches[5] = 0;
    EXPECT(c.run().has_bad_label);
  }
}

// Without gradients the same losses.
void test_losses_alone() {
  Case<float> c;
  const RetinanetLosses expected = c.run();
  c.problem.logits_gradient = nullptr;
  c.problem.deltas_gradient = nullptr;
  const RetinanetLosses losses = c.run();
  EXPECT(std::abs(losses.classification - expected.classification) <= 1e-6 * expected.classification);
  EXPECT(losses.box == expected.box);
}

}  // namespace

int main() {
  test_against_the_definition<double>(1e-8);
  test_against_the_definition<float>(2e-5);
  test_bad_labels();
  test_losses_alone();
  return retina_ops_test::failures;
}
