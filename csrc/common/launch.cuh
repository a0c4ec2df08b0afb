// The keywords that kernel files use, how a kernel is launched, and how a launch is tested on a CPU. This is the only
// file that knows which compiler reads it: under nvcc it is CUDA; under g++ (tests/cuda_on_cpu) <cuda_runtime.h> is the
// emulator's header, which defines the same names.
//
//   RETINA_OPS_SHARED(float[32], partial);          a shared variable or array
//   RETINA_OPS_DYNAMIC_SHARED(float, tile);         the block's dynamic shared memory as float*
//   launch(kernel, grid, block, shared_bytes, stream, arguments...);
//   RETINA_OPS_LAUNCH(launch_box_area, BoxAreaDevice, boxes, dtype, areas, n);
//                                                   stands after void launch_box_area(const BoxAreaDevice&) and makes
//                                                   it known to the emulator, whose cases fill the fields that it names
//   RETINA_OPS_FIELDS(HeadLevels, level, count);    the fields of a struct that is a field of such a struct
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
#define RETINA_OPS_LAUNCH(FUNCTION, STRUCT, ...) static_assert(true, "")
#define RETINA_OPS_FIELDS(STRUCT, ...) static_assert(true, "")
#endif

namespace retina_ops {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

template <class T>
RETINA_OPS_HOST_DEVICE T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// What part of its arrays a launch computes, and how large its grid may be. Operators leave the defaults: everything.
// Tests set a large `first`, so that indices exceed 32 bits, and few blocks, so that a thread computes several
// elements. Kernels are given `first` alone: arguments of more than 128 bytes cost the focal loss registers.
struct LaunchLimits {
  int64_t first = 0;  // the first index that is computed: of an element, a box or an image, as the launch says
  int64_t most_blocks = std::numeric_limits<int64_t>::max();
};
RETINA_OPS_FIELDS(LaunchLimits, first, most_blocks);

// A grid of `blocks`, of at least one and at most `most` blocks.
inline dim3 grid_of(int64_t blocks, int64_t most, const LaunchLimits& limits) {
  const int64_t allowed = most < limits.most_blocks ? most : limits.most_blocks;
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks < allowed ? blocks : allowed));
}

}  // namespace retina_ops
