// What the CPU and the CUDA operators of box coding share: argument checks and the problem for the kernels.
#pragma once

#include <cmath>
#include <tuple>

#include "box_coding/box_coding.h"
#include "common/check.h"
#include "common/dispatch.h"

namespace retina_ops {

// The options of the operators, as in their schemas.
struct BoxCodingOptions {
  double weight_x, weight_y, weight_w, weight_h;
  double image_height = -1.0;
  double image_width = -1.0;
};

// The arguments of a call, checked and contiguous, and its outputs.
struct BoxCodingCall {
  Tensor codes;
  Tensor proposals;
  Tensor grad;
  Tensor out;
  Tensor out2;
  BoxCodingProblem problem;
  int64_t n;
};

// The dtype of the outputs: that of the inputs, or float32 for float16 or bfloat16 codes with float32 proposals.
inline ScalarType box_coding_dtype(const char* op, const Tensor& codes, const Tensor& proposals) {
  const ScalarType a = codes.scalar_type();
  const ScalarType b = proposals.scalar_type();
  const bool mixed = b == ScalarType::Float && (a == ScalarType::Half || a == ScalarType::BFloat16);
  check(a == b || mixed, op, ": both inputs must have one dtype (or half beside float32 boxes), got ", dtype_name(a),
        " and ", dtype_name(b));
  return b;
}

inline BoxCodingCall check_box_coding(const char* op, BoxCodingOp kind, const Tensor* grad, const char* codes_name,
                                      const Tensor& codes, const char* proposals_name, const Tensor& proposals,
                                      const BoxCodingOptions& options) {
  check_boxes(op, codes_name, codes);
  check_boxes(op, proposals_name, proposals);
  check(same_device(codes, proposals), op, ": ", codes_name, " and ", proposals_name, " must be on one device");
  const ScalarType dtype = box_coding_dtype(op, codes, proposals);
  // The proposals repeat over the leading dimensions of the codes.
  bool fits = proposals.dim() <= codes.dim();
  for (int64_t dim = 0; fits && dim < proposals.dim(); ++dim) {
    fits = proposals.size(proposals.dim() - 1 - dim) == codes.size(codes.dim() - 1 - dim);
  }
  check(fits, op, ": ", proposals_name, " must have the shape of ", codes_name, " or of its last dimensions, got ",
        shape_string(codes), " and ", shape_string(proposals));
  for (const double weight : {options.weight_x, options.weight_y, options.weight_w, options.weight_h}) {
    check(std::isfinite(weight) && weight != 0.0, op, ": weights must be finite and not 0, got ", weight);
  }
  BoxCodingCall call{torch::stable::contiguous(codes),
                     torch::stable::contiguous(proposals),
                     Tensor(),
                     torch::stable::new_empty(codes, codes.sizes(), dtype),
                     Tensor(),
                     BoxCodingProblem{},
                     codes.numel() / 4};
  BoxCodingProblem& problem = call.problem;
  problem.op = kind;
  problem.codes = call.codes.const_data_ptr();
  problem.code_dtype = dtype_of(codes);
  problem.proposals = call.proposals.const_data_ptr();
  problem.proposal_dtype = dtype_of(proposals);
  problem.period = proposals.numel() / 4;
  problem.out = call.out.mutable_data_ptr();
  problem.out_dtype = dtype_of(call.out);
  if (grad != nullptr) {
    check(same_shape(*grad, codes) && grad->scalar_type() == dtype && same_device(*grad, codes), op,
          ": grad must be on the inputs' device with shape ", shape_string(codes), " and dtype ", dtype_name(dtype),
          ", got ", shape_string(*grad), " ", dtype_name(grad->scalar_type()));
    call.grad = torch::stable::contiguous(*grad);
    call.out2 = torch::stable::new_empty(codes, codes.sizes(), dtype);
    problem.grad = call.grad.const_data_ptr();
    problem.out2 = call.out2.mutable_data_ptr();
  }
  problem.weights[0] = options.weight_x;
  problem.weights[1] = options.weight_y;
  problem.weights[2] = options.weight_w;
  problem.weights[3] = options.weight_h;
  problem.image_height = options.image_height;
  problem.image_width = options.image_width;
  return call;
}

// The four operators of one backend; `run` computes a call.
template <void (*run)(const BoxCodingCall&)>
struct BoxCodingOperators {
  static Tensor encode(const Tensor& reference_boxes, const Tensor& proposals, double wx, double wy, double ww,
                       double wh) {
    const BoxCodingCall call = check_box_coding("encode_boxes", BoxCodingOp::kEncode, nullptr, "reference_boxes",
                                                reference_boxes, "proposals", proposals, {wx, wy, ww, wh});
    run(call);
    return call.out;
  }
  static std::tuple<Tensor, Tensor> encode_backward(const Tensor& grad, const Tensor& reference_boxes,
                                                    const Tensor& proposals, double wx, double wy, double ww,
                                                    double wh) {
    const BoxCodingCall call =
        check_box_coding("encode_boxes_backward", BoxCodingOp::kEncodeBackward, &grad, "reference_boxes",
                         reference_boxes, "proposals", proposals, {wx, wy, ww, wh});
    run(call);
    return {call.out, call.out2};
  }
  static Tensor decode(const Tensor& rel_codes, const Tensor& boxes, double wx, double wy, double ww, double wh,
                       double image_height, double image_width) {
    const BoxCodingCall call = check_box_coding("decode_boxes", BoxCodingOp::kDecode, nullptr, "rel_codes", rel_codes,
                                                "boxes", boxes, {wx, wy, ww, wh, image_height, image_width});
    run(call);
    return call.out;
  }
  static std::tuple<Tensor, Tensor> decode_backward(const Tensor& grad, const Tensor& rel_codes, const Tensor& boxes,
                                                    double wx, double wy, double ww, double wh, double image_height,
                                                    double image_width) {
    const BoxCodingCall call =
        check_box_coding("decode_boxes_backward", BoxCodingOp::kDecodeBackward, &grad, "rel_codes", rel_codes, "boxes",
                         boxes, {wx, wy, ww, wh, image_height, image_width});
    run(call);
    return {call.out, call.out2};
  }
};

}  // namespace retina_ops
