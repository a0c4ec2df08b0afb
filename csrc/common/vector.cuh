// Reads and writes elements of any dtype in 16-byte accesses, converted to and from the type of the arithmetic. No
// torch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

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

template <class T>
__device__ __forceinline__ T not_a_number() {
  return static_cast<T>(nanf(""));
}

// The widest type of access whose size divides kBytes.
template <int kBytes>
using WordOf = std::conditional_t<kBytes % 16 == 0, uint4, std::conditional_t<kBytes % 8 == 0, uint2, uint32_t>>;

// A single access of 16 bytes. nvcc splits a plain store to share code with the stores of a partial pack.
__device__ __forceinline__ void store_word(uint4* to, uint4 word) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(word.x), "r"(word.y),
               "r"(word.z), "r"(word.w)
               : "memory");
#else
  *to = word;
#endif
}
template <class Word>
__device__ __forceinline__ void store_word(Word* to, Word word) {
  *to = word;
}

// kCount elements that are read or written together.
template <class T, int kCount>
union Pack {
  using Word = WordOf<static_cast<int>(sizeof(T)) * kCount>;
  static constexpr int kWords = sizeof(T) * kCount / sizeof(Word);
  static constexpr bool kFits = kWords * sizeof(Word) == sizeof(T) * kCount;
  Word words[kFits ? kWords : 1];
  T values[kCount];
  __device__ __forceinline__ Pack() {}
};

// Reads up to kCount elements, and zeros for the rest. If all are available and the address is aligned, it uses the
// widest accesses. The elements are not converted, so that a pack that is read ahead takes few registers.
template <int kCount, class T>
__device__ __forceinline__ Pack<T, kCount> read_pack(const T* from, int64_t available, bool aligned) {
  Pack<T, kCount> pack;
  if (Pack<T, kCount>::kFits && aligned && available >= kCount) {
    const auto* words = reinterpret_cast<const typename Pack<T, kCount>::Word*>(from);
#pragma unroll
    for (int i = 0; i < Pack<T, kCount>::kWords; ++i) pack.words[i] = words[i];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.values[i] = i < available ? from[i] : from_arithmetic<T>(ArithmeticOf<T>(0));
  }
  return pack;
}

template <int kCount, class T, class A>
__device__ __forceinline__ void convert_pack(const Pack<T, kCount>& pack, A (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = static_cast<A>(to_arithmetic(pack.values[i]));
}

template <int kCount, class T, class A>
__device__ __forceinline__ void load_pack(const T* from, int64_t available, bool aligned, A (&to)[kCount]) {
  convert_pack(read_pack<kCount>(from, available, aligned), to);
}

template <int kCount, class T, class A>
__device__ __forceinline__ void store_pack(T* to, int64_t available, bool aligned, const A (&from)[kCount]) {
  if (Pack<T, kCount>::kFits && aligned && available >= kCount) {
    Pack<T, kCount> pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.values[i] = from_arithmetic<T>(from[i]);
    auto* words = reinterpret_cast<typename Pack<T, kCount>::Word*>(to);
#pragma unroll
    for (int i = 0; i < Pack<T, kCount>::kWords; ++i) store_word(words + i, pack.words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < available) to[i] = from_arithmetic<T>(from[i]);
    }
  }
}

// The same for packs of 16 bytes at addresses that are multiples of `access` bytes: 16, 8 or 4. For any other value,
// the elements are accessed one by one.
template <int kCount, class T>
__device__ __forceinline__ Pack<T, kCount> read_plane(const T* from, int64_t available, int access) {
  static_assert(sizeof(T) * kCount == 16, "a pack is one uint4");
  if (available < kCount || access == 16 || access < 4) return read_pack<kCount>(from, available, access == 16);
  Pack<T, kCount> pack;
  if (access == 8) {
    const auto* words = reinterpret_cast<const uint2*>(from);
    const uint2 low = words[0], high = words[1];
    pack.words[0] = uint4{low.x, low.y, high.x, high.y};
  } else {
    const auto* words = reinterpret_cast<const uint32_t*>(from);
    pack.words[0] = uint4{words[0], words[1], words[2], words[3]};
  }
  return pack;
}

template <int kCount, class T, class A>
__device__ __forceinline__ void store_plane(T* to, int64_t available, int access, const A (&from)[kCount]) {
  if (available < kCount || access == 16 || access < 4) return store_pack(to, available, access == 16, from);
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.values[i] = from_arithmetic<T>(from[i]);
  const uint4 word = pack.words[0];
  if (access == 8) {
    auto* words = reinterpret_cast<uint2*>(to);
    words[0] = uint2{word.x, word.y};
    words[1] = uint2{word.z, word.w};
  } else {
    auto* words = reinterpret_cast<uint32_t*>(to);
    words[0] = word.x;
    words[1] = word.y;
    words[2] = word.z;
    words[3] = word.w;
  }
}

inline bool is_aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

}  // namespace retina_ops
