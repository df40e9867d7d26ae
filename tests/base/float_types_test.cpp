#include "base/float_types.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace bise {
namespace {

// Slow twin: a number format told as its fields, decoded by ldexp in double.
struct Format {
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity;  // else only the all-ones code is NaN (E4M3FN)
};
constexpr Format kF16{5, 10, 15, true}, kBf16{8, 7, 127, true}, kE5m2{5, 2, 15, true},
    kE4m3{4, 3, 7, false};

double decode_slowly(uint32_t code, const Format& f) {
  uint32_t mantissa = code & ((1u << f.mantissa_bits) - 1);
  uint32_t exponent = (code >> f.mantissa_bits) & ((1u << f.exponent_bits) - 1);
  bool negative = (code >> (f.mantissa_bits + f.exponent_bits)) & 1;
  bool top = exponent == (1u << f.exponent_bits) - 1;
  double magnitude;
  if (top && f.has_infinity) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (top && mantissa == (1u << f.mantissa_bits) - 1) {
    magnitude = NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
  } else {
    magnitude = std::ldexp(mantissa + (1u << f.mantissa_bits),
                           static_cast<int>(exponent) - f.bias - f.mantissa_bits);
  }
  return negative ? -magnitude : magnitude;
}

// Slow twin of every encoder: the code below and above are found by bisection over the positive
// codes, the nearer wins, a tie goes to the even code. `overflow` is the code beyond the largest.
uint32_t encode_slowly(float value, const Format& f, uint32_t num_finite, uint32_t overflow) {
  uint32_t sign = std::signbit(value) ? 1u << (f.mantissa_bits + f.exponent_bits) : 0;
  double x = std::fabs(static_cast<double>(value));
  uint32_t low = 0, high = num_finite;  // decode(low) <= x, decode(high) > x or high == num_finite
  while (high - low > 1) {
    uint32_t middle = (low + high) / 2;
    (decode_slowly(middle, f) <= x ? low : high) = middle;
  }
  double below = decode_slowly(low, f);
  double step = below - decode_slowly(low == 0 ? 0 : low - 1, f);
  double above = high == num_finite ? below + step : decode_slowly(high, f);
  if (x - below > above - x || (x - below == above - x && (low & 1) == 1)) low = high;
  if (low == num_finite) low = overflow;
  return sign | low;
}

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

// Floats where rounding can go wrong: every code's value, every midpoint, and their neighbours.
std::vector<float> hard_floats(const Format& f, uint32_t num_finite) {
  std::vector<float> values{0.0f, -0.0f, INFINITY, -INFINITY, 3.4e38f, 1e-45f, -1e-45f, 1e-38f};
  for (uint32_t code = 0; code < num_finite; ++code) {
    double here = decode_slowly(code, f);
    double previous = code == 0 ? 0 : decode_slowly(code - 1, f);
    for (double exact : {here, (here + previous) / 2, here + (here - previous) / 2}) {
      float x = static_cast<float>(exact);
      for (float y : {x, std::nextafter(x, INFINITY), std::nextafter(x, -INFINITY)}) {
        values.push_back(y);
        values.push_back(-y);
      }
    }
  }
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    float x = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(x)) values.push_back(x);
  }
  return values;
}

template <class Decode>
void expect_all_codes(const Format& f, uint32_t num_codes, Decode decode) {
  for (uint32_t code = 0; code < num_codes; ++code) {
    double want = decode_slowly(code, f);
    float got = decode(code);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << code;
    } else {
      ASSERT_EQ(bits_of(static_cast<float>(want)), bits_of(got)) << code;
    }
  }
}

