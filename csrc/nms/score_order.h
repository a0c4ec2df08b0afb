// The order in which NMS takes boxes. CPU only, no torch.
#pragma once

#include <vector>

#include "common/half_block.h"

namespace retina_ops {

// Indices of scores [n] in descending order, equal scores (0 and -0 too) in input order; NaN scores are left out.
std::vector<int32_t> descending_order(const void* scores, Dtype dtype, int64_t n);

}  // namespace retina_ops
