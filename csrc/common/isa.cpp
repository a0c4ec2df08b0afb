#include "common/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace retina_ops {
namespace {

Isa processor_isa() {
#if RETINA_OPS_HAS_X86_TARGETS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return Isa::kAvx2;
  }
#endif
  return Isa::kBaseline;
}

Isa chosen_isa() {
  const Isa best = processor_isa();
  const char* forced = std::getenv("RETINA_OPS_ISA");
  if (forced == nullptr || *forced == '\0') {
    return best;
  }
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string(forced) == isa_name(isa) && isa <= best) {
      return isa;
    }
  }
  throw std::runtime_error("RETINA_OPS_ISA must be baseline, avx2 or avx512 and one that this processor has (up to " +
                           std::string(isa_name(best)) + "), got " + forced);
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    default: return "baseline";
  }
}

}  // namespace retina_ops
