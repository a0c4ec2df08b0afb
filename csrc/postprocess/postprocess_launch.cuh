// The launches of post-processing, over workspace that the caller allocates. No torch.
//
// Their number does not depend on the batch, the classes or the content: collecting, one per digit (6, or 9 for float64
// logits), collecting again, sorting, decoding, suppressing. With the caller's launch that zeroes the workspace: 12
// (15).
#pragma once

#include "nms/nms.h"
#include "postprocess/postprocess_cpu.h"
#include "postprocess/postprocess_detect.cuh"

namespace retina_ops {

constexpr int64_t kPostprocessMaxTopk = 65536;      // candidates per slab, which one block sorts
constexpr int64_t kPostprocessSharedBytes = 32768;  // of keys that are sorted in shared memory

// Bytes of the arrays of the workspace, each a multiple of 16.
struct PostprocessBytes {
  int64_t capacity;      // keys per slab, a power of two
  int64_t states, bins;  // zero before
  int64_t keys, candidates, scores, labels, indices;
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
  bytes.indices = rounded(slabs * problem.topk * 8);
  return bytes;
}

// A call on the device. limits.first: the first image that is computed.
struct PostprocessDevice : PostprocessProblem {
  // The workspace: arrays of postprocess_bytes(problem).
  int64_t capacity;
  void* states;
  unsigned* bins;
  void* keys;
  void* candidates;
  void* candidate_scores;
  int32_t* candidate_labels;
  int64_t* candidate_indices;
  LaunchLimits limits;
  cudaStream_t stream;
};

// Writes the best candidates of each slab, sorted, into its keys.
template <class T>
void launch_postprocess_select(const PostprocessDevice& device) {
  using S = ArithmeticOf<T>;
  PostprocessScan<T> args{};
  args.logits = device.logits;
  args.first_image = device.limits.first;
  for (int l = 0; l < device.logits.count; ++l) {
    const int64_t size = device.logits.level[l].anchors() * device.logits.channels;
    args.strips[l] = static_cast<unsigned>(ceil_div<int64_t>(size, kPostprocessStrip));
    args.image_strips += args.strips[l];
  }
  args.states = static_cast<SlabState<S>*>(device.states);
  args.keys = static_cast<KeyOf<S>*>(device.keys);
  args.bins = device.bins;
  args.capacity = static_cast<unsigned>(device.capacity);
  args.topk = static_cast<unsigned>(device.topk);
  args.threshold = static_cast<S>(device.score_threshold);
  args.bound = logit_below(args.threshold);
  const int64_t images = device.logits.batch - device.limits.first;
  if (args.image_strips == 0 || device.topk == 0) return;
  const dim3 grid(static_cast<unsigned>(images * args.image_strips)), block(kPostprocessThreads);
  launch(postprocess_collect_kernel<T>, grid, block, 0, device.stream, args, false);
  for (int digit = 0; digit * kPostprocessDigitBits < CandidateKey<S>::kBits; ++digit) {
    launch(postprocess_narrow_kernel<T>, grid, block, 0, device.stream, args, digit);
  }
  launch(postprocess_collect_kernel<T>, grid, block, 0, device.stream, args, true);
  const dim3 slabs(static_cast<unsigned>(images * device.logits.count)), sorters(kPostprocessSortThreads);
  const int64_t bytes = device.capacity * static_cast<int64_t>(sizeof(KeyOf<S>));
  const int64_t first_slab = device.limits.first * device.logits.count;
  if (bytes <= kPostprocessSharedBytes) {
    launch(postprocess_sort_kernel<S, true>, slabs, sorters, static_cast<size_t>(bytes), device.stream, args.states,
           args.keys, args.capacity, first_slab);
  } else {
    launch(postprocess_sort_kernel<S, false>, slabs, sorters, 0, device.stream, args.states, args.keys, args.capacity,
           first_slab);
  }
}

template <class A, class S>
void launch_postprocess_detect(const PostprocessDevice& device) {
  PostprocessDetect<A, S> args{};
  args.deltas = device.deltas;
  args.classes = device.logits.channels;
  args.first_image = device.limits.first;
  args.states = static_cast<const SlabState<S>*>(device.states);
  args.keys = static_cast<const KeyOf<S>*>(device.keys);
  args.capacity = static_cast<unsigned>(device.capacity);
  args.topk = static_cast<unsigned>(device.topk);
  args.anchors = static_cast<const A*>(device.anchors);
  args.image_sizes = static_cast<const A*>(device.image_sizes);
  args.coding = box_coding_of<A>(device.weights);
  args.nms_threshold = threshold_below<A>(device.nms_threshold);
  args.detections = device.detections;
  args.candidates = static_cast<Box<A>*>(device.candidates);
  args.candidate_scores = static_cast<S*>(device.candidate_scores);
  args.candidate_labels = device.candidate_labels;
  args.candidate_indices = device.candidate_indices;
  args.boxes = static_cast<Box<A>*>(device.boxes);
  args.scores = static_cast<S*>(device.scores);
  args.labels = device.labels;
  args.counts = device.counts;
  args.indices = device.indices;
  const auto images = static_cast<unsigned>(device.logits.batch - device.limits.first);
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(device.topk, kPostprocessThreads));
  if (blocks > 0) {
    launch(postprocess_decode_kernel<A, S>, dim3(images * static_cast<unsigned>(args.deltas.count) * blocks),
           dim3(kPostprocessThreads), 0, device.stream, args, blocks);
  }
  launch(postprocess_nms_kernel<A, S>, dim3(images), dim3(kPostprocessThreads), 0, device.stream, args);
}

// At least one image.
inline void launch_postprocess(const PostprocessDevice& device) {
  switch (device.logits.dtype) {
    case Dtype::kFloat32: launch_postprocess_select<float>(device); break;
    case Dtype::kFloat64: launch_postprocess_select<double>(device); break;
    case Dtype::kFloat16: launch_postprocess_select<__half>(device); break;
    case Dtype::kBFloat16: launch_postprocess_select<__nv_bfloat16>(device); break;
  }
  const bool double_scores = device.logits.dtype == Dtype::kFloat64;
  if (device.box_dtype == Dtype::kFloat64) {
    if (double_scores) return launch_postprocess_detect<double, double>(device);
    return launch_postprocess_detect<double, float>(device);
  }
  if (double_scores) return launch_postprocess_detect<float, double>(device);
  launch_postprocess_detect<float, float>(device);
}
RETINA_OPS_LAUNCH(launch_postprocess, PostprocessDevice, logits, deltas, anchors, image_sizes, box_dtype,
                  score_threshold, topk, nms_threshold, detections, weights, boxes, scores, labels, counts, indices,
                  capacity, states, bins, keys, candidates, candidate_scores, candidate_labels, candidate_indices,
                  limits);

}  // namespace retina_ops
