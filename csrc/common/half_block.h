// Reads and writes blocks of values of any floating dtype as float (float64 as double), in branch-free loops of
// constant length that the compiler vectorises. Rounding is to nearest even. Host and device, no torch.
#pragma once

#include "common/host_device.h"

namespace retina_ops {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

// The dtype of arrays of T: float or double.
template <class T>
constexpr Dtype kDtypeOf = sizeof(T) == sizeof(double) ? Dtype::kFloat64 : Dtype::kFloat32;

// Bytes per element.
RETINA_OPS_HOST_DEVICE int64_t dtype_size(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

// How many of kWidth elements from index `first` on lie before `end`.
template <int kWidth>
RETINA_OPS_HOST_DEVICE int block_count(int64_t first, int64_t end) {
  return end - first < kWidth ? static_cast<int>(end - first) : kWidth;
}

RETINA_OPS_HOST_DEVICE float bfloat16_to_float(uint16_t bits) {
  return bit_copy<float>(static_cast<uint32_t>(bits) << 16);
}

RETINA_OPS_HOST_DEVICE uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = bit_copy<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}

RETINA_OPS_HOST_DEVICE float float16_to_float(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x70000000u : 0u;  // the exponent of inf and NaN is all ones
  const float scaled = bit_copy<float>(magnitude) * bit_copy<float>(0x77800000u);  // 2^112 rebases the exponent
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  return bit_copy<float>((special != 0u ? (magnitude | special) : bit_copy<uint32_t>(scaled)) | sign);
}

RETINA_OPS_HOST_DEVICE uint16_t float_to_float16(float value) {
  const uint32_t bits = bit_copy<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal results: round the mantissa to 10 bits and rebase the exponent. Subnormal results: adding 0.5 aligns the
  // mantissa, so that its last ten bits are the result.
  const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  const float aligned = bit_copy<float>(magnitude) + 0.5f;
  const uint32_t subnormal = bit_copy<uint32_t>(aligned) - 0x3f000000u;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t capped = magnitude >= 0x477ff000u ? 0x7c00u : finite;
  return static_cast<uint16_t>((magnitude > 0x7f800000u ? 0x7e00u : capped) | sign);
}

// Copies `size` bytes, at most kSize. The copy of a full block has a constant size and compiles to a few vector moves.
template <size_t kSize>
RETINA_OPS_HOST_DEVICE void copy_bytes(void* to, const void* from, size_t size) {
  if (size == kSize) {
    memcpy(to, from, kSize);
  } else {
    memcpy(to, from, size);
  }
}

template <int kWidth, class T>
RETINA_OPS_HOST_DEVICE void copy_values(T* to, const T* from, int count) {
  copy_bytes<kWidth * sizeof(T)>(to, from, static_cast<size_t>(count) * sizeof(T));
}

// Reads `count` values of `base`, from index `first` on, and pads them with zeros to kWidth.
template <int kWidth>
RETINA_OPS_HOST_DEVICE void load_block(const void* base, Dtype dtype, int64_t first, float* out, int count) {
  if (count < kWidth) {
    for (int i = 0; i < kWidth; ++i) out[i] = 0.0f;
  }
  if (dtype == Dtype::kFloat32) return copy_values<kWidth>(out, static_cast<const float*>(base) + first, count);
  alignas(64) uint16_t bits[kWidth];
  if (count < kWidth) {
    for (int i = 0; i < kWidth; ++i) bits[i] = 0;
  }
  copy_values<kWidth>(bits, static_cast<const uint16_t*>(base) + first, count);
  if (dtype == Dtype::kBFloat16) {
    for (int i = 0; i < kWidth; ++i) out[i] = bfloat16_to_float(bits[i]);
  } else {
    for (int i = 0; i < kWidth; ++i) out[i] = float16_to_float(bits[i]);
  }
}
template <int kWidth>
RETINA_OPS_HOST_DEVICE void load_block(const void* base, Dtype, int64_t first, double* out, int count) {
  for (int i = 0; i < kWidth; ++i) out[i] = 0.0;
  copy_values<kWidth>(out, static_cast<const double*>(base) + first, count);
}

// Writes the first `count` of kWidth values to `base`, from index `first` on.
template <int kWidth>
RETINA_OPS_HOST_DEVICE void store_block(void* base, Dtype dtype, int64_t first, const float* values, int count) {
  if (dtype == Dtype::kFloat32) return copy_values<kWidth>(static_cast<float*>(base) + first, values, count);
  alignas(64) uint16_t bits[kWidth];
  if (dtype == Dtype::kBFloat16) {
    for (int i = 0; i < kWidth; ++i) bits[i] = float_to_bfloat16(values[i]);
  } else {
    for (int i = 0; i < kWidth; ++i) bits[i] = float_to_float16(values[i]);
  }
  copy_values<kWidth>(static_cast<uint16_t*>(base) + first, bits, count);
}
template <int kWidth>
RETINA_OPS_HOST_DEVICE void store_block(void* base, Dtype, int64_t first, const double* values, int count) {
  copy_values<kWidth>(static_cast<double*>(base) + first, values, count);
}

// Reads bfloat16 in pairs, with two operations per pair, for kernels that need no particular order of the elements: the
// first element of each 32-bit word goes to the first half of `out`, the second to the second half. Elements past
// `count` are 0.
template <int kWidth>
RETINA_OPS_HOST_DEVICE void load_pairs(const void* base, int64_t first, float* __restrict out, int count) {
  alignas(64) uint32_t words[kWidth / 2];
  if (count < kWidth) memset(words, 0, sizeof(words));
  copy_bytes<sizeof(words)>(words, static_cast<const uint16_t*>(base) + first, 2 * static_cast<size_t>(count));
  for (int i = 0; i < kWidth / 2; ++i) {
    out[i] = bit_copy<float>(words[i] << 16);
    out[i + kWidth / 2] = bit_copy<float>(words[i] & 0xffff0000u);
  }
}

// Writes what load_pairs reads. A value half-way between two bfloat16 rounds away from zero. The low 15 bits of a NaN
// must be 0; they are in every NaN that was a bfloat16 or that arithmetic produced. quiet_nan makes them so.
template <int kWidth>
RETINA_OPS_HOST_DEVICE void store_pairs(void* base, int64_t first, const float* __restrict values, int count) {
  alignas(64) uint32_t words[kWidth / 2];
  for (int i = 0; i < kWidth / 2; ++i) {
    const uint32_t low = bit_copy<uint32_t>(values[i]) + 0x8000u;
    const uint32_t high = bit_copy<uint32_t>(values[i + kWidth / 2]) + 0x8000u;
    words[i] = (low >> 16) | (high & 0xffff0000u);
  }
  copy_bytes<sizeof(words)>(static_cast<uint16_t*>(base) + first, words, 2 * static_cast<size_t>(count));
}

// Replaces a NaN of any payload by the standard one.
template <class T>
RETINA_OPS_HOST_DEVICE T quiet_nan(T value) {
  return value == value ? value : std::numeric_limits<T>::quiet_NaN();
}

}  // namespace retina_ops
