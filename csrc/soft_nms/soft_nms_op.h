// What the CPU and the CUDA operators of soft NMS share: argument checks.
#pragma once

#include "nms/nms_op.h"

namespace retina_ops {

inline void check_soft_nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs,
                           double min_score) {
  check_nms("soft_nms", boxes, scores, idxs);
  check(min_score >= 0.0, "soft_nms: min_score must be at least 0, got ", min_score);
}

// The dtype in which boxes, scores and decays are computed.
inline ScalarType soft_nms_arithmetic(const Tensor& boxes, const Tensor& scores) {
  const bool is_double = boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double;
  return is_double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace retina_ops
