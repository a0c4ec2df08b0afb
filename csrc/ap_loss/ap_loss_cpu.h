// The average-precision loss on the CPU. No torch.
#pragma once

#include "ap_loss/ap_loss.h"
#include "common/parallel.h"

namespace retina_ops {

// The loss; writes upstream times its update where the problem has memory for it. NaN where a logit that is not ignored
// is NaN.
double ap_loss_of(const ApLossProblem& problem, ParallelFor parallel);

// The first row whose label is neither in [0, classes] nor ignore_index; -1 if there is none or there are no labels.
int64_t ap_loss_bad_row(const ApLossProblem& problem);

}  // namespace retina_ops
