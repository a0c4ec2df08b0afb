// exp, log, log1p and atan of doubles, the overloads of the float functions in elementary.h, which includes this file.
// On the CPU they are branch-free polynomials, which the compiler vectorises; on CUDA they are the CUDA library's. No
// torch.
//
// The coefficients come from Chebyshev interpolation. With the rounding of the evaluation every relative error is at
// most 4e-16.
#pragma once

#include "common/host_device.h"

namespace retina_ops {

// exp(y) for -745 <= y <= 709.7, as 2^n exp(r) with y = n ln(2) + r and |r| <= ln(2) / 2. 2^-1023 becomes 0.
template <class Math>
RETINA_OPS_HOST_DEVICE double exp_in_range(double y) {
  constexpr double kRound = 6755399441056767.0;    // 1.5 * 2^52 + 1023: leaves n + 1023 in the low mantissa bits
  constexpr double kLn2High = 0.6931471803691238;  // few bits: n * kLn2High is exact
  constexpr double kLn2Low = 1.9082149292705877e-10;
  const double shifted = Math::madd(y, 1.4426950408889634, kRound);
  const double n = shifted - kRound;
  const double r = Math::madd(n, -kLn2Low, Math::madd(n, -kLn2High, y));
  double p = 2.510038549551032e-08;
  p = Math::madd(p, r, 2.7620088445409746e-07);
  p = Math::madd(p, r, 2.7557268459997064e-06);
  p = Math::madd(p, r, 2.4801521295954376e-05);
  p = Math::madd(p, r, 0.00019841269863053618);
  p = Math::madd(p, r, 0.0013888888917213717);
  p = Math::madd(p, r, 0.008333333333330062);
  p = Math::madd(p, r, 0.04166666666662413);
  p = Math::madd(p, r, 0.16666666666666669);
  p = Math::madd(p, r, 0.5000000000000001);
  const double power = bit_copy<double>(bit_copy<uint64_t>(shifted) << 52);
  return (Math::madd(p * r, r, r) + 1.0) * power;
}

// exp(y) for y <= 709.7; 0 where exp(y) < 2^-1022.5, NaN for NaN.
template <class Math>
RETINA_OPS_HOST_DEVICE double exp_bounded(double y) {
#if defined(__CUDA_ARCH__)
  return exp(y);
#else
  return exp_in_range<Math>(y < -709.0 ? -709.0 : y);
#endif
}

// exp(-|x|); 0 where exp(-|x|) < 2^-1022.5, and for NaN.
template <class Math>
RETINA_OPS_HOST_DEVICE double exp_of_minus_magnitude(double x) {
#if defined(__CUDA_ARCH__)
  return x != x ? 0.0 : exp(-fabs(x));
#else
  const double a = x < 0.0 ? -x : x;
  return exp_in_range<Math>(a < 709.0 ? -a : -709.0);  // also for NaN
#endif
}

// log(1 + e) / e for e in [0, 1]: 2 atanh(w) / e with w = e / (2 + e).
template <class Math>
RETINA_OPS_HOST_DEVICE double log1p_ratio(double e) {
#if defined(__CUDA_ARCH__)
  return e > 0.0 ? log1p(e) / e : 1.0;
#else
  const double half = 1.0 / (2.0 + e);
  const double w = e * half;
  const double w2 = w * w;
  double p = 0.1563057780092285;
  p = Math::madd(p, w2, 0.07492143795550767);
  p = Math::madd(p, w2, 0.10845178394880015);
  p = Math::madd(p, w2, 0.11734279061303197);
  p = Math::madd(p, w2, 0.13335178631449257);
  p = Math::madd(p, w2, 0.1538454396486055);
  p = Math::madd(p, w2, 0.18181819897962714);
  p = Math::madd(p, w2, 0.2222222219823677);
  p = Math::madd(p, w2, 0.285714285716001);
  p = Math::madd(p, w2, 0.39999999999999525);
  p = Math::madd(p, w2, 0.6666666666666666);
  return Math::madd(p * w2, half, 2.0 * half);
#endif
}

// log(x). 0, infinity, NaN and negative numbers give what the C library's log gives.
template <class Math>
RETINA_OPS_HOST_DEVICE double natural_log(double x) {
#if defined(__CUDA_ARCH__)
  return log(x);
#else
  constexpr uint64_t kBitsOfHalfRoot = 0x3fe6a09e667f3bcdu;  // of sqrt(1/2)
  constexpr uint64_t kBitsOfOne = 0x3ff0000000000000u;
  const bool is_small = x < 2.2250738585072014e-308;  // subnormal
  const uint64_t bits = bit_copy<uint64_t>(is_small ? x * 18014398509481984.0 : x) + (kBitsOfOne - kBitsOfHalfRoot);
  // The exponent becomes a double through the low mantissa bits of 2^52: AVX2 cannot convert 64-bit integers.
  const double biased = bit_copy<double>((bits >> 52) | 0x4330000000000000u) - 4503599627370496.0;
  const double exponent = biased - (is_small ? 1023.0 + 54.0 : 1023.0);
  const double f = bit_copy<double>((bits & 0x000fffffffffffffu) + kBitsOfHalfRoot);  // x = 2^exponent f
  const double w = (f - 1.0) / (f + 1.0);                                             // log(f) = 2 atanh(w)
  const double w2 = w * w;
  double p = 0.13088034850927555;
  p = Math::madd(p, w2, 0.13268638369266825);
  p = Math::madd(p, w2, 0.15386244737621665);
  p = Math::madd(p, w2, 0.18181795547521137);
  p = Math::madd(p, w2, 0.22222222392581045);
  p = Math::madd(p, w2, 0.28571428570799784);
  p = Math::madd(p, w2, 0.40000000000000885);
  p = Math::madd(p, w2, 0.6666666666666666);
  const double series = Math::madd(p * w2, w, 2.0 * w);
  const double normal = Math::madd(exponent, 0.6931471803691238, Math::madd(exponent, 1.9082149292705877e-10, series));
  const double infinity = std::numeric_limits<double>::infinity();
  const double finite = x < infinity ? normal : x;  // inf and NaN pass through
  return x > 0.0 ? finite : (x == 0.0 ? -infinity : x != x ? x : std::numeric_limits<double>::quiet_NaN());
#endif
}

// atan(x) for -1 <= x <= 1.
template <class Math>
RETINA_OPS_HOST_DEVICE double arctangent_unit(double x) {
#if defined(__CUDA_ARCH__)
  return atan(x);
#else
  const double x2 = x * x;
  double p = -1.1832505417555692e-05;
  p = Math::madd(p, x2, 0.0001368724853148122);
  p = Math::madd(p, x2, -0.0007518472526973822);
  p = Math::madd(p, x2, 0.002622977891906089);
  p = Math::madd(p, x2, -0.006575683344151699);
  p = Math::madd(p, x2, 0.012756172907694298);
  p = Math::madd(p, x2, -0.020238706986393514);
  p = Math::madd(p, x2, 0.027567942297344678);
  p = Math::madd(p, x2, -0.033750132001619734);
  p = Math::madd(p, x2, 0.03872640214042632);
  p = Math::madd(p, x2, -0.04308119655330471);
  p = Math::madd(p, x2, 0.04752086773576656);
  p = Math::madd(p, x2, -0.05261265735709454);
  p = Math::madd(p, x2, 0.05882074956371294);
  p = Math::madd(p, x2, -0.06666636435777692);
  p = Math::madd(p, x2, 0.07692305354678655);
  p = Math::madd(p, x2, -0.09090908969557403);
  p = Math::madd(p, x2, 0.11111111107234799);
  p = Math::madd(p, x2, -0.14285714285648404);
  p = Math::madd(p, x2, 0.19999999999999554);
  p = Math::madd(p, x2, -0.3333333333333333);
  return Math::madd(p * x2, x, x);
#endif
}

}  // namespace retina_ops
