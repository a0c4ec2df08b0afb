// What the CPU and the CUDA operators of NMS share: argument checks.
#pragma once

#include <optional>

#include "common/check.h"
#include "common/dispatch.h"

namespace retina_ops {

// The kernels index boxes with int32.
constexpr int64_t kNmsMaxBoxes = (int64_t(1) << 31) - 4096;

inline void check_nms(const char* op, const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs) {
  check_floating(op, "boxes", boxes);
  check_floating(op, "scores", scores);
  check(boxes.dim() == 2 && boxes.size(1) == 4, op, ": boxes must be [N, 4], got ", shape_string(boxes));
  check(scores.dim() == 1 && scores.size(0) == boxes.size(0), op, ": scores must be [", boxes.size(0), "], got ",
        shape_string(scores));
  check(same_device(boxes, scores), op, ": boxes and scores must be on one device");
  check(boxes.size(0) <= kNmsMaxBoxes, op, ": at most ", kNmsMaxBoxes, " boxes, got ", boxes.size(0));
  if (idxs.has_value()) {
    check(idxs->scalar_type() == ScalarType::Long, op, ": idxs must be int64, got ", dtype_name(idxs->scalar_type()));
    check(same_shape(*idxs, scores), op, ": idxs must be ", shape_string(scores), ", got ", shape_string(*idxs));
    check(same_device(boxes, *idxs), op, ": boxes and idxs must be on one device");
  }
}

inline void check_max_output(const char* op, int64_t max_output) {
  check(max_output >= 0, op, ": max_output must be at least 0, got ", max_output);
}

}  // namespace retina_ops
