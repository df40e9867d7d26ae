// Packing: from rows as a file has them to the lanes of a tile (tile_layout.h draws both ends of it). Bytes only
// change places, so all tables give the same ones; plain numbers only, for files that are compiled for one
// instruction set.
#pragma once

#include <stdint.h>

#include "backend/cpu/tile_layout.h"

namespace bise {

// What stands in a row.
enum class PackSource : uint8_t {
  columns,  // float codes, one after the other
  // GGUF's blocks
  q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs, mxfp4, nvfp4,
  // Codes alone; scales and minima stand elsewhere.
  words,  // 32-bit words, least significant code first
  bytes,  // one code each
};

struct PackRow {
  const uint8_t* codes;   // of column 0; `bytes`: of the first column that is packed
  const uint8_t* scales;  // of group 0; a source with blocks of its own has none
  const uint8_t* minima;  // values: of group 0, as far apart as the scales · zero points: a byte for each group
                          // from that of the first column on
};

struct PackJob {
  PackSource source;
  FloatTile floats;  // of `columns`
  IntTile ints;      // of all others
  int64_t first, end;  // columns; first is a multiple of 256
  int32_t bits;         // of a code of `words`
  int64_t word_step;    // bytes from a word to the next of the same row
  int64_t scale_step;   // bytes from the scale of a group to that of the next
  uint8_t offset;       // what is subtracted from every code (mod 256)
  uint8_t* tile;
};

// Rows of one kind into lanes [lane, lane + count); count is 4, with lane a multiple of 4, or 1.
using PackRows = void (*)(const PackJob& job, const PackRow* rows, int lane, int count);

// Each is defined by its isa_pack_*.cpp. avx2: with BMI2.
void pack_rows_scalar(const PackJob& job, const PackRow* rows, int lane, int count);
void pack_rows_avx2(const PackJob& job, const PackRow* rows, int lane, int count);

}  // namespace bise
