// The focal loss of one logit, and its first and second derivative. Host and device, no torch.
//
// Lin et al. 2017, "Focal Loss for Dense Object Detection", equation (5): FL = -alpha_t (1 - p_t)^gamma log(p_t).
//
// Hard targets. Let z = x for a positive and z = -x for a negative, p = sigmoid(z), u = 1 - p and s = -log(p). Then,
// without the factor alpha_t,
//   F(z)   =  u^gamma s
//   F'(z)  = -u^gamma (gamma p s + u)
//   F''(z) =  u^gamma p (gamma^2 p s + u (2 gamma + 1 - gamma s))
// One exponential, e = exp(-|z|), gives p, u and s without cancellation.
//
// Soft targets t in [0, 1], as in torchvision. With p = sigmoid(x), q = 1 - p, c the cross entropy,
// m = 1 - p_t = p (1 - t) + q t, h = p q / m and d = 1 - 2 t,
//   F   = m^gamma c
//   F'  = m^gamma (p (1 - t) - q t + gamma c h d)
//   F'' = m^gamma (p q + 2 gamma (p (1 - t) - q t) h d + gamma c h d ((gamma - 1) h d + q - p))
#pragma once

#include "common/elementary.h"
#include "common/host_device.h"

namespace retina_ops {

// The values of gamma with a specialised path; kAny computes exp(gamma log(u)).
enum class Gamma { kZero, kHalf, kOne, kThreeHalves, kTwo, kThree, kAny };

inline Gamma gamma_case(double gamma) {
  if (gamma == 0.0) return Gamma::kZero;
  if (gamma == 0.5) return Gamma::kHalf;
  if (gamma == 1.0) return Gamma::kOne;
  if (gamma == 1.5) return Gamma::kThreeHalves;
  if (gamma == 2.0) return Gamma::kTwo;
  if (gamma == 3.0) return Gamma::kThree;
  return Gamma::kAny;
}

// gamma; a compile-time constant on the specialised paths.
template <class T, Gamma G>
RETINA_OPS_HOST_DEVICE T exponent_of(double gamma) {
  switch (G) {
    case Gamma::kZero: return T(0);
    case Gamma::kHalf: return T(0.5);
    case Gamma::kOne: return T(1);
    case Gamma::kThreeHalves: return T(1.5);
    case Gamma::kTwo: return T(2);
    case Gamma::kThree: return T(3);
    default: return static_cast<T>(gamma);
  }
}

template <class T>
struct FocalTerms {
  T loss;        // F
  T derivative;  // by the logit, of the requested order
};

RETINA_OPS_HOST_DEVICE float square_root(float x) { return sqrtf(x); }
RETINA_OPS_HOST_DEVICE double square_root(double x) { return sqrt(x); }

// base^gamma for base in [0, 1]. Only kAny uses log_base, which is a double so that the product is accurate.
template <Gamma G, class Math>
RETINA_OPS_HOST_DEVICE float modulate(float base, double log_base, double gamma) {
  if constexpr (G == Gamma::kZero) return 1.0f;
  if constexpr (G == Gamma::kHalf) return square_root(base);
  if constexpr (G == Gamma::kOne) return base;
  if constexpr (G == Gamma::kThreeHalves) return base * square_root(base);
  if constexpr (G == Gamma::kTwo) return base * base;
  if constexpr (G == Gamma::kThree) return base * base * base;
  return exp_product<Math>(gamma, log_base);
}
template <Gamma G, class Math>
RETINA_OPS_HOST_DEVICE double modulate(double base, double log_base, double gamma) {
  if constexpr (G == Gamma::kZero) return 1.0;
  if constexpr (G == Gamma::kHalf) return square_root(base);
  if constexpr (G == Gamma::kOne) return base;
  if constexpr (G == Gamma::kThreeHalves) return base * square_root(base);
  if constexpr (G == Gamma::kTwo) return base * base;
  if constexpr (G == Gamma::kThree) return base * base * base;
  return exp_bounded<Math>(gamma * log_base);
}

// exp(-|z|), the only exponential per logit. 0 for NaN; the loss is still NaN, through s or the cross entropy.
template <class T, class Math>
RETINA_OPS_HOST_DEVICE T focal_exponential(T z) {
  return exp_of_minus_magnitude<Math>(z);
}

// F and its derivative of order kOrder (1 or 2) by z, for a hard target. z is x for a positive, -x for a negative;
// e = focal_exponential(z).
template <class T, Gamma G, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE FocalTerms<T> focal_hard(T z, T e, double gamma_value) {
  const T gamma = exponent_of<T, G>(gamma_value);
  const T ratio = log1p_ratio<Math>(e);
  const T v = reciprocal(T(1) + e);
  const T ev = e * v;
  const bool is_above = z > T(0);  // the only comparison; false for NaN
  const T p = is_above ? v : ev;
  const T u = is_above ? ev : v;
  const T s = Math::madd(ratio, e, is_above ? T(0) : -z);
  const double log_u =
      G == Gamma::kAny ? -(static_cast<double>(ratio * e) + (is_above ? static_cast<double>(z) : 0.0)) : 0.0;
  const T weight = modulate<G, Math>(u, log_u, gamma_value);
  const T p_s = p * s;
  FocalTerms<T> terms;
  terms.loss = weight * s;
  if constexpr (kOrder == 1) {
    terms.derivative = -(weight * Math::madd(gamma, p_s, u));
  } else {
    terms.derivative = weight * (p * (gamma * gamma * p_s + u * (gamma + gamma + T(1) - gamma * s)));
  }
  return terms;
}

// F and its derivative of order kOrder by x, for a soft target t in [0, 1]; e = focal_exponential(x).
template <class T, Gamma G, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE FocalTerms<T> focal_soft(T x, T t, T e, double gamma_value) {
  const T gamma = static_cast<T>(gamma_value);  // a compile-time constant makes ptxas spill registers on sm_120
  const T v = reciprocal(T(1) + e);
  const T ev = e * v;
  const T p = x < T(0) ? ev : v;
  const T q = x < T(0) ? v : ev;
  const T cross_entropy = Math::madd(log1p_ratio<Math>(e), e, x < T(0) ? -x * t : x * (T(1) - t));
  const T m = p * (T(1) - t) + q * t;
  const double log_m = G == Gamma::kAny ? log_unit<Math>(m) : 0.0;
  const T weight = modulate<G, Math>(m, log_m, gamma_value);
  const T h = m > T(0) ? quotient(p * q, m) : m;  // 0 where p or q underflows; NaN stays NaN
  const T d = T(1) - T(2) * t;
  const T residual = p * (T(1) - t) - q * t;
  FocalTerms<T> terms;
  terms.loss = weight * cross_entropy;
  const T gamma_c_h_d = gamma * (cross_entropy * h) * d;
  if constexpr (kOrder == 1) {
    terms.derivative = weight * (residual + gamma_c_h_d);
  } else {
    terms.derivative =
        weight * (p * q + T(2) * gamma * residual * h * d + gamma_c_h_d * ((gamma - T(1)) * h * d + q - p));
  }
  return terms;
}

}  // namespace retina_ops
