// The keywords that kernel files use, and how a kernel is launched: the only place that knows which compiler reads it.
// Under nvcc this is CUDA; under g++ (tests/cuda_on_cpu) <cuda_runtime.h> is the emulator's and supplies its own.
//
//   RETINA_OPS_SHARED(float[32], partial);          a shared variable or array
//   RETINA_OPS_DYNAMIC_SHARED(float, tile);         the block's dynamic shared memory as float*
//   launch(kernel, grid, block, shared_bytes, stream, arguments...);
#pragma once

#include <cuda_runtime.h>

#include "common/host_device.h"

#if defined(__CUDACC__)
namespace retina_ops {
template <class T>
struct SharedType {
  using type = T;
};
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments... arguments) {
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
}
}  // namespace retina_ops
#define RETINA_OPS_SHARED(TYPE, NAME) __shared__ typename ::retina_ops::SharedType<TYPE>::type NAME
#define RETINA_OPS_DYNAMIC_SHARED(TYPE, NAME)                             \
  extern __shared__ __align__(16) unsigned char retina_ops_dynamic_raw[]; \
  TYPE* NAME = reinterpret_cast<TYPE*>(retina_ops_dynamic_raw)
#endif

namespace retina_ops {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

template <class T>
RETINA_OPS_HOST_DEVICE T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace retina_ops
