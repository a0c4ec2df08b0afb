// Post-processing for CPU tensors: threads and registration.
#include "postprocess/postprocess_op.h"

#include <torch/csrc/stable/library.h>

#include "common/isa.h"

namespace retina_ops {
namespace {

void run_on_cpu(const PostprocessCall& call) {
  cpu_isa();  // a bad RETINA_OPS_ISA is an error here, not inside a thread
  postprocess_images(call.problem, [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
    torch::stable::parallel_for(0, count, 1, body);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) { m.impl("postprocess", TORCH_BOX(&postprocess<run_on_cpu>)); }

}  // namespace retina_ops
