// Scores, keys and places, and the CPU post-processing over plain memory against a plain selection and suppression.
#include <algorithm>
#include <tuple>

#include "check.h"
#include "nms/nms.h"
#include "postprocess/postprocess.h"
#include "postprocess/postprocess_cpu.h"

using namespace retina_ops;

namespace {

// A ParallelFor that runs one iteration at a time, the last first: each strip sees the bound of the strips after it.
void backwards(int64_t count, int64_t, RangeBody body) {
  for (int64_t i = count; i-- > 0;) body(i, i + 1);
}

uint64_t next_random(uint64_t& state) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return state >> 33;
}

void test_sigmoid() {
  for (double x = -60.0; x < 60.0; x += 0.0137) {
    const double expected = 1.0 / (1.0 + std::exp(-x));
    EXPECT(std::abs(sigmoid(x) - expected) <= 1e-15 * expected);
  }
  EXPECT(sigmoid(0.0) == 0.5 && sigmoid(800.0) == 1.0 && sigmoid(-800.0) == 0.0);
  EXPECT(sigmoid(std::numeric_limits<double>::infinity()) == 1.0);
  EXPECT(sigmoid(-std::numeric_limits<double>::infinity()) == 0.0);
  EXPECT(sigmoid(std::nan("")) != sigmoid(std::nan("")));
  // Neighbours never change places, so that a bound in logits holds for scores.
  for (float x = -90.0f; x < 20.0f; x += 0.0317f) {
    float y = x;
    for (int i = 0; i < 20; ++i) {
      const float above = std::nextafter(y, 100.0f);
      EXPECT(score_of(above) >= score_of(y));
      y = above;
    }
  }
}

template <class S>
void test_bound() {
  uint64_t state = 7;
  for (int i = 0; i < 20000; ++i) {
    const S logit = static_cast<S>(static_cast<double>(next_random(state) % 100000) / 2000.0 - 20.0);
    EXPECT(logit >= logit_below(score_of(logit)));
  }
  const S infinity = std::numeric_limits<S>::infinity();
  EXPECT(logit_below(S(0)) == -infinity && logit_below(S(-1)) == -infinity);
  EXPECT(logit_below(std::numeric_limits<S>::quiet_NaN()) == -infinity);
  EXPECT(logit_below(S(1)) < S(40) && logit_below(S(7)) < S(40));
}

template <class S>
void test_keys() {
  EXPECT(key_of(S(0.5), 3) > key_of(S(0.5), 4));
  EXPECT(key_of(S(0.5), 4000000000u) > key_of(S(0.25), 0));
  EXPECT(key_of(S(0), static_cast<uint32_t>(kMaxPlaces - 1)) > 0);
  EXPECT(key_of(S(1), 0) >> CandidateKey<S>::kBits == 0);
  EXPECT(score_of_key<S>(key_of(S(0.7), 9)) == S(0.7) && place_of_key<S>(key_of(S(0.7), 9)) == 9);
}

