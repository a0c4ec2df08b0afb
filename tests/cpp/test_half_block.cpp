// Conversions of half types, for every one of their 65,536 values and for the floats between them.
#include <cmath>
#include <initializer_list>

#include "check.h"
#include "common/half_block.h"

using namespace retina_ops;

namespace {

// What a bit pattern of float16 means, from its definition.
double float16_value(int bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * INFINITY;
  return exponent == 0 ? sign * std::ldexp(mantissa, -24) : sign * std::ldexp(1024 + mantissa, exponent - 25);
}

void test_every_float16_is_exact() {
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = float16_to_float(static_cast<uint16_t>(bits));
    const double expected = float16_value(bits);
    EXPECT(std::isnan(expected) ? std::isnan(value) : static_cast<double>(value) == expected);
    if (!std::isnan(expected)) EXPECT(float_to_float16(value) == bits);
  }
  EXPECT((float_to_float16(std::nanf("")) & 0x7fff) > 0x7c00);
}

void test_float16_rounds_to_nearest_even() {
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const double low = float16_value(bits);
    const double high = float16_value(bits + 1);
    const float middle = static_cast<float>((low + high) / 2);
    EXPECT(float_to_float16(middle) == ((bits & 1) == 0 ? bits : bits + 1));
    EXPECT(float_to_float16(std::nextafterf(middle, -1.0f)) == bits);
    EXPECT(float_to_float16(std::nextafterf(middle, 1e9f)) == bits + 1);
  }
  EXPECT(float_to_float16(65519.9f) == 0x7bff);
  EXPECT(float_to_float16(65520.0f) == 0x7c00);
}

void test_bfloat16() {
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = bfloat16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT(std::isnan(bfloat16_to_float(float_to_bfloat16(value))));
      continue;
    }
    EXPECT(float_to_bfloat16(value) == bits);
    if (std::isinf(value)) continue;
    const float middle = bit_copy<float>((static_cast<uint32_t>(bits) << 16) + 0x8000u);
    EXPECT(float_to_bfloat16(middle) == ((bits & 1) == 0 ? bits : bits + 1));
  }
}

// Pairs keep every bfloat16, round what lies between to the nearer one, and put the elements where they say.
void test_pairs() {
  constexpr int kWidth = 64;
  uint16_t bits[kWidth], back[kWidth];
  float values[kWidth];
  for (int first = 0; first < 65536; first += kWidth) {
    for (int i = 0; i < kWidth; ++i) bits[i] = static_cast<uint16_t>(first + i);
    load_pairs<kWidth>(bits, 0, values, kWidth);
    for (int i = 0; i < kWidth; ++i) {
      const float expected = bfloat16_to_float(bits[i]);
      EXPECT(bit_copy<uint32_t>(values[i / 2 + i % 2 * (kWidth / 2)]) == bit_copy<uint32_t>(expected));
    }
    store_pairs<kWidth>(back, 0, values, kWidth);
    EXPECT(memcmp(bits, back, sizeof(bits)) == 0);
    for (int i = 0; i < kWidth; ++i) {  // just under and just over half-way to the next magnitude
      if (std::isnan(bfloat16_to_float(bits[i])) || std::isinf(bfloat16_to_float(bits[i]))) continue;
      for (const uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) {
        const float value = bit_copy<float>((static_cast<uint32_t>(bits[i]) << 16) + low);
        float block[kWidth] = {value};
        store_pairs<kWidth>(back, 0, block, 1);
        EXPECT(back[0] == (low < 0x8000u ? bits[i] : bits[i] + 1));
      }
    }
  }
  uint16_t three[4] = {0x3f80, 0x4000, 0x4040, 7};  // a part of a block: no more is read or written
  load_pairs<kWidth>(three, 0, values, 3);
  EXPECT(values[0] == 1.0f && values[32] == 2.0f && values[1] == 3.0f && values[33] == 0.0f && values[63] == 0.0f);
  values[33] = 5.0f;
  store_pairs<kWidth>(three, 0, values, 3);
  EXPECT(three[2] == 0x4040 && three[3] == 7);
  EXPECT(quiet_nan(2.0f) == 2.0f);
  EXPECT(bit_copy<uint32_t>(quiet_nan(bit_copy<float>(0x7fffffffu))) == 0x7fc00000u);
}

}  // namespace

int main() {
  test_pairs();
  test_every_float16_is_exact();
  test_float16_rounds_to_nearest_even();
  test_bfloat16();
  return retina_ops_test::failures;
}
