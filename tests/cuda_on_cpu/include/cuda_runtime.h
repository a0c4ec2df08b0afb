// Replaces the CUDA runtime header when g++ compiles kernels: keywords, built-in variables and functions. Kernel files
// use nothing else. To use another intrinsic, add it here with the meaning that it has on the device.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/emulator.h"
#include "emulator/launches.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (::emulator::thread_index)
#define blockIdx (::emulator::block_index)
#define blockDim (::emulator::block_size)
#define gridDim (::emulator::grid_size)

using dim3 = ::emulator::Dim;
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
using cudaStream_t = struct CUstream_st*;

#define EMULATOR_HERE (::emulator::Place{__FILE__, __LINE__})
#define __syncthreads() ::emulator::block_barrier(EMULATOR_HERE)
#define __syncwarp() ((void)::emulator::collective(::emulator::Collective::kSyncWarp, ~0u, 0, 0, EMULATOR_HERE))
#define __threadfence() ::emulator::fence()

namespace emulator {

// Values as 64 bits, to be passed through a shuffle.
template <class T>
inline uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
inline T from_bits(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

// A source outside the warp returns the lane's own value, as on the device.
template <class T>
inline T shuffle(unsigned mask, T value, int source, Place place) {
  const int from = source >= 0 && source < 32 ? source : lane();
  return from_bits<T>(collective(Collective::kShuffle, mask, to_bits(value), from, place));
}

template <class T, class Function>
__attribute__((noinline)) T atomic(T* memory, Function function) {
  before_atomic(memory, sizeof(T), __builtin_return_address(0));
  const T old = from_bits<T>(load_unseen(memory, sizeof(T)));
  store_unseen(memory, to_bits(function(old)), sizeof(T));
  return old;
}

}  // namespace emulator

#define __shfl_sync(mask, value, from) ::emulator::shuffle(mask, value, from, EMULATOR_HERE)
#define __shfl_xor_sync(mask, value, bits) ::emulator::shuffle(mask, value, ::emulator::lane() ^ (bits), EMULATOR_HERE)
#define __shfl_up_sync(mask, value, by) ::emulator::shuffle(mask, value, ::emulator::lane() - (by), EMULATOR_HERE)
#define __shfl_down_sync(mask, value, by) ::emulator::shuffle(mask, value, ::emulator::lane() + (by), EMULATOR_HERE)
#define __ballot_sync(mask, test) \
  ((unsigned)::emulator::collective(::emulator::Collective::kBallot, mask, (test) ? 1 : 0, 0, EMULATOR_HERE))
#define __any_sync(mask, test) \
  ((int)::emulator::collective(::emulator::Collective::kAny, mask, (test) ? 1 : 0, 0, EMULATOR_HERE))
#define __all_sync(mask, test) \
  ((int)::emulator::collective(::emulator::Collective::kAll, mask, (test) ? 1 : 0, 0, EMULATOR_HERE))

template <class T>
inline T atomicAdd(T* memory, std::common_type_t<T> value) {
  return ::emulator::atomic(memory, [value](T old) { return static_cast<T>(old + value); });
}
template <class T>
inline T atomicMax(T* memory, std::common_type_t<T> value) {
  return ::emulator::atomic(memory, [value](T old) { return old < value ? value : old; });
}
template <class T>
inline T atomicOr(T* memory, std::common_type_t<T> value) {
  return ::emulator::atomic(memory, [value](T old) { return static_cast<T>(old | value); });
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// The macros and functions that common/launch.cuh leaves to the compiler.
#define RETINA_OPS_SHARED(TYPE, NAME)                                                                       \
  using NAME##_shared = ::std::add_lvalue_reference_t<typename ::emulator::Named<TYPE>::type>;              \
  static const char NAME##_key = 0;                                                                         \
  NAME##_shared NAME = *static_cast<::std::remove_reference_t<NAME##_shared>*>(::emulator::shared_variable( \
      &NAME##_key, sizeof(typename ::emulator::Named<TYPE>::type), alignof(typename ::emulator::Named<TYPE>::type)))
#define RETINA_OPS_DYNAMIC_SHARED(TYPE, NAME) TYPE* NAME = static_cast<TYPE*>(::emulator::dynamic_shared())

namespace emulator {
template <class T>
struct Named {
  using type = T;
};
}  // namespace emulator

namespace retina_ops {
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Arguments... arguments) {
  const auto call = [=] { kernel(static_cast<Parameters>(arguments)...); };
  ::emulator::run_grid(
      grid, block, shared_bytes, [](const void* closure) { (*static_cast<const decltype(call)*>(closure))(); }, &call,
      sizeof(call));
}
}  // namespace retina_ops