// Post-processing as its definition has it, of one image with one level.
template <class T>
void test_one_level(Dtype dtype, bool is_planar, int64_t anchors, int64_t classes, int64_t topk, bool ties) {
  const int64_t per_cell = is_planar ? 3 : 1;
  const int64_t cells = anchors / per_cell;
  std::vector<T> logits(static_cast<size_t>(anchors * classes)), deltas(static_cast<size_t>(anchors * 4), T(0));
  std::vector<T> boxes;
  uint64_t state = 3;
  for (T& logit : logits) {
    logit = static_cast<T>(next_random(state) % 8192) / T(1024) - T(4);
    if (ties) logit = std::round(logit);
  }
  for (int64_t i = 0; i < anchors; ++i) {
    const T x = static_cast<T>(next_random(state) % 64), y = static_cast<T>(next_random(state) % 64);
    boxes.insert(boxes.end(), {x, y, x + T(16), y + T(16)});
  }
  PostprocessProblem problem{};
  problem.logits.count = problem.deltas.count = 1;
  problem.logits.dtype = problem.deltas.dtype = problem.box_dtype = dtype;
  problem.logits.batch = problem.deltas.batch = 1;
  problem.logits.channels = classes;
  problem.deltas.channels = 4;
  problem.logits.level[0] = {logits.data(), cells, per_cell, 0, 0, is_planar};
  problem.deltas.level[0] = {deltas.data(), cells, per_cell, 0, 0, is_planar};
  problem.anchors = boxes.data();
  const T size[2] = {T(60), T(70)};
  problem.image_sizes = size;
  problem.score_threshold = 0.1;
  problem.topk = topk;
  problem.nms_threshold = 0.4;
  problem.detections = 100;
  for (double& weight : problem.weights) weight = 1.0;

  std::vector<std::tuple<T, int64_t>> candidates;  // minus score, place
  for (int64_t place = 0; place < anchors * classes; ++place) {
    const HeadLevel& level = problem.logits.level[0];
    const T logit = logits[static_cast<size_t>(level.index(0, place / classes, place % classes, classes))];
    if (score_of(logit) > T(0.1)) candidates.push_back({-score_of(logit), place});
  }
  std::sort(candidates.begin(), candidates.end());
  if (static_cast<int64_t>(candidates.size()) > topk) candidates.resize(static_cast<size_t>(topk));
  std::vector<std::tuple<Box<T>, T, int64_t>> expected;
  std::vector<int64_t> expected_indices;
  for (const auto& [minus_score, place] : candidates) {
    const T* v = boxes.data() + 4 * (place / classes);
    const Box<T> box{v[0], clamped(v[1], T(0), T(60)), clamped(v[2], T(0), T(70)), clamped(v[3], T(0), T(60))};
    bool keep = expected.size() < 100;
    for (const auto& [kept, score, label] : expected) {
      const T iou = box_iou(kept, box_area(kept), box, box_area(box));
      keep = keep && !(label == place % classes && static_cast<double>(iou) > 0.4);
    }
    if (!keep) continue;
    expected.push_back({box, -minus_score, place % classes});
    expected_indices.push_back(place / classes);
  }

  for (const ParallelFor parallel : {&serial_for, &backwards}) {
    std::vector<T> out_boxes(400, T(7)), out_scores(100, T(7));
    std::vector<int64_t> out_labels(100, 7), out_indices(100, 7), count(1, 7);
    problem.boxes = out_boxes.data();
    problem.scores = out_scores.data();
    problem.labels = out_labels.data();
    problem.counts = count.data();
    problem.indices = out_indices.data();
    postprocess_images(problem, parallel);
    EXPECT(count[0] == static_cast<int64_t>(expected.size()));
    for (size_t i = 0; i < 100; ++i) {
      const bool found = i < expected.size();
      const Box<T> box = found ? std::get<0>(expected[i]) : Box<T>{T(0), T(0), T(0), T(0)};
      EXPECT(out_labels[i] == (found ? std::get<2>(expected[i]) : -1));
      EXPECT(out_indices[i] == (found ? expected_indices[i] : -1));
      EXPECT(out_scores[i] == (found ? std::get<1>(expected[i]) : T(0)));
      EXPECT(out_boxes[4 * i] == box.x1 && out_boxes[4 * i + 1] == box.y1);
      EXPECT(out_boxes[4 * i + 2] == box.x2 && out_boxes[4 * i + 3] == box.y2);
    }
  }
}

}  // namespace

int main() {
  test_sigmoid();
  test_bound<float>();
  test_bound<double>();
  test_keys<float>();
  test_keys<double>();
  for (const bool is_planar : {false, true}) {
    for (const bool ties : {false, true}) {
      test_one_level<float>(Dtype::kFloat32, is_planar, 33, 5, 20, ties);
      test_one_level<float>(Dtype::kFloat32, is_planar, 30000, 20, 500, ties);
      test_one_level<double>(Dtype::kFloat64, is_planar, 3000, 7, 10000, ties);
    }
  }
  return retina_ops_test::failures;
}
