// Checks of a detection head's outputs as arguments of an operator. For _op files.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/head_levels.h"

namespace retina_ops {

// One output, logits or deltas: its levels, made contiguous, and their description for the kernels.
struct HeadOutputs {
  std::vector<Tensor> tensors;
  HeadLevels levels;
};

// levels: each [B, N, C] or planar [B, A, C, cells], all of one dtype and on one device.
inline HeadOutputs check_head_outputs(const char* op, const char* name, const std::vector<Tensor>& levels) {
  check(!levels.empty() && levels.size() <= static_cast<size_t>(kMaxLevels), op, ": ", name, " must have 1 to ",
        kMaxLevels, " levels, got ", levels.size());
  HeadOutputs outputs{};
  HeadLevels& all = outputs.levels;
  all.count = static_cast<int>(levels.size());
  all.dtype = dtype_of(levels[0]);
  for (size_t i = 0; i < levels.size(); ++i) {
    const Tensor& level = levels[i];
    check_floating(op, name, level);
    check(level.dim() == 3 || level.dim() == 4, op, ": a level of ", name,
          " must be [B, anchors, C] or [B, anchors per cell, C, cells], got ", shape_string(level));
    check(level.scalar_type() == levels[0].scalar_type() && same_device(level, levels[0]), op, ": the levels of ", name,
          " must have one dtype and device, got ", dtype_name(levels[0].scalar_type()), " and ",
          dtype_name(level.scalar_type()));
    const bool is_planar = level.dim() == 4;
    if (i == 0) {
      all.batch = level.size(0);
      all.channels = level.size(2);
    }
    check(level.size(0) == all.batch && level.size(2) == all.channels, op, ": the levels of ", name, " must have ",
          all.batch, " images and ", all.channels, " values per anchor, got ", shape_string(level));
    outputs.tensors.push_back(torch::stable::contiguous(level));
    HeadLevel& described = all.level[i];
    described.values = outputs.tensors.back().const_data_ptr();
    described.cells = level.size(is_planar ? 3 : 1);
    described.per_cell = is_planar ? level.size(1) : 1;
    described.first_anchor = all.anchors;
    described.start = all.elements;
    described.is_planar = is_planar;
    all.anchors += described.anchors();
    const int64_t end = all.elements + level.numel();
    all.elements = (end + kLevelAlignment - 1) / kLevelAlignment * kLevelAlignment;
  }
  return outputs;
}

// The two outputs and the anchors [A, 4] must describe the same levels.
inline void check_same_levels(const char* op, const HeadOutputs& cls_logits, const HeadOutputs& bbox_regression,
                              const Tensor& anchors) {
  const HeadLevels &logits = cls_logits.levels, &deltas = bbox_regression.levels;
  check(deltas.channels == 4, op, ": bbox_regression must have 4 values per anchor, got ", deltas.channels);
  check(logits.count == deltas.count && logits.batch == deltas.batch, op, ": cls_logits has ", logits.count,
        " levels of ", logits.batch, " images, bbox_regression ", deltas.count, " of ", deltas.batch);
  for (int i = 0; i < logits.count; ++i) {
    check(logits.level[i].anchors() == deltas.level[i].anchors(), op, ": level ", i, " has ", logits.level[i].anchors(),
          " anchors in cls_logits and ", deltas.level[i].anchors(), " in bbox_regression");
  }
  check(anchors.dim() == 2 && anchors.size(1) == 4 && anchors.size(0) == logits.anchors, op, ": anchors must be [",
        logits.anchors, ", 4], got ", shape_string(anchors));
  check(same_device(cls_logits.tensors[0], anchors) && same_device(bbox_regression.tensors[0], anchors), op,
        ": cls_logits, bbox_regression and anchors must be on one device");
}

}  // namespace retina_ops
