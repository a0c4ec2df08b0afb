// Division by a number that is the same for all threads. No torch.
#pragma once

#include "common/launch.cuh"

namespace retina_ops {

// n / d without a division. The product with floor((2^64 - 1) / d) is too small by at most 2, for every n >= 0; two
// steps correct it.
struct Divider {
  int64_t divisor;
  uint64_t multiplier;

  static Divider of(int64_t divisor) { return Divider{divisor, ~uint64_t(0) / static_cast<uint64_t>(divisor)}; }

  __device__ __forceinline__ int64_t operator()(int64_t n) const {
    int64_t quotient = static_cast<int64_t>(__umul64hi(static_cast<uint64_t>(n), multiplier));
    int64_t rest = n - quotient * divisor;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const bool more = rest >= divisor;
      quotient += more ? 1 : 0;
      rest -= more ? divisor : 0;
    }
    return quotient;
  }
};

}  // namespace retina_ops
