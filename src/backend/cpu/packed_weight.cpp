#include "backend/cpu/packed_weight.h"

#include <cstring>

#include "base/float_types.h"
#include "tensor/decoders.h"
#include "tensor/group_codes.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

struct Placed {
  const WeightView* view;
  int64_t row;  // in the view
};

// The view and the row in it of row `row` of a segment.
Placed find_row(const WeightSegment& segment, int64_t row) {
  for (const WeightView& view : segment.views) {
    if (row < view.rows) return {&view, row};
    row -= view.rows;
  }
  CHECK(false);
}

int element_bytes(FloatCodes codes) {
  return codes == FloatCodes::f32 ? 4 : codes == FloatCodes::e4m3 ? 1 : 2;
}

const uint8_t* stored_bytes(const Placed& p) {
  return row_bytes(*p.view, weight_format(p.view->format), p.row, 0);
}

// Layout of one block of 32 columns of an integer tile, in bytes from the block's start.
struct BlockLayout {
  bool super;          // d and dmin stand in front of eight blocks
  bool has_min;
  int bits;            // 4, 5, 6 or 8
  int scale_bytes, high_bytes, block_bytes, super_bytes;
};
BlockLayout block_layout(IntCodes codes) {
  switch (codes) {
    case IntCodes::q4_0: return {false, false, 4, 32, 0, 288, 0};
    case IntCodes::q4_1: return {false, true, 4, 64, 0, 320, 0};
    case IntCodes::q5_0: return {false, false, 5, 32, 64, 352, 0};
    case IntCodes::q5_1: return {false, true, 5, 64, 64, 384, 0};
    case IntCodes::q8_0: return {false, false, 8, 32, 0, 544, 0};
    case IntCodes::q4_k: return {true, true, 4, 32, 0, 288, 64};
    case IntCodes::q5_k: return {true, true, 5, 32, 64, 352, 64};
    case IntCodes::q6_k: break;
  }
  return {true, false, 6, 32, 128, 416, 32};
}

uint8_t* block_at(const BlockLayout& layout, uint8_t* tile, int64_t block) {
  int64_t supers = layout.super ? block / 8 + 1 : 0;
  return tile + supers * layout.super_bytes + block * layout.block_bytes;
}

// What a block of one row holds in its file: unsigned codes (int8 bytes for Q8_0) and scales.
struct RowBlock {
  uint8_t codes[32];
  uint16_t d = 0, m = 0;         // f16 bits: of the block, or of its super-block
  uint8_t scale[2] = {0, 0};     // K-quants: scale and minimum, or Q6_K's two scales
};

uint8_t five_bits(const uint8_t* nibbles, uint32_t high, int j) {
  int low = j < 16 ? nibbles[j] & 15 : nibbles[j - 16] >> 4;
  return static_cast<uint8_t>(low | static_cast<int>((high >> j) & 1u) << 4);
}

void read_k_scales(const uint8_t* q, int j, RowBlock* out) {
  if (j < 4) {
    out->scale[0] = q[j] & 63;
    out->scale[1] = q[j + 4] & 63;
  } else {
    out->scale[0] = static_cast<uint8_t>((q[j + 4] & 15) | (q[j - 4] >> 6) << 4);
    out->scale[1] = static_cast<uint8_t>((q[j + 4] >> 4) | (q[j] >> 6) << 4);
  }
}

