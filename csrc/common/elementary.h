// exp, log, log1p and atan as short polynomials. They are branch-free, so that the CPU compiler vectorises them, and
// one source serves every instruction set and CUDA. elementary_double.h has the same for doubles. Host and device, no
// torch.
//
// The coefficients minimise the largest relative error over the interval (Remez exchange). With the rounding of the
// evaluation the relative errors are at most 2e-7 for exp_bounded and 3e-7 for log1p_ratio and arctangent_unit; with
// CoarseMath, 4e-6 for the exponentials and 1e-5 for log1p_ratio.
#pragma once

#include "common/elementary_double.h"
#include "common/host_device.h"

namespace retina_ops {

// 1.5 * 2^23 + 127. Adding it to a small float rounds the float to an integer n and leaves n + 127, the exponent field
// of 2^n, in the low mantissa bits.
constexpr float kRoundToExponent = 12583039.0f;

// 2^n * exp(r) for |r| <= ln(2) / 2 and -127 <= n <= 127, where shifted_n = n + kRoundToExponent. 2^-127 becomes 0.
template <class Math>
RETINA_OPS_HOST_DEVICE float exp_reduced(float r, float shifted_n) {
  const float power = bit_copy<float>(bit_copy<uint32_t>(shifted_n) << 23);
  if constexpr (Math::kIsCoarse) {
    float p = 0.0414586082f;
    p = Math::madd(p, r, 0.167909072f);
    p = Math::madd(p, r, 0.500043587f);
    p = Math::madd(p, r, 0.999963405f);
    return Math::madd(p, r, 0.999999261f) * power;
  }
  float p = 0.00831250101f;
  p = Math::madd(p, r, 0.0418903306f);
  p = Math::madd(p, r, 0.166671157f);
  p = Math::madd(p, r, 0.499992311f);
  p = Math::madd(p, r, 1.0f);
  p = Math::madd(p, r, 1.0f);
  return p * power;
}

// a / b within 2 units in the last place, for b in [2^-126, 2^126]. On CUDA it avoids the slow path of exact division.
RETINA_OPS_HOST_DEVICE float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}
RETINA_OPS_HOST_DEVICE double quotient(double a, double b) { return a / b; }

// 1 / b within one unit in the last place, for b in [2^-126, 2^126]. On CUDA it is one instruction.
RETINA_OPS_HOST_DEVICE float reciprocal(float b) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(b));
  return result;
#else
  return 1.0f / b;
#endif
}
RETINA_OPS_HOST_DEVICE double reciprocal(double b) { return 1.0 / b; }

// exp(y) for -88 <= y <= 88; 0 where exp(y) < 2^-126.5.
template <class Math>
RETINA_OPS_HOST_DEVICE float exp_in_range(float y) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;  // few bits: n * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  const float shifted = Math::madd(y, kLog2E, kRoundToExponent);
  const float n = shifted - kRoundToExponent;
  const float r = Math::madd(n, -kLn2Low, Math::madd(n, -kLn2High, y));
  return exp_reduced<Math>(r, shifted);
}

// exp(y) for y <= 88; 0 where exp(y) < 2^-126.5, NaN for NaN.
template <class Math>
RETINA_OPS_HOST_DEVICE float exp_bounded(float y) {
  return exp_in_range<Math>(y < -88.0f ? -88.0f : y);
}

// exp(-|x|); 0 where exp(-|x|) < 2^-126.5, and for NaN, except with CoarseMath on CUDA. Where the result is below
// exp(-20) the relative error is at most 5e-7.
template <class Math>
RETINA_OPS_HOST_DEVICE float exp_of_minus_magnitude(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (Math::kIsCoarse) {  // the hardware's 2^y of a rounded product: relative error 6e-6 at exp(-88)
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-1.44269504f * fabsf(x)));
    return power;
  }
#endif
  constexpr uint32_t kBitsOf88 = 0x42b00000u;  // positive floats are ordered as their bits, with NaN last
  const uint32_t bits = bit_copy<uint32_t>(x) & 0x7fffffffu;
  const float a = bit_copy<float>(bits < kBitsOf88 ? bits : kBitsOf88);
  if constexpr (!Math::kIsFused) return exp_in_range<Math>(-a);
  const float shifted = Math::madd(a, -1.44269504f, kRoundToExponent);
  const float n = shifted - kRoundToExponent;
  return exp_reduced<Math>(-Math::madd(n, 0.693147182f, a),
                           shifted);  // a fused n ln(2) is exact: one constant is enough
}

