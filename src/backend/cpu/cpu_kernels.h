// CpuKernels: one table of functions per instruction set, and the contract of each.
//
// Every output of a product is summed along the columns in one fixed order, whatever the number of
// tokens: a row of y depends on its row of x alone, bit for bit, and every table gives the same bits.
// (Panels have an arithmetic of their own, panel_kernels.h, and so has attention in few bits: `common` is the table without.)
#pragma once

#include <stdint.h>

#include "backend/cpu/kv_layout.h"
#include "backend/cpu/run_layout.h"
#include "backend/cpu/tile_layout.h"
#include "backend/logit_math.h"

namespace bise {

// The rows of x of one product with float tiles. Few stand as they are, row t at x + t * stride; more by columns,
// [columns][num_tokens], so that a product with a tile reads them from end to end.
struct FloatInputs {
  const float* x;
  int num_tokens;  // in [1, kMaxTokens]
  int64_t stride;
};
constexpr int kFewTokens = 2;

// One or two integer tiles, `stride` bytes apart (0 where there is one).
struct IntTiles {
  IntTile layout;
  int64_t columns;
  const uint8_t* data;
  int64_t stride;
  int count;
};
constexpr int kMostIntTiles = 2;

enum class KernelActivation : uint8_t { silu, gelu_erf, gelu_tanh };
// float_fma: products and sums of float32. int8_dot: of bytes, summed in 32 bits.
enum class PeakUnit : uint8_t { float_fma, int8_dot };

// Blocks of keys and values of one KV head, one after the other, against all queries that see their keys
// [first, end): steps of softmax(q K) V that never look back (Milakov and Gimelshein 2018). Scores are in powers of
// two: q comes times log2(e).
struct AttendBlocks {
  KernelKv type;
  int32_t head_dim;
  const uint8_t* k;          // of the cache: tiles and scales (kv_layout.h)
  const uint8_t* v;
  const int64_t* places;     // where in k and v the blocks begin, and behind the last what is read next
  int32_t num_blocks;
  int32_t first, end;        // 0 <= first < end <= 32, the same in each block
  int32_t num_queries;
  const float* q;            // [num_queries][padded], times the scale of the scores and log2(e); not read by integer types
  const int16_t* q_codes;    // integer types: the same in 16 bits, so small that a product fits 32; narrow_attention: in BF16, with
                             // room to read 16 rows at a time, or for int8 in bytes
  const float* q_scales;     // [num_queries]
  const int32_t* q_sums;     // [num_queries], of the codes, where they are bytes
  float* out;                // [num_queries][padded], running sum of 2^(s - max) v
  float* max;  // [num_queries], with room to read and write 16 at a time: of the scores so far; -3e38 before the first.
               // Of INT8 with narrow_attention, of scores plus about log2 of the scale of the value
  float* sums;               // [num_queries][16]: of 2^(s - max), in lanes
  float* scores;             // scratch: [n16][32], n16 = num_queries rounded up to 16
  float* corrections;        // scratch: [n16]
  int16_t* p_codes;          // scratch of integer types and of narrow_attention: [n16][32], or as many bytes
  float* p_scales;           // scratch of integer types: [n16]
  float* tile;               // scratch: [max(padded, 32)][16]
  int16_t* wide;             // scratch: twice as many
};

struct PanelKernels;

struct CpuKernels {
  const char* name;

  // out[t * 16 + r] = sum over columns of tile row r times x row t. num_tokens in [1, kMaxTokens].
  // Block scales in e4m3 count for 2^-8 of their value; the factors of the rows make up for it.
  void (*linear_float)(const FloatTile& layout, const uint8_t* tile, int64_t columns, FloatInputs x, float* out);
  // The same with x in 8 bits (run_layout.h): out[(j * num_tokens + t) * 16 + r] of tile j. `out` has room for kMostIntTiles, whatever
  // their count.
  void (*linear_int)(const IntTiles& tiles, const uint8_t* x, int num_tokens, float* out);
  float (*dot)(const float* a, const float* b, int64_t n);
  // The rows of x, one behind the other, as the run (run_layout.h) that begins with token `first` of a batch of num_tokens.
  // columns is a multiple of 32. amax / 127 per block, round to nearest even. A block below 2^-119 is zero; one with an
  // infinity or a NaN has the scale NaN, and so has every result of its row.
  void (*quantize_run)(const float* x, int64_t columns, int first, int num_tokens, uint8_t* batch);
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*gated_activation)(KernelActivation act, const float* gate, const float* up, int64_t n,
                           float* out);
  // Rotates pairs (i, i + half) of one head in place, then multiplies by `factor`.
  void (*rope)(float* x, const float* cosine, const float* sine, int32_t half, float factor);
  void (*attend)(const AttendBlocks& args);
  LogitMath logits;
  // Multiplies and adds in registers, `steps` times a fixed number that hides all latencies, and returns
  // the operations done (a product and its addition are two). `sink` [16] gives the numbers, small
  // and not zero, and takes the sums.
  double (*peak)(PeakUnit unit, int64_t steps, float* sink);
  // Reads `bytes`, a multiple of 128, each line asked for `ahead` bytes before its turn (0: by the hardware alone), and returns
  // all bits that are set in any byte.
  uint8_t (*read_lines)(const uint8_t* data, int64_t bytes, int64_t ahead);
  // Products of several rows in BF16; null where there are none.
  const PanelKernels* panels = nullptr;
  // `attend` takes queries in BF16 for keys and values in BF16 and E4M3, in 8 bits for those in INT8.
  bool narrow_attention = false;
  // The table that has the bits of every other one, where this has panels or attention with bits of their own; else null.
  const CpuKernels* common = nullptr;
};
void attend_in_bf16(const AttendBlocks& args);  // isa_avx512_bf16.cpp
void attend_on_amx(const AttendBlocks& args);   // isa_amx.cpp

// Each is defined by its isa_*.cpp.
extern const CpuKernels kScalarKernels;
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
// kAvx512Kernels with panels; in isa_avx512.cpp.
extern const CpuKernels kAvx512Bf16Kernels;
extern const CpuKernels kAmxKernels;

}  // namespace bise