RowBlock read_block(IntCodes codes, const uint8_t* row, int64_t block) {
  RowBlock out;
  const int64_t within = block % 8;
  const uint8_t* p = row;
  switch (codes) {
    case IntCodes::q4_0:
    case IntCodes::q4_1: {
      bool min = codes == IntCodes::q4_1;
      p += block * (min ? 20 : 18);
      out.d = load_le<uint16_t>(p);
      if (min) out.m = load_le<uint16_t>(p + 2);
      for (int j = 0; j < 32; ++j) out.codes[j] = five_bits(p + (min ? 4 : 2), 0, j);
      break;
    }
    case IntCodes::q5_0:
    case IntCodes::q5_1: {
      bool min = codes == IntCodes::q5_1;
      p += block * (min ? 24 : 22);
      out.d = load_le<uint16_t>(p);
      if (min) out.m = load_le<uint16_t>(p + 2);
      uint32_t high = load_le<uint32_t>(p + (min ? 4 : 2));
      for (int j = 0; j < 32; ++j) out.codes[j] = five_bits(p + (min ? 8 : 6), high, j);
      break;
    }
    case IntCodes::q8_0:
      p += block * 34;
      out.d = load_le<uint16_t>(p);
      std::memcpy(out.codes, p + 2, 32);
      break;
    case IntCodes::q4_k:
    case IntCodes::q5_k: {
      bool five = codes == IntCodes::q5_k;
      p += block / 8 * (five ? 176 : 144);
      out.d = load_le<uint16_t>(p);
      out.m = load_le<uint16_t>(p + 2);
      read_k_scales(p + 4, static_cast<int>(within), &out);
      const uint8_t* qs = p + (five ? 48 : 16) + within / 2 * 32;
      for (int j = 0; j < 32; ++j) {
        int low = within % 2 == 0 ? qs[j] & 15 : qs[j] >> 4;
        int high = five ? (p[16 + j] >> within) & 1 : 0;
        out.codes[j] = static_cast<uint8_t>(low | high << 4);
      }
      break;
    }
    case IntCodes::q6_k: {
      p += block / 8 * 210;
      out.d = load_le<uint16_t>(p + 208);
      out.scale[0] = p[192 + 2 * within];
      out.scale[1] = p[193 + 2 * within];
      const int64_t half = within / 4, part = within % 4;
      const uint8_t* ql = p + 64 * half + 32 * (part % 2);
      const uint8_t* qh = p + 128 + 32 * half;
      for (int j = 0; j < 32; ++j) {
        int low = part < 2 ? ql[j] & 15 : ql[j] >> 4;
        out.codes[j] = static_cast<uint8_t>(low | ((qh[j] >> (2 * part)) & 3) << 4);
      }
      break;
    }
  }
  return out;
}

void put_f16(uint8_t* p, int lane, uint16_t bits) { std::memcpy(p + 2 * lane, &bits, 2); }

// Adds one row's block to the tile: every byte belongs to one row, so `|=` into zeros.
void write_block(const BlockLayout& layout, const RowBlock& in, int lane, int64_t block,
                 uint8_t* tile) {
  uint8_t* p = block_at(layout, tile, block);
  if (layout.super) {
    uint8_t* super = p - (block % 8) * layout.block_bytes - layout.super_bytes;
    put_f16(super, lane, in.d);
    if (layout.has_min) put_f16(super + 32, lane, in.m);
    p[lane] = in.scale[0];
    p[16 + lane] = in.scale[1];
  } else {
    put_f16(p, lane, in.d);
    if (layout.has_min) put_f16(p + 32, lane, in.m);
  }
  uint8_t* high = p + layout.scale_bytes;
  uint8_t* codes = high + layout.high_bytes;
  for (int j = 0; j < 32; ++j) {
    const int quad = j / 4, at = 4 * lane + j % 4;
    const int code = in.codes[j];
    auto put = [](uint8_t* byte, int value) { *byte = static_cast<uint8_t>(*byte | value); };
    if (layout.bits == 8) {
      codes[64 * quad + at] = in.codes[j];
      continue;
    }
    put(&codes[64 * (quad % 4) + at], quad < 4 ? code & 15 : (code & 15) << 4);
    if (layout.bits == 5) put(&high[at], (code >> 4) << quad);
    if (layout.bits == 6) put(&high[64 * (quad / 4) + at], (code >> 4) << (2 * (quad % 4)));
  }
}

