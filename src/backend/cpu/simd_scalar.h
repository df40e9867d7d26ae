// The vector vocabulary in plain C++: what the other two say, said slowly. 16 lanes of float (F) and
// int32 (I), 64 bytes (B), sums of byte products (D), and 16 pairs of int16 (H).
#pragma once

#include <stdint.h>
#include <string.h>

namespace simd {

// Whether products have kernels of their own for a few tokens. Here nothing is gained but compile time without.
constexpr bool kFewTokenKernels = false;
// Whether each run of tokens unpacks the codes anew, however many there are; else many tokens share what was unpacked.
constexpr bool kRunsOnly = false;
constexpr int64_t kCodesAhead = 2048;
constexpr bool kNarrowSums = true;  // D has 16 bits a product

struct F { float v[16]; };
struct I { int32_t v[16]; };
struct B { uint8_t v[64]; };
struct D { int32_t v[16]; };
struct H { int16_t v[32]; };

#define BISE_LANES for (int i = 0; i < 16; ++i)
#define BISE_BYTES for (int i = 0; i < 64; ++i)

inline float half_to_float(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u;
  uint32_t mantissa = bits & 0x3FFu, u = 0;
  float f = 0.0f;
  if (exponent == 0) {
    f = static_cast<float>(mantissa) * 0x1p-24f;
    memcpy(&u, &f, 4);
    u |= sign;
  } else if (exponent == 31) {
    u = sign | 0x7F800000u | (mantissa << 13);
  } else {
    u = sign | ((exponent + 112) << 23) | (mantissa << 13);
  }
  memcpy(&f, &u, 4);
  return f;
}

inline F f_set1(float x) { F r; BISE_LANES r.v[i] = x; return r; }
inline F f_load(const float* p) { F r; memcpy(r.v, p, 64); return r; }
inline void f_store(float* p, F a) { memcpy(p, a.v, 64); }
inline F f_add(F a, F b) { BISE_LANES a.v[i] += b.v[i]; return a; }
inline F f_sub(F a, F b) { BISE_LANES a.v[i] -= b.v[i]; return a; }
inline F f_mul(F a, F b) { BISE_LANES a.v[i] *= b.v[i]; return a; }
inline F f_div(F a, F b) { BISE_LANES a.v[i] /= b.v[i]; return a; }
inline F f_fma(F a, F b, F c) { BISE_LANES a.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]); return a; }
inline F f_max(F a, F b) { BISE_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
inline F f_min(F a, F b) { BISE_LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
inline bool f_any_above(F a, F b) {
  bool any = false;
  BISE_LANES any = any || a.v[i] > b.v[i];
  return any;
}
inline F f_round(F a) { BISE_LANES a.v[i] = __builtin_rintf(a.v[i]); return a; }
// Toward zero; INT32_MIN for what is out of range or not a number.
inline I i_from_f(F a) {
  I r;
  BISE_LANES r.v[i] = a.v[i] >= -0x1p31f && a.v[i] < 0x1p31f ? static_cast<int32_t>(a.v[i]) : INT32_MIN;
  return r;
}
// 2^a for integers a in [-126, 127].
inline F f_exp2i(I a) {
  F r;
  BISE_LANES { uint32_t u = static_cast<uint32_t>(a.v[i] + 127) << 23; memcpy(&r.v[i], &u, 4); }
  return r;
}
inline F f_from_bf16(const uint16_t* p) {
  F r;
  BISE_LANES { uint32_t u = static_cast<uint32_t>(p[i]) << 16; memcpy(&r.v[i], &u, 4); }
  return r;
}
inline F f_from_f16(const uint16_t* p) { F r; BISE_LANES r.v[i] = half_to_float(p[i]); return r; }
// An e4m3 code whose bits are moved to the places of a float16 is 2^-8 of its value there, subnormals
// included.
inline F f_from_e4m3_256th(const uint8_t* p) {
  F r;
  BISE_LANES {
    uint32_t code = p[i];
    r.v[i] = half_to_float(static_cast<uint16_t>((code & 0x80u) << 8 | (code & 0x7Fu) << 7));
  }
  return r;
}
// 2^(b - 127); byte 0 is the subnormal 2^-127.
inline F f_from_e8m0(const uint8_t* p) {
  F r;
  BISE_LANES { uint32_t u = p[i] == 0 ? 0x00400000u : uint32_t{p[i]} << 23; memcpy(&r.v[i], &u, 4); }
  return r;
}
// Two columns of a BF16 tile: element 2 r + j is row r, column j.
inline void f_two_from_bf16(const uint8_t* p, F* even, F* odd) {
  BISE_LANES {
    uint32_t pair;
    memcpy(&pair, p + 4 * i, 4);
    const uint32_t low = pair << 16, high = pair & 0xFFFF0000u;
    memcpy(&even->v[i], &low, 4);
    memcpy(&odd->v[i], &high, 4);
  }
}
// Two columns of an E4M3 tile: as BF16, but rows 4 to 7 and 8 to 11 have changed places.
inline void f_two_from_e4m3(const uint8_t* p, F* even, F* odd) {
  BISE_LANES {
    const int at = i / 4 == 1 ? i + 4 : i / 4 == 2 ? i - 4 : i;
    for (int j = 0; j < 2; ++j) {
      const uint32_t code = p[2 * at + j];
      (j == 0 ? even : odd)->v[i] =
          half_to_float(static_cast<uint16_t>((code & 0x80u) << 8 | (code & 0x7Fu) << 7)) * 256.0f;
    }
  }
}
inline F f_from_i(I a) { F r; BISE_LANES r.v[i] = static_cast<float>(a.v[i]); return r; }

inline I i_zero() { return I{}; }
inline I i_set1(int32_t x) { I r; BISE_LANES r.v[i] = x; return r; }
inline I i_add(I a, I b) { BISE_LANES a.v[i] += b.v[i]; return a; }
inline I i_sub(I a, I b) { BISE_LANES a.v[i] -= b.v[i]; return a; }
inline I i_mul(I a, I b) { BISE_LANES a.v[i] *= b.v[i]; return a; }
inline I i_from_u8(const uint8_t* p) { I r; BISE_LANES r.v[i] = p[i]; return r; }
inline I i_from_i8(const uint8_t* p) { I r; BISE_LANES r.v[i] = static_cast<int8_t>(p[i]); return r; }

inline I i_low_nibbles(const uint8_t* p) { I r; BISE_LANES r.v[i] = p[i] & 15; return r; }
inline I i_high_nibbles(const uint8_t* p) { I r; BISE_LANES r.v[i] = p[i] >> 4; return r; }

inline B b_load(const uint8_t* p) { B r; memcpy(r.v, p, 64); return r; }
inline void b_store(uint8_t* p, B a) { memcpy(p, a.v, 64); }
inline B b_or(B a, B b) { BISE_BYTES a.v[i] = static_cast<uint8_t>(a.v[i] | b.v[i]); return a; }
// (a >> from) & mask in each byte, then moved up to bit `to`.
template <int kFrom, int kMask, int kTo>
inline B b_bits(B a) {
  BISE_BYTES a.v[i] = static_cast<uint8_t>(((a.v[i] >> kFrom) & kMask) << kTo);
  return a;
}
// table[a] for bytes a below 16.
inline B b_table(B a, const uint8_t* table) { BISE_BYTES a.v[i] = table[a.v[i]]; return a; }

// Narrow sums of products of unsigned codes and signed activations, 4 bytes a lane. They may be as narrow as
// two of 16 bits in a lane, of bytes 0 and 1 and of bytes 2 and 3, and wrap around: what they end with must fit.
// d_start: -offset times the sums of a pair.
inline I i_start(int32_t pair, int offset) {
  int16_t x[2];
  memcpy(x, &pair, 4);
  I r;
  BISE_LANES r.v[i] = -offset * (x[0] + x[1]);
  return r;
}
inline D d_start(int32_t pair, int offset) { D r; memcpy(r.v, i_start(pair, offset).v, 64); return r; }
inline D d_mac(D sum, B codes, int32_t quad) {
  int8_t x[4];
  memcpy(x, &quad, 4);
  BISE_LANES { for (int j = 0; j < 4; ++j) sum.v[i] += int32_t{codes.v[4 * i + j]} * x[j]; }
  return sum;
}
inline D d_mul(B codes, int32_t quad) { return d_mac(D{}, codes, quad); }
inline I d_flush(D sum) { I r; memcpy(r.v, sum.v, 64); return r; }
// Factors of narrow sums.
using S = I;
inline S s_from_i8(const uint8_t* p) { return i_from_i8(p); }
inline S s_low_nibbles(const uint8_t* p) { return i_low_nibbles(p); }
inline I d_flush_scaled(D sum, S scale) { return i_mul(d_flush(sum), scale); }
// Signed codes: the sum's start, from the sums of the inputs, and the codes as the products take them.
inline I i_signed_start(int32_t) { return i_zero(); }
inline B b_signed(B codes) { return codes; }
inline I i_mac_signed(I sum, B codes, int32_t quad) {
  int8_t x[4];
  memcpy(x, &quad, 4);
  BISE_LANES { for (int j = 0; j < 4; ++j) sum.v[i] += int32_t{static_cast<int8_t>(codes.v[4 * i + j])} * x[j]; }
  return sum;
}

#define BISE_WORDS for (int i = 0; i < 32; ++i)
inline H h_load(const int16_t* p) { H r; memcpy(r.v, p, 64); return r; }
inline void h_store(int16_t* p, H a) { memcpy(p, a.v, 64); }
inline H h_from_i8(const uint8_t* p) { H r; BISE_WORDS r.v[i] = static_cast<int8_t>(p[i]); return r; }
// The same where e4m3_are_normal(): others have a shorter way then.
inline void f_two_from_normal_e4m3(const uint8_t* p, F* even, F* odd) { f_two_from_e4m3(p, even, odd); }
inline bool e4m3_are_normal(const uint8_t* p) {
  for (int i = 0; i < 128; ++i) {
    if ((p[i] & 0x78) == 0) return false;
  }
  return true;
}
// Two steps of an E4M3 tile (see f_two_from_e4m3) as those of a BF16 tile.
inline void words_from_e4m3(const uint8_t* p, int16_t* to) {
  F even, odd;
  f_two_from_e4m3(p, &even, &odd);
  BISE_LANES {
    uint32_t bits[2];
    memcpy(bits, &even.v[i], 4);
    memcpy(bits + 1, &odd.v[i], 4);
    for (int j = 0; j < 2; ++j) to[2 * i + j] = static_cast<int16_t>(bits[j] >> 16);
  }
}
inline void words_from_normal_e4m3(const uint8_t* p, int16_t* to) { words_from_e4m3(p, to); }
// The nibbles of 32 bytes, less 8.
inline void h_two_from_u4(const uint8_t* p, H* low, H* high) {
  BISE_WORDS {
    low->v[i] = static_cast<int16_t>((p[i] & 15) - 8);
    high->v[i] = static_cast<int16_t>((p[i] >> 4) - 8);
  }
}
// Both of a pair are the lane's byte.
inline H h_pairs_from_i8(const uint8_t* p) { H r; BISE_WORDS r.v[i] = static_cast<int8_t>(p[i / 2]); return r; }
inline H h_pairs_high_nibbles(const uint8_t* p) { H r; BISE_WORDS r.v[i] = p[i / 2] >> 4; return r; }
inline H h_set1(int32_t pair) { H r; BISE_LANES memcpy(r.v + 2 * i, &pair, 4); return r; }
inline H h_mul(H a, H b) { BISE_WORDS a.v[i] = static_cast<int16_t>(a.v[i] * b.v[i]); return a; }
// Adds the two products of each lane's pair with those of `pair`.
inline I i_mac_pairs(I sum, H a, int32_t pair) {
  int16_t x[2];
  memcpy(x, &pair, 4);
  BISE_LANES sum.v[i] += int32_t{a.v[2 * i]} * x[0] + int32_t{a.v[2 * i + 1]} * x[1];
  return sum;
}
inline void i_store_i16(int16_t* p, I a) { BISE_LANES p[i] = static_cast<int16_t>(a.v[i]); }

#undef BISE_WORDS
#undef BISE_LANES
#undef BISE_BYTES

// Sums across lanes in one order on every ISA: halves are folded onto each other.
inline float f_reduce_add(F a) {
  for (int n = 8; n >= 1; n /= 2) { for (int i = 0; i < n; ++i) a.v[i] += a.v[i + n]; }
  return a.v[0];
}
inline float f_reduce_max(F a) {
  float m = a.v[0];
  for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline int32_t i_reduce_add(I a) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += a.v[i];
  return sum;
}
// Round to nearest even; NaN is kept.
inline void f_store_bf16(uint16_t* p, F a) {
  for (int i = 0; i < 16; ++i) {
    uint32_t u;
    memcpy(&u, &a.v[i], 4);
    bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
    p[i] = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
  }
}
inline void f_store_f16(uint16_t* p, F a) {
  for (int i = 0; i < 16; ++i) {
    uint32_t u;
    memcpy(&u, &a.v[i], 4);
    uint32_t sign = (u >> 16) & 0x8000u, bits = 0;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u) bits = 0x7E00u;
    else if (u >= 0x47800000u) bits = 0x7C00u;
    else if (u < 0x38800000u) {
      float f;
      memcpy(&f, &u, 4);
      f += 0.5f;
      memcpy(&bits, &f, 4);
      bits -= 0x3F000000u;
    } else {
      bits = (u + 0xFFFu + ((u >> 13) & 1u) - 0x38000000u) >> 13;
    }
    p[i] = static_cast<uint16_t>(sign | bits);
  }
}

// The record (run_layout.h) of four blocks, 32 floats behind each of x[0] to x[3].
inline void quantize_four(const float* const* x, uint8_t* record) {
  for (int i = 0; i < 4; ++i) {
    uint32_t largest = 0;
    for (int k = 0; k < bise::kBlock; ++k) {
      uint32_t bits;
      memcpy(&bits, &x[i][k], 4);
      largest = bits << 1 > largest ? bits << 1 : largest;
    }
    largest >>= 1;
    float amax;
    memcpy(&amax, &largest, 4);
    const bool fault = largest > 0x7F7FFFFFu;
    const float scale = fault ? __builtin_nanf("") : amax / 127.0f;
    const float inverse = amax >= 0x1p-119f ? 127.0f / amax : 0.0f;  // below it the quotient may overflow
    int16_t sums[3][2] = {};
    for (int k = 0; k < bise::kBlock; ++k) {
      const int code = fault ? 0 : static_cast<int>(__builtin_rintf(x[i][k] * inverse));
      int16_t& sum = sums[k / 16][k / 2 % 2];
      sum = static_cast<int16_t>(sum + code);
      record[4 * (k / 4 * 4 + i) + k % 4] = static_cast<uint8_t>(code);
    }
    for (int j = 0; j < 2; ++j) sums[2][j] = static_cast<int16_t>(sums[0][j] + sums[1][j]);
    const float scaled_sum = scale * static_cast<float>(sums[2][0] + sums[2][1]);
    memcpy(record + 4 * (bise::kRunScales + i), &scale, 4);
    memcpy(record + 4 * (bise::kRunScaledSums + i), &scaled_sum, 4);
    for (int part = 0; part < 3; ++part) memcpy(record + 4 * (bise::kRunPairSums + 4 * part + i), sums[part], 4);
  }
}

}  // namespace simd