// log(1 + e) / e for e in [0, 1].
template <class Math>
RETINA_OPS_HOST_DEVICE float log1p_ratio(float e) {
  if constexpr (Math::kIsCoarse) {
    float p = -0.0238691517f;
    p = Math::madd(p, e, 0.101222285f);
    p = Math::madd(p, e, -0.21004869f);
    p = Math::madd(p, e, 0.32520668f);
    p = Math::madd(p, e, -0.499361365f);
    return Math::madd(p, e, 0.999991598f);
  }
  float p = 0.005232694f;
  p = Math::madd(p, e, -0.029505238f);
  p = Math::madd(p, e, 0.07822595f);
  p = Math::madd(p, e, -0.13663246f);
  p = Math::madd(p, e, 0.19106007f);
  p = Math::madd(p, e, -0.24842982f);
  p = Math::madd(p, e, 0.33319098f);
  p = Math::madd(p, e, -0.49999493f);
  return Math::madd(p, e, 0.99999994f);
}

// log(x), relative error at most 3e-7. 0, infinity, NaN and negative numbers give what the C library's log gives.
template <class Math>
RETINA_OPS_HOST_DEVICE float natural_log(float x) {
  const bool is_small = x < 1.17549435e-38f;  // subnormal
  const uint32_t bits = bit_copy<uint32_t>(is_small ? x * 16777216.0f : x) + (0x3f800000u - 0x3f3504f3u);
  const float exponent = static_cast<float>(static_cast<int32_t>(bits >> 23) - (is_small ? 127 + 24 : 127));
  const float f = bit_copy<float>((bits & 0x007fffffu) + 0x3f3504f3u);  // x = 2^exponent f, f in [0.7, 1.42)
  const float w = quotient(f - 1.0f, f + 1.0f);                         // log(f) = 2 atanh(w)
  const float w2 = w * w;
  float series = Math::madd(w2, 0.22222222f, 0.2857143f);
  series = Math::madd(series, w2, 0.4f);
  series = Math::madd(series, w2, 0.6666667f);
  series = Math::madd(series, w2, 2.0f);
  const float high = exponent * 0.693359375f;  // exact
  const float normal = Math::madd(series, w, exponent * -2.12194440e-4f) + high;
  const float infinity = std::numeric_limits<float>::infinity();
  const float finite = x < infinity ? normal : x;  // inf and NaN pass through
  return x > 0.0f ? finite : (x == 0.0f ? -infinity : x != x ? x : std::numeric_limits<float>::quiet_NaN());
}

// atan(x) for -1 <= x <= 1.
template <class Math>
RETINA_OPS_HOST_DEVICE float arctangent_unit(float x) {
  const float x2 = x * x;
  float p = -0.00469327625f;
  p = Math::madd(p, x2, 0.0242524035f);
  p = Math::madd(p, x2, -0.0594863929f);
  p = Math::madd(p, x2, 0.0991429314f);
  p = Math::madd(p, x2, -0.140194803f);
  p = Math::madd(p, x2, 0.199697241f);
  p = Math::madd(p, x2, -0.333319902f);
  p = Math::madd(p, x2, 0.999999881f);
  return p * x;
}

// log(m) for m in (0, 1], as a double, so that a product with it stays accurate. m = 2^k f with f in [0.7, 1.42), and
// log(f) = 2 atanh((f - 1) / (f + 1)) is a series with an absolute error of 2e-8. Below 2^-126 the result is about -88.
template <class Math>
RETINA_OPS_HOST_DEVICE double log_unit(float m) {
  const uint32_t bits = bit_copy<uint32_t>(m) + (0x3f800000u - 0x3f3504f3u);
  const int32_t exponent = static_cast<int32_t>(bits >> 23) - 127;
  const float f = bit_copy<float>((bits & 0x007fffffu) + 0x3f3504f3u);
  const float w = quotient(f - 1.0f, f + 1.0f);
  const float w2 = w * w;
  float series = Math::madd(w2, 0.22222222f, 0.2857143f);
  series = Math::madd(series, w2, 0.4f);
  series = Math::madd(series, w2, 0.6666667f);
  series = Math::madd(series, w2, 2.0f);
  return static_cast<double>(exponent) * 0.6931471805599453 + static_cast<double>(w * series);
}

template <class Math>
RETINA_OPS_HOST_DEVICE double log_unit(double m) {
  return natural_log<Math>(m);
}

// exp(a * b) for a >= 0 and b <= 0. The product is a double: |a * b| reaches 87, and rounding it to float would cost a
// relative error of 87 * 2^-24.
template <class Math>
RETINA_OPS_HOST_DEVICE float exp_product(double a, double b) {
  double y = a * b;
  y = y < -88.0 ? -88.0 : y;
  const double n = (y * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0;
  const float r = static_cast<float>(y - n * 0.6931471805599453);
  return exp_reduced<Math>(r, static_cast<float>(n) + kRoundToExponent);
}

}  // namespace retina_ops
