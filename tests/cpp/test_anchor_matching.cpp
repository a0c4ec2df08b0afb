// CPU anchor matching over plain memory against its definition.
#include <algorithm>

#include "anchor_matching/anchor_matching.h"
#include "anchor_matching/anchor_matching_cpu.h"
#include "boxes.h"
#include "check.h"

using namespace retina_ops;

namespace {

Box<float> box_at(const std::vector<float>& boxes, int i) {
  const float* v = boxes.data() + 4 * i;
  return {v[0], v[1], v[2], v[3]};
}

std::vector<int64_t> definition(const std::vector<float>& anchors, const std::vector<float>& gt, float fg, float bg) {
  const int a_count = static_cast<int>(anchors.size() / 4);
  const int m_count = static_cast<int>(gt.size() / 4);
  std::vector<float> highest(static_cast<size_t>(m_count), 0.0f);
  const auto iou = [&](int a, int m) {
    const Box<float> anchor = box_at(anchors, a);
    const Box<float> box = box_at(gt, m);
    return box_iou(box, box_area(box), anchor, box_area(anchor));
  };
  for (int m = 0; m < m_count; ++m) {
    for (int a = 0; a < a_count; ++a)
      highest[static_cast<size_t>(m)] = std::max(highest[static_cast<size_t>(m)], iou(a, m));
  }
  std::vector<int64_t> matches;
  for (int a = 0; a < a_count; ++a) {
    float best = -1.0f;
    int index = 0;
    bool attains = false;
    for (int m = 0; m < m_count; ++m) {
      const float value = iou(a, m);
      if (value > best) {
        best = value;
        index = m;
      }
      attains = attains || (value > 0.0f && value == highest[static_cast<size_t>(m)]);
    }
    matches.push_back(attains || best >= fg ? index : best < bg ? -1 : -2);
  }
  return matches;
}

void test_matches_definition(int anchor_count, int gt_count, float fg, float bg) {
  const std::vector<float> anchors = retina_ops_test::random_boxes<float>(anchor_count, 200.0, 3);
  const std::vector<float> gt = retina_ops_test::random_boxes<float>(gt_count, 200.0, 4);
  const int32_t counts[1] = {gt_count};
  std::vector<int64_t> matches(static_cast<size_t>(anchor_count), -9);
  MatchProblem problem{};
  problem.anchors = anchors.data();
  problem.gt_boxes = gt.data();
  problem.gt_counts = counts;
  problem.dtype = Dtype::kFloat32;
  problem.batch = 1;
  problem.anchor_count = anchor_count;
  problem.gt_capacity = gt_count;
  problem.fg_iou = fg;
  problem.bg_iou = bg;
  problem.ignore_iof = 0.5;
  problem.allow_low_quality = true;
  problem.matches = matches.data();
  int64_t foreground = -1;
  problem.foreground = &foreground;
  MatchWork<float> work = prepare_matching<float>(problem);
  for (int64_t group = 0; group < work.groups(); ++group) match_find_best(work, group);
  match_merge(work);
  for (int64_t group = work.groups(); group-- > 0;) match_decide(work, group);
  match_count(work);
  EXPECT(matches == definition(anchors, gt, fg, bg));
  EXPECT(foreground == std::count_if(matches.begin(), matches.end(), [](int64_t match) { return match >= 0; }));
}

}  // namespace

int main() {
  for (const int anchors : {1, 63, 64, 65, 4096, 9001}) {
    test_matches_definition(anchors, 9, 0.5f, 0.4f);
    test_matches_definition(anchors, 30, 0.5f, 0.0f);  // every pair counts
  }
  return retina_ops_test::failures;
}