// The inverse of write_block for the codes, and the weights by the decoders' own float steps.
void decode_tile_block(const BlockLayout& layout, IntCodes codes, const uint8_t* tile, int lane,
                       int64_t block, float* out) {
  const uint8_t* p = block_at(layout, const_cast<uint8_t*>(tile), block);
  const uint8_t* super = layout.super ? p - (block % 8) * layout.block_bytes - layout.super_bytes : p;
  float d = f16_to_f32(load_le<uint16_t>(super + 2 * lane));
  float m = layout.has_min ? f16_to_f32(load_le<uint16_t>(super + 32 + 2 * lane)) : 0.0f;
  const uint8_t* high = p + layout.scale_bytes;
  const uint8_t* nibbles = high + layout.high_bytes;
  for (int j = 0; j < 32; ++j) {
    const int quad = j / 4, at = 4 * lane + j % 4;
    if (layout.bits == 8) {
      out[j] = static_cast<float>(static_cast<int8_t>(nibbles[64 * quad + at])) * d;
      continue;
    }
    int code = nibbles[64 * (quad % 4) + at];
    code = quad < 4 ? code & 15 : code >> 4;
    if (layout.bits == 5) code |= ((high[at] >> quad) & 1) << 4;
    if (layout.bits == 6) code |= ((high[64 * (quad / 4) + at] >> (2 * (quad % 4))) & 3) << 4;
    switch (codes) {
      case IntCodes::q4_0: out[j] = static_cast<float>(code - 8) * d; break;
      case IntCodes::q5_0: out[j] = static_cast<float>(code - 16) * d; break;
      case IntCodes::q4_1:
      case IntCodes::q5_1: out[j] = static_cast<float>(code) * d + m; break;
      case IntCodes::q4_k:
      case IntCodes::q5_k:
        out[j] = d * static_cast<float>(p[lane]) * static_cast<float>(code) -
                 m * static_cast<float>(p[16 + lane]);
        break;
      case IntCodes::q6_k:
        out[j] = d * static_cast<float>(static_cast<int8_t>(p[16 * (j / 16) + lane])) *
                 static_cast<float>(code - 32);
        break;
      case IntCodes::q8_0: break;
    }
  }
}

bool is_e4m3_nan(uint8_t code) { return (code & 0x7F) == 0x7F; }

Error not_a_number(const Placed& placed, int64_t column) {
  return Error(ErrorCode::corrupt, "tensor " + placed.view->name + ": the FP8 code at row " +
                                       std::to_string(placed.row) + ", column " +
                                       std::to_string(column) + " is not a number");
}

Result<void> pack_float_row(const WeightSegment& s, const Placed& placed, int64_t columns, int lane,
                            uint8_t* out) {
  const int width = element_bytes(s.tiles->float_codes);
  const uint8_t* from = stored_bytes(placed);
  for (int64_t k = 0; k < columns; ++k) {
    if (s.tiles->float_codes == FloatCodes::e4m3 && is_e4m3_nan(from[k])) return not_a_number(placed, k);
    std::memcpy(out + (k * kTileRows + lane) * width, from + k * width, static_cast<size_t>(width));
  }
  return {};
}

bool same_segment(const WeightSegment& segment, const WeightView& view,
                  const std::optional<TileFormat>& tiles) {
  if (segment.activation_scale != view.activation_scale) return false;
  if (!tiles || !segment.tiles) return !tiles && !segment.tiles;
  return tiles->integer == segment.tiles->integer && tiles->float_codes == segment.tiles->float_codes &&
         tiles->int_codes == segment.tiles->int_codes;
}

}  // namespace

std::optional<TileFormat> tile_format_of(const WeightView& w) {
  auto of_float = [](FloatCodes codes) { return TileFormat{false, codes, IntCodes::q4_0}; };
  auto of_int = [](IntCodes codes) { return TileFormat{true, FloatCodes::f32, codes}; };
  switch (w.format) {
    case FormatId::f32: return of_float(FloatCodes::f32);
    case FormatId::f16: return of_float(FloatCodes::f16);
    case FormatId::bf16: return of_float(FloatCodes::bf16);
    case FormatId::fp8_e4m3:
      // A scale per block of columns would have to be applied inside the sum.
      if (w.scale_block_rows != 0) return std::nullopt;
      return of_float(FloatCodes::e4m3);
    case FormatId::q4_0: return of_int(IntCodes::q4_0);
    case FormatId::q4_1: return of_int(IntCodes::q4_1);
    case FormatId::q5_0: return of_int(IntCodes::q5_0);
    case FormatId::q5_1: return of_int(IntCodes::q5_1);
    case FormatId::q8_0: return of_int(IntCodes::q8_0);
    case FormatId::q4_k: return of_int(IntCodes::q4_k);
    case FormatId::q5_k: return of_int(IntCodes::q5_k);
    case FormatId::q6_k: return of_int(IntCodes::q6_k);
    default: return std::nullopt;
  }
}

