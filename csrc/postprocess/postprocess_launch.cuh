// The launches of post-processing, over workspace that the caller gives. No torch.
//
// As many for every batch, number of classes and content: collecting, 6 digits (9 for float64 logits), collecting
// again, sorting, decoding, suppression, and the caller's one to zero the workspace: 12 (15).
#pragma once

#include "nms/nms.h"
#include "postprocess/postprocess_cpu.h"
#include "postprocess/postprocess_detect.cuh"

namespace retina_ops {

constexpr int64_t kPostprocessMaxTopk = 65536;  // candidates of a slab: one block sorts them
constexpr int64_t kPostprocessSharedBytes = 32768;

// Bytes of the workspace's arrays, each a multiple of 16.
struct PostprocessBytes {
  int64_t capacity;      // keys of a slab: a power of two
  int64_t states, bins;  // zero before
  int64_t keys, candidates, scores, labels;
};

inline PostprocessBytes postprocess_bytes(const PostprocessProblem& problem) {
  const bool double_scores = problem.logits.dtype == Dtype::kFloat64;
  const int64_t key = double_scores ? sizeof(KeyOf<double>) : sizeof(KeyOf<float>);
  const int64_t slabs = problem.logits.batch * problem.logits.count;
  const auto rounded = [](int64_t bytes) { return ceil_div<int64_t>(bytes, 16) * 16; };
  PostprocessBytes bytes{};
  bytes.capacity = kPostprocessSharedBytes / key;
  while (bytes.capacity < 2 * problem.topk) bytes.capacity *= 2;
  const int64_t state = double_scores ? sizeof(SlabState<double>) : sizeof(SlabState<float>);
  bytes.states = rounded(slabs * state);
  bytes.bins = rounded(slabs * kPostprocessBins * static_cast<int64_t>(sizeof(unsigned)));
  bytes.keys = rounded(slabs * bytes.capacity * key);
  bytes.candidates = rounded(slabs * problem.topk * (problem.box_dtype == Dtype::kFloat64 ? 32 : 16));
  bytes.scores = rounded(slabs * problem.topk * (double_scores ? 8 : 4));
  bytes.labels = rounded(slabs * problem.topk * 4);
  return bytes;
}

// The workspace on the device.
struct PostprocessDevice {
  void* states;
  unsigned* bins;
  void* keys;
  void* candidates;
  void* scores;
  int32_t* labels;
  int64_t first_image;  // images [first_image, batch) are taken: 0 but in tests of large indices
  cudaStream_t stream;
};

// Leaves the candidates of each slab in its keys.
template <class T>
void launch_postprocess_select(const PostprocessProblem& problem, const PostprocessDevice& d, int64_t capacity) {
  using S = ArithmeticOf<T>;
  PostprocessScan<T> a{};
  a.logits = problem.logits;
  a.first_image = d.first_image;
  for (int l = 0; l < problem.logits.count; ++l) {
    const int64_t size = problem.logits.level[l].anchors() * problem.logits.channels;
    a.strips[l] = static_cast<unsigned>(ceil_div<int64_t>(size, kPostprocessStrip));
    a.image_strips += a.strips[l];
  }
  a.states = static_cast<SlabState<S>*>(d.states);
  a.keys = static_cast<KeyOf<S>*>(d.keys);
  a.bins = d.bins;
  a.capacity = static_cast<unsigned>(capacity);
  a.topk = static_cast<unsigned>(problem.topk);
  a.threshold = static_cast<S>(problem.score_threshold);
  a.bound = logit_below(a.threshold);
  const int64_t images = problem.logits.batch - d.first_image;
  if (a.image_strips == 0 || problem.topk == 0) return;
  const dim3 grid(static_cast<unsigned>(images * a.image_strips)), block(kPostprocessThreads);
  launch(postprocess_collect_kernel<T>, grid, block, 0, d.stream, a, false);
  for (int digit = 0; digit * kPostprocessDigitBits < CandidateKey<S>::kBits; ++digit) {
    launch(postprocess_narrow_kernel<T>, grid, block, 0, d.stream, a, digit);
  }
  launch(postprocess_collect_kernel<T>, grid, block, 0, d.stream, a, true);
  const dim3 slabs(static_cast<unsigned>(images * problem.logits.count)), sorters(kPostprocessSortThreads);
  const int64_t bytes = capacity * static_cast<int64_t>(sizeof(KeyOf<S>));
  const int64_t first_slab = d.first_image * problem.logits.count;
  if (bytes <= kPostprocessSharedBytes) {
    launch(postprocess_sort_kernel<S, true>, slabs, sorters, static_cast<size_t>(bytes), d.stream, a.states, a.keys,
           a.capacity, first_slab);
  } else {
    launch(postprocess_sort_kernel<S, false>, slabs, sorters, 0, d.stream, a.states, a.keys, a.capacity, first_slab);
  }
}

template <class A, class S>
void launch_postprocess_detect(const PostprocessProblem& problem, const PostprocessDevice& d, int64_t capacity) {
  PostprocessDetect<A, S> a{};
  a.deltas = problem.deltas;
  a.classes = problem.logits.channels;
  a.first_image = d.first_image;
  a.states = static_cast<const SlabState<S>*>(d.states);
  a.keys = static_cast<const KeyOf<S>*>(d.keys);
  a.capacity = static_cast<unsigned>(capacity);
  a.topk = static_cast<unsigned>(problem.topk);
  a.anchors = static_cast<const A*>(problem.anchors);
  a.image_sizes = static_cast<const A*>(problem.image_sizes);
  a.coding = box_coding_of<A>(problem.weights);
  a.nms_threshold = threshold_below<A>(problem.nms_threshold);
  a.detections = problem.detections;
  a.candidates = static_cast<Box<A>*>(d.candidates);
  a.candidate_scores = static_cast<S*>(d.scores);
  a.candidate_labels = d.labels;
  a.boxes = static_cast<Box<A>*>(problem.boxes);
  a.scores = static_cast<S*>(problem.scores);
  a.labels = problem.labels;
  a.counts = problem.counts;
  const auto images = static_cast<unsigned>(problem.logits.batch - d.first_image);
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(problem.topk, kPostprocessThreads));
  if (blocks > 0) {
    launch(postprocess_decode_kernel<A, S>, dim3(images * static_cast<unsigned>(a.deltas.count) * blocks),
           dim3(kPostprocessThreads), 0, d.stream, a, blocks);
  }
  launch(postprocess_nms_kernel<A, S>, dim3(images), dim3(kPostprocessThreads), 0, d.stream, a);
}

// One call for a batch that is not empty.
inline void launch_postprocess(const PostprocessProblem& problem, const PostprocessDevice& d, int64_t capacity) {
  switch (problem.logits.dtype) {
    case Dtype::kFloat32: launch_postprocess_select<float>(problem, d, capacity); break;
    case Dtype::kFloat64: launch_postprocess_select<double>(problem, d, capacity); break;
    case Dtype::kFloat16: launch_postprocess_select<__half>(problem, d, capacity); break;
    case Dtype::kBFloat16: launch_postprocess_select<__nv_bfloat16>(problem, d, capacity); break;
  }
  const bool double_scores = problem.logits.dtype == Dtype::kFloat64;
  if (problem.box_dtype == Dtype::kFloat64) {
    if (double_scores) return launch_postprocess_detect<double, double>(problem, d, capacity);
    return launch_postprocess_detect<double, float>(problem, d, capacity);
  }
  if (double_scores) return launch_postprocess_detect<float, double>(problem, d, capacity);
  launch_postprocess_detect<float, float>(problem, d, capacity);
}

}  // namespace retina_ops
