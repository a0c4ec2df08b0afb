// Replaces CUDA's float16: 16 bits of storage, converted by rounding to nearest even.
#pragma once

#include <cmath>

#include "common/half_block.h"

struct __half {
  uint16_t bits;
  __half() = default;
  explicit __half(float value) : bits(::retina_ops::float_to_float16(value)) {}
};

inline float __half2float(__half value) { return ::retina_ops::float16_to_float(value.bits); }
inline __half __float2half_rn(float value) { return __half(value); }
