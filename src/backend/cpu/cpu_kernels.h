// CpuKernels: one table of functions per instruction set, and the contract of each. The layouts that
// the functions share with packed_weight.cpp are drawn here.
//
// A weight is cut into tiles of 16 rows, so that the 16 lanes of a vector are 16 outputs and no sum
// runs across lanes. Every output is summed along the columns in one fixed order, whatever the
// number of tokens: a row of y depends on its row of x alone, bit for bit.
//
// Float tile: for each column 16 elements (f32, f16, bf16 or e4m3 codes), one per row.
//
// Integer tile, for each 32 columns (a block). Codes are unsigned except Q8_0. A quad is 4 columns;
// 64 bytes hold one quad of the 16 rows: byte 4 r + j is row r, column j of the quad.
//
//   nibbles   256 bytes: 4 x 64; low nibbles of run g are quad g, high nibbles quad g + 4
//   high1      64 bytes: bit g of byte 4 r + j is bit 4 of the code in quad g
//   high2     128 bytes: 2 x 64; bits 2 (g % 4) of run g / 4 are bits 4 and 5 of the code in quad g
//   bytes     512 bytes: 8 x 64; quad g (signed)
//
//   Q4_0  d f16[16] · nibbles                             w = d (q - 8)
//   Q4_1  d f16[16] · m f16[16] · nibbles                 w = d q + m
//   Q5_0  d f16[16] · high1 · nibbles                     w = d (q - 16)
//   Q5_1  d f16[16] · m f16[16] · high1 · nibbles         w = d q + m
//   Q8_0  d f16[16] · bytes                               w = d q
//   K-quants put d (and dmin) f16[16] in front of 8 blocks (256 columns):
//   Q4_K  s u8[16] · m u8[16] · nibbles                   w = d s q - dmin m
//   Q5_K  s u8[16] · m u8[16] · high1 · nibbles           w = d s q - dmin m
//   Q6_K  s i8[2][16] · high2 · nibbles                   w = d s (q - 32), s per 16 columns
#pragma once

#include <stdint.h>

namespace bise {

constexpr int kTileRows = 16;
constexpr int kBlock = 32;
constexpr int kMaxTokens = 32;  // of one call of a product

enum class FloatCodes : uint8_t { f32, f16, bf16, e4m3 };
enum class IntCodes : uint8_t { q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k };

// One row of activations in 8 bits: x = scale * q, in blocks of 32.
struct QuantizedRow {
  const int8_t* codes;   // [columns]
  const float* scales;   // [columns / 32]
  const int32_t* sums;   // [columns / 32][2]: sums of the codes of each half block
  const float* scaled_sums;  // [columns / 32]: scale times the sum of the codes
};

enum class KernelActivation : uint8_t { silu, gelu_erf, gelu_tanh };
// float_fma: products and sums of float32. int8_dot: of bytes, summed in 32 bits.
enum class PeakUnit : uint8_t { float_fma, int8_dot };
enum class KernelKv : uint8_t { bf16, f16, f32 };

// One query head against one block of keys and values.
struct AttendBlock {
  const float* q;       // [padded], scaled
  const float* k;       // [tokens][padded]
  const float* v;
  int32_t tokens;
  int32_t padded;       // head size rounded up to 16; the padding is zero
  float* out;           // [padded], running sum of exp(s - max) v
  float* running_max;
  float* running_sum;
};

struct CpuKernels {
  const char* name;

  // out[t * 16 + r] = sum over columns of tile row r times x row t. num_tokens in [1, kMaxTokens].
  void (*linear_float)(FloatCodes codes, const uint8_t* tile, int64_t columns, const float* x,
                       int64_t x_stride, int num_tokens, float* out);
  void (*linear_int)(IntCodes codes, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                     int num_tokens, float* out);
  float (*dot)(const float* a, const float* b, int64_t n);
  // columns is a multiple of 32. amax / 127 per block, round to nearest even. A block below 2^-119 is
  // zero; one with an infinity or a NaN has the scale NaN, and so has every result of its row.
  void (*quantize_row)(const float* x, int64_t columns, int8_t* codes, float* scales, int32_t* sums,
                       float* scaled_sums);
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*gated_activation)(KernelActivation act, const float* gate, const float* up, int64_t n,
                           float* out);
  // Rotates pairs (i, i + half) of one head in place, then multiplies by `factor`.
  void (*rope)(float* x, const float* cosine, const float* sine, int32_t half, float factor);
  void (*kv_to_f32)(KernelKv type, const void* from, int64_t n, float* to);
  void (*f32_to_kv)(KernelKv type, const float* from, int64_t n, void* to);
  void (*attend_block)(const AttendBlock& args);
  // Multiplies and adds in registers, `steps` times a fixed number that hides all latencies, and returns
  // the operations done (a product and its addition are two). `sink` [16] gives the numbers, small
  // and not zero, and takes the sums.
  double (*peak)(PeakUnit unit, int64_t steps, float* sink);
};

// Each is defined by its isa_*.cpp.
extern const CpuKernels kScalarKernels;
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;

}  // namespace bise
