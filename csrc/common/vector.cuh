// Elements of any dtype in 16-byte accesses, converted to the type of the arithmetic. No torch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common/launch.cuh"

namespace retina_ops {

// The arithmetic type of a storage type: float, or double for double.
template <class T>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};
template <class T>
using ArithmeticOf = typename Arithmetic<T>::type;

__device__ __forceinline__ float to_arithmetic(float value) { return value; }
__device__ __forceinline__ double to_arithmetic(double value) { return value; }
__device__ __forceinline__ float to_arithmetic(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_arithmetic(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T from_arithmetic(ArithmeticOf<T> value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_arithmetic<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_arithmetic<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// kCount elements that are read or written together.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T values[kCount];
};

// Reads up to kCount elements from `from`; one access where all are there and the address allows it.
template <int kCount, class T, class A>
__device__ __forceinline__ void load_pack(const T* from, int64_t available, bool aligned, A (&to)[kCount]) {
  if (aligned && available >= kCount) {
    const Pack<T, kCount> pack = *reinterpret_cast<const Pack<T, kCount>*>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = to_arithmetic(pack.values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = i < available ? static_cast<A>(to_arithmetic(from[i])) : A(0);
  }
}

template <int kCount, class T, class A>
__device__ __forceinline__ void store_pack(T* to, int64_t available, bool aligned, const A (&from)[kCount]) {
  if (aligned && available >= kCount) {
    Pack<T, kCount> pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.values[i] = from_arithmetic<T>(from[i]);
    *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < available) to[i] = from_arithmetic<T>(from[i]);
    }
  }
}

inline bool is_aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

}  // namespace retina_ops
