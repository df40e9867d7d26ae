// bf16, f16, FP8 (E4M3, E5M2), FP4 (E2M1), E8M0: bit-exact conversions, the one definition of each.
// All encoders round to nearest, ties to even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace bise {

constexpr float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
// NaN stays NaN (quiet); overflow gives infinity, as torch does.
constexpr uint16_t f32_to_bf16(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}
constexpr float round_to_bf16(float value) { return bf16_to_f32(f32_to_bf16(value)); }

constexpr float f16_to_f32(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  uint32_t exponent = (bits >> 10) & 31u;
  uint32_t mantissa = bits & 0x3FFu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {  // subnormal: mantissa * 2^-24, exact in float
    float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}
constexpr uint16_t f32_to_f16(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value);
  uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  u &= 0x7FFFFFFFu;
  if (u > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (u >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 65536 and up
  if (u < 0x38800000u) {                                               // below 2^-14: subnormal
    // Adding 0.5 moves the value's 2^-24 unit to the last mantissa bit; the FPU rounds to even.
    float shifted = std::bit_cast<float>(u) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  uint32_t rounded = u + 0xFFFu + ((u >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// E4M3FN: no infinities, 0x7F and 0xFF are NaN, largest 448.
constexpr float e4m3_to_f32(uint8_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  uint32_t exponent = (bits >> 3) & 15u;
  uint32_t mantissa = bits & 7u;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  float magnitude = exponent == 0
                        ? static_cast<float>(mantissa) * 0x1p-9f
                        : std::bit_cast<float>(((exponent + 120) << 23) | (mantissa << 20));
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}
// Saturates to +-448; NaN gives 0x7F.
constexpr uint8_t f32_to_e4m3(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value);
  uint8_t sign = static_cast<uint8_t>((u >> 24) & 0x80u);
  u &= 0x7FFFFFFFu;
  if (u > 0x7F800000u) return 0x7F;
  if (u >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7Eu);  // 448 and up
  if (u < 0x3C800000u) {                                            // below 2^-6: units of 2^-9
    float shifted = std::bit_cast<float>(u) + 0x1p14f;              // unit of the sum is 2^-9
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  uint32_t rounded = u + 0x7FFFFu + ((u >> 20) & 1u);
  uint32_t code = (rounded - 0x3C000000u) >> 20;
  return static_cast<uint8_t>(sign | (code > 0x7Eu ? 0x7Eu : code));
}

// E5M2: IEEE-like with infinities and NaN; the upper half of a binary16.
constexpr float e5m2_to_f32(uint8_t bits) {
  return f16_to_f32(static_cast<uint16_t>(static_cast<uint16_t>(bits) << 8));
}

// E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; the low 4 bits count.
constexpr float e2m1_to_f32(uint8_t bits) {
  constexpr float kMagnitude[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  float magnitude = kMagnitude[bits & 7u];
  return (bits & 8u) != 0 ? -magnitude : magnitude;
}

// E8M0: 2^(bits - 127); 0xFF is NaN. 0 is 2^-127, a float subnormal.
constexpr float e8m0_to_f32(uint8_t bits) {
  if (bits == 0xFF) return std::numeric_limits<float>::quiet_NaN();
  if (bits == 0) return std::bit_cast<float>(0x00400000u);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 23);
}

}  // namespace bise
