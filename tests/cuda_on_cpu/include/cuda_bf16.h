// Replaces CUDA's bfloat16: 16 bits of storage, converted by rounding to nearest even.
#pragma once

#include "common/half_block.h"

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) : bits(::retina_ops::float_to_bfloat16(value)) {}
};

inline float __bfloat162float(__nv_bfloat16 value) { return ::retina_ops::bfloat16_to_float(value.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
