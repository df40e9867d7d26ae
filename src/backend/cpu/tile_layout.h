// The layouts of packed weights: what the product kernels read and packing writes. Plain numbers
// only, for files that are compiled for one instruction set.
//
// A weight is cut into tiles of 16 rows, so that the lanes of a vector belong to different outputs
// and sums hardly ever run across lanes.
//
// Float tile: two columns at a time (an odd last column is joined by zeros). Of row r and column j,
//   F32, F16   are element 16 j + r
//   BF16       element 2 r + j: a pair for every row, the order that AMX wants
//   E4M3       element 2 r' + j, r' = r with rows 4 to 7 and 8 to 11 exchanged: where the in-lane
//              interleaving of AVX2 puts them
// With a scale per group of columns, scale[16] stands in front of each group.
//
// Integer tile: groups of blocks of 32 columns. In front of each group stands its header:
//   scale[16]     of type `scale`
//   minimum[16]   value: of the same type · zero_point: u8
// and each block is
//   block scales  u8_min       s u8[16] · m u8[16]
//                 i8           s i8[16]
//                 i8_halves    s i8[2][16]              for 16 columns each
//                 u4_halves    (s | m << 4) u8[2][16]
//                 e4m3_halves  s e4m3[2][16]
//   high bits and codes. A quad is 4 columns; 64 bytes hold a quad of the 16 rows: byte 4 r + j is
//   row r, column j of the quad. Of a block of 8 quads,
//     4 bits     256 bytes: low nibbles of run g are quad g, high nibbles quad g + 4
//     2 bits     128 bytes: bits 2 h of run g are quad g + 2 h
//     8 bits     512 bytes: run g is quad g
//     3 bits      64 bytes of high bits (bit g of a byte is bit 2 of the code in quad g), then 2 bits
//     5 bits      64 bytes of high bits (bit g is bit 4), then 4 bits
//     6 bits     128 bytes of high bits (bits 2 (g % 4) of run g / 4 are bits 4 and 5), then 4 bits
//
// With c the code (or what the code table gives), less the offset:
//   none: w = d c + m (m: the minimum, or -d * zero point) · u8_min: w = d s c - dmin m
//   i8, i8_halves: w = d s c · u4_halves: w = d s c - dmin m · e4m3_halves: w = s c
// and a factor per row may multiply it all.
#pragma once

#include <stdint.h>

// A function of this file is inlined always: one that is not is a symbol that the linker may take from the object
// of any instruction set, for the whole program (scripts/check_isa_symbols.sh).
#define BISE_LAYOUT [[gnu::always_inline]] constexpr

namespace bise {

constexpr int kTileRows = 16;
constexpr int kBlock = 32;
constexpr int kMaxTokens = 32;  // of one call of a product

enum class TileScale : uint8_t { none, f16, bf16, f32, e8m0 };
BISE_LAYOUT int scale_bytes(TileScale type) {
  return type == TileScale::none ? 0 : type == TileScale::f32 ? 4 : type == TileScale::e8m0 ? 1 : 2;
}

enum class FloatCodes : uint8_t { f32, f16, bf16, e4m3 };
BISE_LAYOUT int code_bytes(FloatCodes codes) {
  return codes == FloatCodes::f32 ? 4 : codes == FloatCodes::e4m3 ? 1 : 2;
}

struct FloatTile {
  FloatCodes codes = FloatCodes::f32;
  TileScale scale = TileScale::none;
  int64_t group_columns = 0;  // even; 0: no scales

  bool operator==(const FloatTile&) const = default;
};

enum class IntCodes : uint8_t {
  u2, u3, u4, u5, u6,
  s8,
  e2m1,  // four bits: twice the value, plus 12
  iq4,   // four bits: the signed values of ggml's IQ4 table
};
enum class BlockScales : uint8_t { none, u8_min, i8, i8_halves, u4_halves, e4m3_halves };
enum class Minimum : uint8_t { none, value, zero_point };

struct IntTile {
  IntCodes codes = IntCodes::u4;
  BlockScales block_scales = BlockScales::none;
  TileScale scale = TileScale::f16;
  Minimum minimum = Minimum::none;
  int32_t offset = 0;        // what is subtracted from every code
  int64_t group_blocks = 1;  // blocks behind one header

