// One weight of a tile (tile_layout.h draws them) as float32, by the reference decoders' own float steps. The plain
// way: for single rows, for what no kernel multiplies, and for a GPU, whose compiler takes these functions too.
#pragma once

#include "backend/cpu/tile_layout.h"
#include "base/float_types.h"

namespace bise {

constexpr uint16_t tile_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
constexpr float tile_f32(const uint8_t* p) {
  return std::bit_cast<float>(uint32_t{tile_u16(p)} | uint32_t{tile_u16(p + 2)} << 16);
}

constexpr float tile_scale(TileScale type, const uint8_t* scales, int lane) {
  switch (type) {
    case TileScale::f16: return f16_to_f32(tile_u16(scales + 2 * lane));
    case TileScale::bf16: return bf16_to_f32(tile_u16(scales + 2 * lane));
    case TileScale::f32: return tile_f32(scales + 4 * lane);
    case TileScale::e8m0: return e8m0_to_f32(scales[lane]);
    case TileScale::none: break;
  }
  return 1.0f;
}

// The code of column `j` of a block.
constexpr int tile_code(IntCodes codes, const uint8_t* block, int lane, int j) {
  const int q = j / 4, at = 4 * lane + j % 4;
  const uint8_t* low = block + high_bytes(codes);
  switch (low_bits(codes)) {
    case 8: return static_cast<int8_t>(low[64 * q + at]);
    case 2: {
      const int code = (low[64 * (q % 2) + at] >> (2 * (q / 2))) & 3;
      return codes == IntCodes::u3 ? code | ((block[at] >> q) & 1) << 2 : code;
    }
    default: break;
  }
  const int code = (low[64 * (q % 4) + at] >> (4 * (q / 4))) & 15;
  if (codes == IntCodes::u5) return code | ((block[at] >> q) & 1) << 4;
  if (codes == IntCodes::u6) return code | ((block[64 * (q / 4) + at] >> (2 * (q % 4))) & 3) << 4;
  return code;
}

// One lane of block `block` of a tile. `times`, `over`: the row's factor.
class IntBlock {
 public:
  constexpr IntBlock(const IntTile& tile, const uint8_t* data, int lane, int64_t block, float times, float over)
      : tile_(tile), block_(data + block_start(tile, block)), lane_(lane), times_(times), over_(over) {
    const uint8_t* header = data + header_start(tile, block);
    const uint8_t* minima = header + kTileRows * scale_bytes(tile.scale);
    scale_ = tile_scale(tile.scale, header, lane);
    if (tile.minimum == Minimum::value) minimum_ = tile_scale(tile.scale, minima, lane);
    zero_ = tile.offset + (tile.minimum == Minimum::zero_point ? minima[lane] : 0);
  }

  constexpr float weight(int j) const {
    const int stored = tile_code(tile_.codes, block_ + block_scale_bytes(tile_.block_scales), lane_, j);
    const int meant = tile_.codes == IntCodes::iq4    ? iq4_value(stored)
                      : tile_.codes == IntCodes::e2m1 ? e2m1_code(stored)
                                                      : stored;
    const float code = static_cast<float>(meant - zero_), d = scale_, m = minimum_;
    const uint8_t of_block = block_[lane_], half = block_[kTileRows * (j / 16) + lane_];
    switch (tile_.block_scales) {
      case BlockScales::none:
        return tile_.codes == IntCodes::e2m1     ? 0.5f * code * d
               : tile_.minimum == Minimum::value ? code * d + m
                                                 : code * d;
      case BlockScales::u8_min:
        return d * static_cast<float>(of_block) * code - m * static_cast<float>(block_[kTileRows + lane_]);
      case BlockScales::i8: return d * static_cast<float>(static_cast<int8_t>(of_block)) * code;
      case BlockScales::i8_halves: return d * static_cast<float>(static_cast<int8_t>(half)) * code;
      case BlockScales::u4_halves: return d * static_cast<float>(half & 15) * code - m * static_cast<float>(half >> 4);
      case BlockScales::e4m3_halves: break;
    }
    return 0.5f * code * (e4m3_to_f32(half) * (times_ * 0x1p-8f) / over_);
  }

 private:
  // kE2m1Codes and kIq4Values in words: a GPU's code does not see tables of the host's.
  static constexpr int byte_of(uint64_t low, uint64_t high, int i) {
    return static_cast<int>((i < 8 ? low : high) >> (8 * (i % 8)) & 0xFF);
  }
  static constexpr uint64_t word_of(const uint8_t* bytes) {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word |= uint64_t{bytes[i]} << (8 * i);
    return word;
  }
  static constexpr uint64_t word_of(const int8_t* bytes) {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    return word;
  }
  static constexpr int e2m1_code(int i) {
    constexpr uint64_t kLow = word_of(kE2m1Codes), kHigh = word_of(kE2m1Codes + 8);
    return byte_of(kLow, kHigh, i);
  }
  static constexpr int iq4_value(int i) {
    constexpr uint64_t kLow = word_of(kIq4Values), kHigh = word_of(kIq4Values + 8);
    return static_cast<int8_t>(byte_of(kLow, kHigh, i));
  }

  const IntTile& tile_;
  const uint8_t* block_;
  int lane_;
  float times_, over_;
  float scale_ = 1.0f, minimum_ = 0.0f;
  int zero_ = 0;
};

// `times`: the row's factor, which E4M3 without a scale per group of columns has.
constexpr float float_tile_weight(const FloatTile& t, const uint8_t* tile, int lane, int64_t column, float times) {
  const uint8_t* p = tile + column_start(t, column) + element_of(t.codes, lane, column) * code_bytes(t.codes);
  switch (t.codes) {
    case FloatCodes::f32: return tile_f32(p);
    case FloatCodes::f16: return f16_to_f32(tile_u16(p));
    case FloatCodes::bf16: return bf16_to_f32(tile_u16(p));
    case FloatCodes::e4m3: break;
  }
  float scale = times;
  if (t.group_columns != 0) {
    const int64_t first = column / t.group_columns * t.group_columns;
    scale = tile_scale(t.scale, tile + column_start(t, first) - kTileRows * scale_bytes(t.scale), lane);
  }
  return e4m3_to_f32(*p) * scale;
}

}  // namespace bise
