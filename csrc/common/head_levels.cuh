// HeadLevels as an argument of launches: its fields, for the emulator. No torch.
#pragma once

#include "common/head_levels.h"
#include "common/launch.cuh"

namespace retina_ops {

RETINA_OPS_FIELDS(HeadLevel, values, cells, per_cell, first_anchor, start, is_planar);
RETINA_OPS_FIELDS(HeadLevels, level, count, dtype, batch, channels, anchors, elements);

}  // namespace retina_ops
