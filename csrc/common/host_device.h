// Keywords and elementary arithmetic that the CPU and the CUDA build of a formula share. No torch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__CUDACC__)
#define RETINA_OPS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RETINA_OPS_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace retina_ops {

// How a multiply-add is rounded. Formulas take one of these as the template argument Math. The compiler fuses nothing
// by itself (-ffp-contract=off): the caller knows the instruction set and chooses.
struct FusedMath {
  static constexpr bool kIsFused = true;
  static constexpr bool kIsCoarse = false;
  static RETINA_OPS_HOST_DEVICE float madd(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static RETINA_OPS_HOST_DEVICE double madd(double a, double b, double c) { return __builtin_fma(a, b, c); }
};
// For results that are rounded to float16 or bfloat16: shorter polynomials, with a relative error below 2e-5.
struct CoarseMath : FusedMath {
  static constexpr bool kIsCoarse = true;
};
struct PlainMath {
  static constexpr bool kIsFused = false;
  static constexpr bool kIsCoarse = false;
  static RETINA_OPS_HOST_DEVICE float madd(float a, float b, float c) { return a * b + c; }
  static RETINA_OPS_HOST_DEVICE double madd(double a, double b, double c) { return a * b + c; }
};

template <class To, class From>
RETINA_OPS_HOST_DEVICE To bit_copy(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_copy needs types of one size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace retina_ops
