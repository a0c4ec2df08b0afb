// Post-processing for CPU tensors: threads and registration.
#include "postprocess/postprocess_op.h"

#include <torch/csrc/stable/library.h>

#include "common/cpu_op.h"

namespace retina_ops {
namespace {

void run_on_cpu(const PostprocessCall& call) { postprocess_images(call.problem, parallel_for); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) { m.impl("postprocess", TORCH_BOX(&postprocess<run_on_cpu>)); }

}  // namespace retina_ops