uint64_t tile_bytes(const TileFormat& format, int64_t columns) {
  uint64_t k = static_cast<uint64_t>(columns);
  if (!format.integer) return k * kTileRows * static_cast<uint64_t>(element_bytes(format.float_codes));
  BlockLayout layout = block_layout(format.int_codes);
  uint64_t blocks = k / kBlock;
  return blocks * static_cast<uint64_t>(layout.block_bytes) +
         blocks / 8 * static_cast<uint64_t>(layout.super_bytes);
}

std::vector<WeightSegment> plan_segments(std::span<const WeightView> parts, bool tiled) {
  std::vector<WeightSegment> segments;
  int64_t row = 0;
  for (const WeightView& view : parts) {
    std::optional<TileFormat> tiles = tiled ? tile_format_of(view) : std::nullopt;
    if (segments.empty() || !same_segment(segments.back(), view, tiles)) {
      WeightSegment segment;
      segment.first_row = row;
      segment.activation_scale = view.activation_scale;
      segment.tiles = tiles;
      if (tiles) segment.tile_bytes = tile_bytes(*tiles, view.columns);
      segments.push_back(std::move(segment));
    }
    WeightSegment& segment = segments.back();
    segment.rows += view.rows;
    segment.views.push_back(view);
    if (tiles && !tiles->integer && tiles->float_codes == FloatCodes::e4m3) {
      for (int64_t r = 0; r < view.rows; ++r) segment.row_scales.push_back(fp8_scale(view, r, 0));
    }
    row += view.rows;
  }
  return segments;
}

Result<void> pack_tile(const WeightSegment& segment, int64_t columns, int64_t tile, uint8_t* out) {
  for (int lane = 0; lane < kTileRows; ++lane) {
    int64_t row = tile * kTileRows + lane;
    if (row >= segment.rows) break;  // the rest of the last tile stays zero
    Placed placed = find_row(segment, row);
    if (!segment.tiles->integer) {
      TRY(pack_float_row(segment, placed, columns, lane, out));
      continue;
    }
    const IntCodes codes = segment.tiles->int_codes;
    const BlockLayout layout = block_layout(codes);
    const uint8_t* from = stored_bytes(placed);
    for (int64_t b = 0; b < columns / kBlock; ++b) {
      write_block(layout, read_block(codes, from, b), lane, b, out);
    }
  }
  return {};
}

Result<void> check_stored_row(const WeightSegment& segment, int64_t row) {
  Placed placed = find_row(segment, row);
  return check_codes(*placed.view, placed.row);
}

void unpack_row(const PackedWeight& weight, int64_t row, std::span<float> out) {
  const WeightSegment* segment = &weight.segments.front();
  for (const WeightSegment& s : weight.segments) {
    if (row >= s.first_row) segment = &s;
  }
  const int64_t within = row - segment->first_row;
  if (!segment->tiles) {
    Placed placed = find_row(*segment, within);
    decode_row(*placed.view, placed.row, out);
    return;
  }
  const int lane = static_cast<int>(within % kTileRows);
  const uint8_t* tile = segment->data + static_cast<uint64_t>(within / kTileRows) * segment->tile_bytes;
  if (segment->tiles->integer) {
    const BlockLayout layout = block_layout(segment->tiles->int_codes);
    for (int64_t b = 0; b < weight.columns / kBlock; ++b) {
      decode_tile_block(layout, segment->tiles->int_codes, tile, lane, b, &out[static_cast<size_t>(b * kBlock)]);
    }
    return;
  }
  for (size_t k = 0; k < out.size(); ++k) {
    const uint8_t* p = tile + (k * kTileRows + static_cast<size_t>(lane)) *
                                  static_cast<size_t>(element_bytes(segment->tiles->float_codes));
    switch (segment->tiles->float_codes) {
      case FloatCodes::f32: out[k] = load_le<float>(p); break;
      case FloatCodes::f16: out[k] = f16_to_f32(load_le<uint16_t>(p)); break;
      case FloatCodes::bf16: out[k] = bf16_to_f32(load_le<uint16_t>(p)); break;
      case FloatCodes::e4m3:
        out[k] = e4m3_to_f32(*p) * segment->row_scales[static_cast<size_t>(within)];
        break;
    }
  }
}

}  // namespace bise
