// Instruction sets of the CPU kernels: which one to use, and how a kernel is compiled for each. CPU only, no torch.
//
// A kernel is written once, as an always-inline function (RETINA_OPS_HOST_DEVICE) in an unnamed namespace:
//
//   template <class T, class Math>
//   RETINA_OPS_HOST_DEVICE void areas(const BoxAreaProblem& problem, int64_t begin, int64_t end) { ... }
//
// and one line compiles it for every instruction set and calls the variant for this processor:
//
//   isa_variant<areas<float, PlainMath>, areas<float, FusedMath>>()(problem, begin, end);
//
// With RETINA_OPS_ONE_VARIANT, as in builds under sanitizers, a kernel is compiled once: the vector variant, for the
// baseline. Its accesses to memory are those of all variants, and it takes a third of the time to compile.
#pragma once

#include "common/host_device.h"

#if defined(__x86_64__) && !defined(RETINA_OPS_ONE_VARIANT)
#define RETINA_OPS_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define RETINA_OPS_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")))
#define RETINA_OPS_HAS_X86_TARGETS 1
#else
#define RETINA_OPS_HAS_X86_TARGETS 0
#endif

namespace retina_ops {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best instruction set of the processor. RETINA_OPS_ISA=baseline|avx2|avx512 selects a lower one; a name that is
// unknown, or that the processor does not support, throws std::runtime_error.
Isa cpu_isa();
const char* isa_name(Isa isa);

template <class Function, Function kPlain, Function kVector>
struct IsaVariants;

template <class Result, class... Args, Result (*kPlain)(Args...), Result (*kVector)(Args...)>
struct IsaVariants<Result (*)(Args...), kPlain, kVector> {
#ifdef RETINA_OPS_ONE_VARIANT
  static Result baseline(Args... args) { return kVector(args...); }
#else
  static Result baseline(Args... args) { return kPlain(args...); }
#endif
#if RETINA_OPS_HAS_X86_TARGETS
  RETINA_OPS_TARGET_AVX2 static Result avx2(Args... args) { return kVector(args...); }
  RETINA_OPS_TARGET_AVX512 static Result avx512(Args... args) { return kVector(args...); }
#endif
};

// The variant of a kernel for cpu_isa(), as a function pointer. The baseline compiles kPlain, AVX2 and AVX-512 compile
// kVector: the same kernel with FusedMath where it has a Math parameter (the baseline has no fused multiply-add).
template <auto kPlain, auto kVector = kPlain>
auto isa_variant() {
  using Variants = IsaVariants<decltype(kPlain), kPlain, kVector>;
#if RETINA_OPS_HAS_X86_TARGETS
  if (cpu_isa() == Isa::kAvx512) return &Variants::avx512;
  if (cpu_isa() == Isa::kAvx2) return &Variants::avx2;
#endif
  return &Variants::baseline;
}

}  // namespace retina_ops
