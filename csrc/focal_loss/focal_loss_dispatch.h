// Chooses the function for a gamma, an order of derivative and an instruction set. CPU only, no torch.
#pragma once

#include "common/isa.h"
#include "focal_loss/focal_loss.h"
#include "focal_loss/focal_loss_cpu.h"

namespace retina_ops {

// Loop is a class with an always-inline `template <class T, Gamma G, int kOrder, class Math> static double run(...)`.
// FocalDispatch<Loop, T>::choose<highest order>(problem) is a pointer to a variant of run.
template <class Loop, class T>
struct FocalDispatch {
  using Function = decltype(&Loop::template run<T, Gamma::kAny, 0, PlainMath>);

  template <Gamma G, int kOrder, class Math>
  static Function for_isa() {
    return isa_variant<&Loop::template run<T, G, kOrder, PlainMath>, &Loop::template run<T, G, kOrder, Math>>();
  }

  // The loss and its gradient have a specialised path for every gamma of the papers in float, and for gamma 2 in
  // double. Everything else computes exp(gamma log(u)).
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

  // The loss and the gradient of float16 and bfloat16 logits use shorter polynomials.
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

// Loss and derivative of a positive. There is at most one per row, so this need not be fast.
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
