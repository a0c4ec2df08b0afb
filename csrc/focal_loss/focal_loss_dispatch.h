// Chooses the function for a gamma, an order of derivative and an instruction set. CPU only, no torch.
#pragma once

#include "common/isa.h"
#include "focal_loss/focal_loss_cpu.h"

namespace retina_ops {

// Body has `template <class T, Gamma G, int kOrder, class Math> static double run(Args...)`, always inlined, so that it
// takes on the target of the one of these that holds it.
template <class Body, class T, Gamma G, int kOrder, class... Args>
double run_baseline(Args... args) {
  return Body::template run<T, G, kOrder, PlainMath>(args...);
}
#if RETINA_OPS_HAS_X86_TARGETS
template <class Body, class T, Gamma G, int kOrder, class Math, class... Args>
RETINA_OPS_TARGET_AVX2 double run_avx2(Args... args) {
  return Body::template run<T, G, kOrder, Math>(args...);
}
template <class Body, class T, Gamma G, int kOrder, class Math, class... Args>
RETINA_OPS_TARGET_AVX512 double run_avx512(Args... args) {
  return Body::template run<T, G, kOrder, Math>(args...);
}
#endif

// For one body: `FocalDispatch<Body, T, Args...>::choose<highest order>(problem)` is a double (*)(Args...).
template <class Body, class T, class... Args>
struct FocalDispatch {
  using Function = double (*)(Args...);

  template <Gamma G, int kOrder, class Math>
  static Function for_isa() {
    switch (cpu_isa()) {
#if RETINA_OPS_HAS_X86_TARGETS
      case Isa::kAvx512: return run_avx512<Body, T, G, kOrder, Math, Args...>;
      case Isa::kAvx2: return run_avx2<Body, T, G, kOrder, Math, Args...>;
#endif
      default: return run_baseline<Body, T, G, kOrder, Args...>;
    }
  }

  // The loss and its gradient in float have every gamma of the papers as a path, in double the default; the rest
  // computes exp(gamma log(u)).
  template <int kOrder, class Math>
  static Function for_gamma(Gamma gamma) {
    if constexpr (kOrder != 2 && sizeof(T) == sizeof(double)) {
      if (gamma == Gamma::kTwo) return for_isa<Gamma::kTwo, kOrder, Math>();
    } else if constexpr (kOrder != 2) {
      switch (gamma) {
        case Gamma::kHalf: return for_isa<Gamma::kHalf, kOrder, Math>();
        case Gamma::kOne: return for_isa<Gamma::kOne, kOrder, Math>();
        case Gamma::kThreeHalves: return for_isa<Gamma::kThreeHalves, kOrder, Math>();
        case Gamma::kTwo: return for_isa<Gamma::kTwo, kOrder, Math>();
        case Gamma::kThree: return for_isa<Gamma::kThree, kOrder, Math>();
        default: break;
      }
    }
    return gamma == Gamma::kZero ? for_isa<Gamma::kZero, kOrder, Math>() : for_isa<Gamma::kAny, kOrder, Math>();
  }

  // Half logits have shorter polynomials in a loss and its gradient.
  template <int kOrder>
  static Function for_dtype(Gamma gamma, Dtype dtype) {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (dtype != Dtype::kFloat32) return for_gamma<kOrder, CoarseMath>(gamma);
    }
    return for_gamma<kOrder, FusedMath>(gamma);
  }

  template <int kHighestOrder>
  static Function choose(const FocalProblem& problem) {
    const Gamma gamma = gamma_case(problem.gamma);
    if constexpr (kHighestOrder == 2) {
      if (problem.order == 2) return for_gamma<2, FusedMath>(gamma);
    }
    return problem.order == 0 ? for_dtype<0>(gamma, problem.dtype) : for_dtype<1>(gamma, problem.dtype);
  }
};

// Value and derivative of a positive, whose function need not be fast: one element a row.
template <class T>
FocalTerms<T> positive_terms(T logit, double gamma, int order) {
  const T e = focal_exponential<T, PlainMath>(logit);
  if (gamma == 0.0) {
    return order == 2 ? focal_hard<T, Gamma::kZero, 2, PlainMath>(logit, e, gamma)
                      : focal_hard<T, Gamma::kZero, 1, PlainMath>(logit, e, gamma);
  }
  return order == 2 ? focal_hard<T, Gamma::kAny, 2, PlainMath>(logit, e, gamma)
                    : focal_hard<T, Gamma::kAny, 1, PlainMath>(logit, e, gamma);
}

}  // namespace retina_ops