TEST(float_types, every_f16_code_decodes_to_its_value) {
  expect_all_codes(kF16, 65536, [](uint32_t c) { return f16_to_f32(static_cast<uint16_t>(c)); });
}
TEST(float_types, every_bf16_code_decodes_to_its_value) {
  expect_all_codes(kBf16, 65536, [](uint32_t c) { return bf16_to_f32(static_cast<uint16_t>(c)); });
}
TEST(float_types, every_e4m3_code_decodes_to_its_value) {
  expect_all_codes(kE4m3, 256, [](uint32_t c) { return e4m3_to_f32(static_cast<uint8_t>(c)); });
}
TEST(float_types, every_e5m2_code_decodes_to_its_value) {
  expect_all_codes(kE5m2, 256, [](uint32_t c) { return e5m2_to_f32(static_cast<uint8_t>(c)); });
}

TEST(float_types, e2m1_has_its_sixteen_values_and_ignores_the_upper_half) {
  const float values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  for (uint32_t code = 0; code < 256; ++code) {
    EXPECT_EQ(bits_of(values[code & 15]), bits_of(e2m1_to_f32(static_cast<uint8_t>(code)))) << code;
  }
}
TEST(float_types, e8m0_is_a_power_of_two) {
  for (int code = 0; code < 255; ++code) {
    EXPECT_EQ(std::ldexp(1.0, code - 127), e8m0_to_f32(static_cast<uint8_t>(code))) << code;
  }
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
}

TEST(float_types, f16_encoder_rounds_to_nearest_even) {
  for (float x : hard_floats(kF16, 0x7C00)) {
    ASSERT_EQ(encode_slowly(x, kF16, 0x7C00, 0x7C00), f32_to_f16(x)) << std::hexfloat << x;
  }
}
TEST(float_types, bf16_encoder_rounds_to_nearest_even) {
  for (float x : hard_floats(kBf16, 0x7F80)) {
    ASSERT_EQ(encode_slowly(x, kBf16, 0x7F80, 0x7F80), f32_to_bf16(x)) << std::hexfloat << x;
    ASSERT_EQ(bits_of(bf16_to_f32(f32_to_bf16(x))), bits_of(round_to_bf16(x)));
  }
}
TEST(float_types, e4m3_encoder_rounds_to_nearest_even_and_saturates) {
  for (float x : hard_floats(kE4m3, 0x7F)) {
    ASSERT_EQ(encode_slowly(x, kE4m3, 0x7F, 0x7E), f32_to_e4m3(x)) << std::hexfloat << x;
  }
}

TEST(float_types, what_was_decoded_encodes_to_the_same_code) {
  for (uint32_t code = 0; code < 65536; ++code) {
    uint16_t c = static_cast<uint16_t>(code);
    if (!std::isnan(f16_to_f32(c))) {
      ASSERT_EQ(c, f32_to_f16(f16_to_f32(c)));
    }
    if (!std::isnan(bf16_to_f32(c))) {
      ASSERT_EQ(c, f32_to_bf16(bf16_to_f32(c)));
    }
    uint8_t b = static_cast<uint8_t>(code & 255);
    if (!std::isnan(e4m3_to_f32(b))) {
      ASSERT_EQ(b, f32_to_e4m3(e4m3_to_f32(b)));
    }
  }
}

TEST(float_types, nan_stays_nan_in_every_format) {
  // Also payloads that sit only in bits that the narrow format drops: they must not become infinity.
  for (uint32_t bits : {0x7FC00000u, 0x7F800001u, 0xFF800001u, 0xFFFFFFFFu, 0x7F80FFFFu}) {
    float nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(e4m3_to_f32(f32_to_e4m3(nan)))) << bits;
  }
}

TEST(float_types, conversions_work_at_compile_time) {
  static_assert(f32_to_f16(1.0f) == 0x3C00 && f16_to_f32(0x0001) == 0x1p-24f);
  static_assert(f32_to_bf16(1.0f) == 0x3F80 && f32_to_e4m3(448.0f) == 0x7E);
  static_assert(f32_to_e4m3(0x1p-9f) == 0x01 && e8m0_to_f32(0) == 0x1p-127f);
}

}  // namespace
}  // namespace bise
