// Encodes boxes as deltas from proposals, and decodes deltas. Host and device, no torch.
//
// Girshick et al. 2014, "Rich feature hierarchies", equations (1) to (4) of appendix C, with torchvision's weights. For
// a proposal with centre (cx, cy) and size (w, h) and a box with centre (gx, gy) and size (gw, gh):
//   dx = wx (gx - cx) / w     dy = wy (gy - cy) / h     dw = ww log(gw / w)     dh = wh log(gh / h).
#pragma once

#include "common/box.h"
#include "common/elementary.h"
#include "common/half_block.h"

namespace retina_ops {

// The parameters that all boxes of a call share.
template <class T>
struct BoxCoding {
  T weight_x, weight_y, weight_w, weight_h;
  T log_limit;  // decoding: upper bound of log(size / proposal size)
  // Decoding clips coordinates to [lowest, image size], 0 and pixels, or does not clip, where these are infinite.
  T lowest, image_height, image_width;
};

// The limit of torchvision: log(1000 / 16).
constexpr double kBoxLogLimit = 4.135166556742356;

// weights: [4], x y w h. The image size is in pixels; decoded boxes are not clipped where it is negative.
template <class T>
BoxCoding<T> box_coding_of(const double* weights, double image_height = -1.0, double image_width = -1.0) {
  const bool clips = image_height >= 0.0;
  const T infinity = std::numeric_limits<T>::infinity();
  return {static_cast<T>(weights[0]),
          static_cast<T>(weights[1]),
          static_cast<T>(weights[2]),
          static_cast<T>(weights[3]),
          static_cast<T>(kBoxLogLimit),
          clips ? T(0) : -infinity,
          clips ? static_cast<T>(image_height) : infinity,
          clips ? static_cast<T>(image_width) : infinity};
}

template <class T>
struct Deltas {
  T dx, dy, dw, dh;
};

template <class T, class Math>
RETINA_OPS_HOST_DEVICE Deltas<T> encode_box(const BoxCoding<T>& coding, const Box<T>& box, const Box<T>& proposal) {
  const T w = proposal.x2 - proposal.x1;
  const T h = proposal.y2 - proposal.y1;
  const T gw = box.x2 - box.x1;
  const T gh = box.y2 - box.y1;
  const T offset_x = (box.x1 + T(0.5) * gw) - (proposal.x1 + T(0.5) * w);
  const T offset_y = (box.y1 + T(0.5) * gh) - (proposal.y1 + T(0.5) * h);
  return {coding.weight_x * offset_x / w, coding.weight_y * offset_y / h, coding.weight_w * natural_log<Math>(gw / w),
          coding.weight_h * natural_log<Math>(gh / h)};
}

// The gradients of sum(grad * encode_box(box, proposal)) by the box and by the proposal.
template <class T>
RETINA_OPS_HOST_DEVICE void encode_box_backward(const BoxCoding<T>& coding, const Deltas<T>& grad, const Box<T>& box,
                                                const Box<T>& proposal, Box<T>& for_box, Box<T>& for_proposal) {
  const T w = proposal.x2 - proposal.x1;
  const T h = proposal.y2 - proposal.y1;
  const T gw = box.x2 - box.x1;
  const T gh = box.y2 - box.y1;
  const T offset_x = (box.x1 + T(0.5) * gw) - (proposal.x1 + T(0.5) * w);
  const T offset_y = (box.y1 + T(0.5) * gh) - (proposal.y1 + T(0.5) * h);
  const T by_offset_x = grad.dx * coding.weight_x / w;
  const T by_offset_y = grad.dy * coding.weight_y / h;
  const T by_gw = grad.dw * coding.weight_w / gw;
  const T by_gh = grad.dh * coding.weight_h / gh;
  const T by_w = -(by_offset_x * offset_x + grad.dw * coding.weight_w) / w;
  const T by_h = -(by_offset_y * offset_y + grad.dh * coding.weight_h) / h;
  for_box = {T(0.5) * by_offset_x - by_gw, T(0.5) * by_offset_y - by_gh, T(0.5) * by_offset_x + by_gw,
             T(0.5) * by_offset_y + by_gh};
  for_proposal = {T(-0.5) * by_offset_x - by_w, T(-0.5) * by_offset_y - by_h, T(-0.5) * by_offset_x + by_w,
                  T(-0.5) * by_offset_y + by_h};
}

// As torch.clamp: NaN stays NaN.
template <class T>
RETINA_OPS_HOST_DEVICE T clamped(T value, T low, T high) {
  const T raised = value < low ? low : value;
  return raised > high ? high : raised;
}

template <class T, class Math>
RETINA_OPS_HOST_DEVICE Box<T> decode_box(const BoxCoding<T>& coding, const Deltas<T>& deltas, const Box<T>& proposal) {
  const T w = proposal.x2 - proposal.x1;
  const T h = proposal.y2 - proposal.y1;
  const T dw = deltas.dw / coding.weight_w;
  const T dh = deltas.dh / coding.weight_h;
  const T half_w = T(0.5) * (exp_bounded<Math>(dw > coding.log_limit ? coding.log_limit : dw) * w);
  const T half_h = T(0.5) * (exp_bounded<Math>(dh > coding.log_limit ? coding.log_limit : dh) * h);
  const T x = deltas.dx / coding.weight_x * w + (proposal.x1 + T(0.5) * w);
  const T y = deltas.dy / coding.weight_y * h + (proposal.y1 + T(0.5) * h);
  const T low = coding.lowest, right = coding.image_width, bottom = coding.image_height;
  return {clamped(x - half_w, low, right), clamped(y - half_h, low, bottom), clamped(x + half_w, low, right),
          clamped(y + half_h, low, bottom)};
}

// The gradients of sum(grad * decode_box(deltas, proposal)) by the deltas and by the proposal. A coordinate that was
// clipped has none.
template <class T, class Math>
RETINA_OPS_HOST_DEVICE void decode_box_backward(const BoxCoding<T>& coding, const Box<T>& grad, const Deltas<T>& deltas,
                                                const Box<T>& proposal, Deltas<T>& for_deltas, Box<T>& for_proposal) {
  BoxCoding<T> unclipped = coding;
  unclipped.lowest = -std::numeric_limits<T>::infinity();
  unclipped.image_height = unclipped.image_width = std::numeric_limits<T>::infinity();
  const Box<T> box = decode_box<T, Math>(unclipped, deltas, proposal);
  const T low = coding.lowest, right = coding.image_width, bottom = coding.image_height;
  const Box<T> kept{box.x1 < low || box.x1 > right ? T(0) : grad.x1, box.y1 < low || box.y1 > bottom ? T(0) : grad.y1,
                    box.x2 < low || box.x2 > right ? T(0) : grad.x2, box.y2 < low || box.y2 > bottom ? T(0) : grad.y2};
  const T w = proposal.x2 - proposal.x1;
  const T h = proposal.y2 - proposal.y1;
  const T dw = deltas.dw / coding.weight_w;
  const T dh = deltas.dh / coding.weight_h;
  const bool w_limited = dw > coding.log_limit;
  const bool h_limited = dh > coding.log_limit;
  const T scale_w = exp_bounded<Math>(w_limited ? coding.log_limit : dw);
  const T scale_h = exp_bounded<Math>(h_limited ? coding.log_limit : dh);
  const T by_x = kept.x1 + kept.x2;
  const T by_y = kept.y1 + kept.y2;
  const T by_width = T(0.5) * (kept.x2 - kept.x1);
  const T by_height = T(0.5) * (kept.y2 - kept.y1);
  for_deltas.dx = by_x * w / coding.weight_x;
  for_deltas.dy = by_y * h / coding.weight_y;
  for_deltas.dw = w_limited ? T(0) : by_width * (scale_w * w) / coding.weight_w;
  for_deltas.dh = h_limited ? T(0) : by_height * (scale_h * h) / coding.weight_h;
  const T by_w = by_x * (deltas.dx / coding.weight_x) + by_width * scale_w;
  const T by_h = by_y * (deltas.dy / coding.weight_y) + by_height * scale_h;
  for_proposal = {T(0.5) * by_x - by_w, T(0.5) * by_y - by_h, T(0.5) * by_x + by_w, T(0.5) * by_y + by_h};
}

enum class BoxCodingOp { kEncode, kEncodeBackward, kDecode, kDecodeBackward };

// One call of an operator. All arrays are contiguous; n is the number of boxes. Arithmetic is in float, or in double
// where an input is float64.
struct BoxCodingProblem {
  BoxCodingOp op;
  const void* codes;  // [n, 4] boxes to encode, or deltas to decode
  Dtype code_dtype;
  const void* proposals;  // [period, 4]: row i belongs to proposal i % period
  Dtype proposal_dtype;
  int64_t period;
  const void* grad;  // [n, 4] of `out_dtype`: upstream gradient; null in a forward
  void* out;         // [n, 4] of `out_dtype`: the result; in a backward the gradient by codes
  void* out2;        // [n, 4] of `out_dtype`: in a backward the gradient by proposals; null in a forward
  Dtype out_dtype;
  double weights[4];
  double image_height;  // pixels; negative: decoded boxes are not clipped
  double image_width;
};

// On the CPU: computes boxes [begin, end).
void box_coding_range(const BoxCodingProblem& problem, int64_t begin, int64_t end);

}  // namespace retina_ops
