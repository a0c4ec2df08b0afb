// Which instruction set the CPU kernels use: asked of the processor once, or forced by RETINA_OPS_ISA.
#pragma once

#include "common/host_device.h"

namespace retina_ops {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best that the processor has. RETINA_OPS_ISA=baseline|avx2|avx512 lowers it; a name that is unknown or that the
// processor lacks throws std::runtime_error.
Isa cpu_isa();
const char* isa_name(Isa isa);

}  // namespace retina_ops

#if defined(__x86_64__)
#define RETINA_OPS_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define RETINA_OPS_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")))
#define RETINA_OPS_HAS_X86_TARGETS 1
#else
#define RETINA_OPS_HAS_X86_TARGETS 0
#endif