  bool operator==(const IntTile&) const = default;
};

BISE_LAYOUT int low_bits(IntCodes codes) {
  return codes == IntCodes::s8 ? 8 : codes == IntCodes::u2 || codes == IntCodes::u3 ? 2 : 4;
}
BISE_LAYOUT int high_bits(IntCodes codes) {
  return codes == IntCodes::u3 || codes == IntCodes::u5 ? 1 : codes == IntCodes::u6 ? 2 : 0;
}
// The largest value of an unsigned code.
BISE_LAYOUT int largest_code(IntCodes codes) {
  return codes == IntCodes::e2m1 ? 24 : (1 << (low_bits(codes) + high_bits(codes))) - 1;
}
BISE_LAYOUT int high_bytes(IntCodes codes) { return 64 * high_bits(codes); }
BISE_LAYOUT int low_bytes(IntCodes codes) { return 64 * low_bits(codes); }
BISE_LAYOUT int block_scale_bytes(BlockScales s) {
  return s == BlockScales::none ? 0 : s == BlockScales::i8 ? 16 : 32;
}
BISE_LAYOUT int block_bytes(IntCodes codes, BlockScales s) {
  return block_scale_bytes(s) + high_bytes(codes) + low_bytes(codes);
}
BISE_LAYOUT int header_bytes(const IntTile& t) {
  const int scales = kTileRows * scale_bytes(t.scale);
  return scales + (t.minimum == Minimum::value        ? scales
                   : t.minimum == Minimum::zero_point ? kTileRows
                                                      : 0);
}
// What the codes of the table formats stand for: of e2m1 twice the value plus 12.
alignas(16) constexpr uint8_t kE2m1Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
alignas(16) constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Where block `block` starts in a tile; the header of its group comes before the group's first block.
BISE_LAYOUT int64_t block_start(const IntTile& t, int64_t block) {
  return (block / t.group_blocks + 1) * header_bytes(t) + block * block_bytes(t.codes, t.block_scales);
}
BISE_LAYOUT int64_t header_start(const IntTile& t, int64_t block) {
  const int64_t first = block / t.group_blocks * t.group_blocks;
  return block_start(t, first) - header_bytes(t);
}
BISE_LAYOUT int64_t tile_bytes(const IntTile& t, int64_t columns) {
  const int64_t blocks = columns / kBlock, groups = (blocks + t.group_blocks - 1) / t.group_blocks;
  return groups * header_bytes(t) + blocks * block_bytes(t.codes, t.block_scales);
}
BISE_LAYOUT int64_t tile_bytes(const FloatTile& t, int64_t columns) {
  const int64_t groups = t.group_columns == 0 ? 0 : (columns + t.group_columns - 1) / t.group_columns;
  return groups * kTileRows * scale_bytes(t.scale) + (columns + columns % 2) * kTileRows * code_bytes(t.codes);
}
// The element of row `lane`, column `column` among its two columns.
BISE_LAYOUT int element_of(FloatCodes codes, int lane, int64_t column) {
  const int j = static_cast<int>(column % 2);
  switch (codes) {
    case FloatCodes::bf16: return 2 * lane + j;
    case FloatCodes::e4m3: return 2 * (lane / 4 == 1 ? lane + 4 : lane / 4 == 2 ? lane - 4 : lane) + j;
    default: return kTileRows * j + lane;
  }
}
// Where the two columns that hold `column` start.
BISE_LAYOUT int64_t column_start(const FloatTile& t, int64_t column) {
  const int64_t headers = t.group_columns == 0 ? 0 : column / t.group_columns + 1;
  return headers * kTileRows * scale_bytes(t.scale) + column / 2 * 2 * kTileRows * code_bytes(t.codes);
}

}  // namespace bise

#undef BISE_LAYOUT
