#include "backend/cpu/tile_packing.h"

#include <cstring>

#include "base/float_types.h"
#include "tensor/decoders.h"
#include "tensor/group_codes.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

// --- Sources. A source reads the blocks of 32 columns of one row: `codes` are bytes as a tile has
// them before they are squeezed, `scales` are the block's own; `header` and `minimum` are those of
// the group that a block starts.

struct BlockSource {
  const uint8_t* row;
  void minimum(int64_t, uint8_t*) const {}
  void block_scales(int64_t, uint8_t*) const {}
};

inline void nibbles(const uint8_t* p, uint8_t* out) {
  for (int j = 0; j < 16; ++j) {
    out[j] = p[j] & 15;
    out[16 + j] = static_cast<uint8_t>(p[j] >> 4);
  }
}
inline void add_fifth_bits(const uint8_t* p, uint8_t* out) {
  const uint32_t high = load_le<uint32_t>(p);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<uint8_t>(out[j] | ((high >> j) & 1u) << 4);
}

// Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL: d [· m] [· 32 fifth bits] · 16 bytes of nibbles.
template <bool kMin, bool kFive>
struct NibbleSource : BlockSource {
  static constexpr int kBytes = 2 + (kMin ? 2 : 0) + (kFive ? 4 : 0) + 16;
  const uint8_t* at(int64_t b) const { return row + b * kBytes; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b), 2); }
  void minimum(int64_t b, uint8_t* out) const {
    if constexpr (kMin) std::memcpy(out, at(b) + 2, 2);
  }
  void codes(int64_t b, uint8_t* out) const {
    const uint8_t* p = at(b) + (kMin ? 4 : 2);
    nibbles(p + (kFive ? 4 : 0), out);
    if constexpr (kFive) add_fifth_bits(p, out);
  }
};
struct Q8_0Source : BlockSource {
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, row + b * 34, 2); }
  void codes(int64_t b, uint8_t* out) const { std::memcpy(out, row + b * 34 + 2, 32); }
};
struct Mxfp4Source : BlockSource {
  void header(int64_t b, uint8_t* out) const { *out = row[b * 17]; }
  void codes(int64_t b, uint8_t* out) const { nibbles(row + b * 17 + 1, out); }
};

// Two bits of each code of block `b` of a super-block: Q2_K and Q3_K.
inline void two_bits(const uint8_t* qs, int64_t b, uint8_t* out) {
  for (int j = 0; j < 32; ++j) out[j] = (qs[32 * (b / 4) + j] >> (2 * (b % 4))) & 3;
}
struct Q2KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 84; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 80, 2); }
  void minimum(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 82, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = at(b)[2 * (b % 8)];
    out[kTileRows] = at(b)[2 * (b % 8) + 1];
  }
  void codes(int64_t b, uint8_t* out) const { two_bits(at(b) + 16, b % 8, out); }
};
struct Q3KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 110; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 108, 2); }
  uint8_t scale(int64_t b, int64_t j) const {  // of 16 columns, less 32
    const uint8_t* s = at(b) + 96;
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    const int high = (s[8 + j % 4] >> (2 * (j / 4))) & 3;
    return static_cast<uint8_t>((low | high << 4) - 32);
  }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = scale(b, 2 * (b % 8));
    out[kTileRows] = scale(b, 2 * (b % 8) + 1);
  }
  void codes(int64_t b, uint8_t* out) const {
    two_bits(at(b) + 32, b % 8, out);
    for (int j = 0; j < 32; ++j) out[j] = static_cast<uint8_t>(out[j] | ((at(b)[j] >> (b % 8)) & 1) << 2);
  }
};
template <bool kFive>
struct Q45KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * (kFive ? 176 : 144); }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b), 2); }
  void minimum(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 2, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    const uint8_t* q = at(b) + 4;
    const int64_t j = b % 8;
    if (j < 4) {
      out[0] = q[j] & 63;
      out[kTileRows] = q[j + 4] & 63;
    } else {
      out[0] = static_cast<uint8_t>((q[j + 4] & 15) | (q[j - 4] >> 6) << 4);
      out[kTileRows] = static_cast<uint8_t>((q[j + 4] >> 4) | (q[j] >> 6) << 4);
    }
  }
  void codes(int64_t b, uint8_t* out) const {
    const int64_t j = b % 8;
    const uint8_t* qs = at(b) + (kFive ? 48 : 16) + j / 2 * 32;
    const int shift = j % 2 == 0 ? 0 : 4;
    for (int i = 0; i < 32; ++i) out[i] = (qs[i] >> shift) & 15;
    if constexpr (kFive) {
      const uint8_t* qh = at(b) + 16;
      for (int i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(out[i] | ((qh[i] >> j) & 1) << 4);
    }
  }
};
struct Q6KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 210; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 208, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = at(b)[192 + 2 * (b % 8)];
    out[kTileRows] = at(b)[193 + 2 * (b % 8)];
  }
  void codes(int64_t b, uint8_t* out) const {
    const int64_t half = b % 8 / 4, part = b % 4;
    const uint8_t* ql = at(b) + 64 * half + 32 * (part % 2);
    const uint8_t* qh = at(b) + 128 + 32 * half;
    const int low = part < 2 ? 0 : 4, high = static_cast<int>(2 * part);
    for (int j = 0; j < 32; ++j) {
      out[j] = static_cast<uint8_t>(((ql[j] >> low) & 15) | ((qh[j] >> high) & 3) << 4);
    }
  }
};
struct Iq4XsSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 136; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b), 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    const int64_t j = b % 8;
    const int low = (at(b)[4 + j / 2] >> (4 * (j % 2))) & 15;
    const int high = (load_le<uint16_t>(at(b) + 2) >> (2 * j)) & 3;
    *out = static_cast<uint8_t>((low | high << 4) - 32);
  }
  void codes(int64_t b, uint8_t* out) const { nibbles(at(b) + 8 + b % 8 * 16, out); }
};

// --- Codes and scales in tensors of their own (group_codes.h). 32 codes are `bits` words.

template <int kBits>
inline void dense_codes(const uint8_t* words, uint8_t* out) {
  uint32_t w[kBits + 1];
  std::memcpy(w, words, 4 * kBits);
  w[kBits] = 0;
  for (int i = 0; i < kBlock; ++i) {
    const int at = i * kBits / 32, shift = i * kBits % 32;
    const uint64_t two = w[at] | uint64_t{w[at + 1]} << 32;
    out[i] = static_cast<uint8_t>((two >> shift) & ((1u << kBits) - 1));
  }
}
template <>
inline void dense_codes<4>(const uint8_t* words, uint8_t* out) {
  for (int j = 0; j < 16; ++j) {
    out[2 * j] = words[j] & 15;
    out[2 * j + 1] = static_cast<uint8_t>(words[j] >> 4);
  }
}
void dense_codes(int bits, const uint8_t* words, uint8_t* out) {
  switch (bits) {
    case 1: return dense_codes<1>(words, out);
    case 2: return dense_codes<2>(words, out);
    case 3: return dense_codes<3>(words, out);
    case 4: return dense_codes<4>(words, out);
    case 5: return dense_codes<5>(words, out);
    case 6: return dense_codes<6>(words, out);
    case 7: return dense_codes<7>(words, out);
    default: std::memcpy(out, words, kBlock);
  }
}

struct GroupSource {
  const WeightView& w;
  int64_t row;
  int scale_width;
  const uint8_t* words = nullptr;  // of the row, `stride` bytes apart; null: read code by code
  int64_t stride = 4;
  int bits;
  int sign = 0;  // what makes a stored code a signed byte

  GroupSource(const WeightView& view, int64_t r, const IntTile& t)
      : w(view), row(r), scale_width(scale_bytes(t.scale)), bits(view.bits) {
    const auto* codes = reinterpret_cast<const uint8_t*>(w.codes.data());
    const int64_t stored = w.stored_row(row);
    if (t.codes == IntCodes::s8) sign = 1 << (bits - 1);
    if (code_kind(w) == CodeKind::e2m1) bits = 4;
    if (w.format == FormatId::gptq) {
      words = codes + 4 * stored;
      stride = 4 * w.rows;
    } else if (w.format != FormatId::awq && w.format != FormatId::nvfp4_gguf &&
               w.format != FormatId::int8_plain && w.codes_per_word == 0) {
      words = codes + stored * (w.columns * bits / 8);
    }
  }
  int64_t group(int64_t b) const { return b * kBlock / w.group; }
  void header(int64_t b, uint8_t* out) const {
    if (scale_width == 0) return;
    const uint32_t stored = scale_bits(w, row, group(b));
    std::memcpy(out, &stored, static_cast<size_t>(scale_width));
  }
  void minimum(int64_t b, uint8_t* out) const {
    switch (zero_kind(w)) {
      case ZeroKind::none: break;
      case ZeroKind::point: *out = static_cast<uint8_t>(zero_point(w, row, group(b))); break;
      case ZeroKind::bias: {
        const uint32_t stored = bias_bits(w, row, group(b));
        std::memcpy(out, &stored, static_cast<size_t>(scale_width));
      }
    }
  }
  void block_scales(int64_t b, uint8_t* out) const {
    if (scale_width != 0) return;  // NVFP4: two groups in a block
    out[0] = static_cast<uint8_t>(scale_bits(w, row, 2 * b));
    out[kTileRows] = static_cast<uint8_t>(scale_bits(w, row, 2 * b + 1));
  }
  void codes(int64_t b, uint8_t* out) const {
    if (words == nullptr) {
      read_codes(w, row, b * kBlock, kBlock, out);
    } else if (stride == 4) {
      dense_codes(bits, words + b * bits * 4, out);
    } else {
      uint8_t gathered[kBlock];
      for (int i = 0; i < bits; ++i) std::memcpy(gathered + 4 * i, words + (b * bits + i) * stride, 4);
      dense_codes(bits, gathered, out);
    }
    if (sign == 0) return;
    for (int j = 0; j < kBlock; ++j) out[j] = static_cast<uint8_t>(out[j] - sign);
  }
};

// --- Tiles.

uint32_t word(const uint8_t* p) {
  uint32_t w;
  std::memcpy(&w, p, 4);
  return w;
}
// `|=`: every bit of a tile belongs to one row, and it starts as zeros.
void add_word(uint8_t* p, uint32_t bits) {
  const uint32_t w = word(p) | bits;
  std::memcpy(p, &w, 4);
}

// 32 codes of one row into a block (behind its scales): four columns at a time.
template <IntCodes kCodes>
inline void squeeze(const uint8_t* codes, int lane, uint8_t* block) {
  constexpr uint32_t kOne = 0x01010101, kThree = 0x03030303, kNibble = 0x0F0F0F0F;
  uint8_t* high = block + 4 * lane;
  uint8_t* low = high + high_bytes(kCodes);
  for (int q = 0; q < 8; ++q) {
    const uint32_t c = word(codes + 4 * q);
    if constexpr (low_bits(kCodes) == 8) add_word(low + 64 * q, c);
    if constexpr (low_bits(kCodes) == 2) add_word(low + 64 * (q % 2), (c & kThree) << (2 * (q / 2)));
    if constexpr (low_bits(kCodes) == 4) add_word(low + 64 * (q % 4), (c & kNibble) << (4 * (q / 4)));
    if constexpr (kCodes == IntCodes::u3) add_word(high, ((c >> 2) & kOne) << q);
    if constexpr (kCodes == IntCodes::u5) add_word(high, ((c >> 4) & kOne) << q);
    if constexpr (kCodes == IntCodes::u6) add_word(high + 64 * (q / 4), ((c >> 4) & kThree) << (2 * (q % 4)));
  }
}
// The inverse: the code of column `j` of a block.
int code_at(IntCodes codes, const uint8_t* block, int lane, int j) {
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

template <IntCodes kCodes, class Source>
void pack_blocks(const Source& source, const IntTile& t, int64_t first, int64_t end, int lane, uint8_t* tile) {
  alignas(32) uint8_t codes[kBlock];
  const int scale = scale_bytes(t.scale), minimum = t.minimum == Minimum::zero_point ? 1 : scale;
  uint8_t* block = tile + block_start(t, first);
  for (int64_t b = first, next = 0; b < end; ++b, block += next) {
    if (b % t.group_blocks == 0) {
      uint8_t* header = tile + header_start(t, b);
      source.header(b, header + lane * scale);
      source.minimum(b, header + kTileRows * scale + lane * minimum);
    }
    next = block_start(t, b + 1) - block_start(t, b);
    source.block_scales(b, block + lane);
    source.codes(b, codes);
    squeeze<kCodes>(codes, lane, block + block_scale_bytes(t.block_scales));
  }
}

template <FloatCodes kCodes>
void pack_columns(const uint8_t* row, const FloatTile& t, int64_t first, int64_t end, int lane, uint8_t* tile) {
  constexpr int kWidth = code_bytes(kCodes);
  const int even = element_of(kCodes, lane, 0) * kWidth, odd = element_of(kCodes, lane, 1) * kWidth;
  const int64_t group = t.group_columns == 0 ? end : t.group_columns;
  for (int64_t k = first; k < end;) {
    const int64_t stop = t.group_columns == 0 ? end : std::min(end, (k / group + 1) * group);
    uint8_t* out = tile + column_start(t, k);
    for (; k + 2 <= stop; k += 2, out += 2 * kTileRows * kWidth) {
      std::memcpy(out + even, row + k * kWidth, kWidth);
      std::memcpy(out + odd, row + (k + 1) * kWidth, kWidth);
    }
    if (k < stop) std::memcpy(out + even, row + k++ * kWidth, kWidth);
  }
}

// The stored scale of a group of columns of a float format.
uint32_t float_scale_bits(const WeightView& w, int64_t row, int64_t group) {
  if (has_group_codes(w.format)) return scale_bits(w, row, group);
  const int64_t per_row = (w.columns + w.scale_block_columns - 1) / w.scale_block_columns;
  const int64_t index = w.stored_row(row) / w.scale_block_rows * per_row + group;
  const std::byte* p = w.scale.bytes.data() + index * dtype_bytes(w.scale.dtype);
  return w.scale.dtype == DType::f32 ? load_le<uint32_t>(p) : load_le<uint16_t>(p);
}

void pack_float_row(const WeightView& w, int64_t row, const FloatTile& t, int64_t first, int64_t end,
                    int lane, uint8_t* tile) {
  const uint8_t* from = reinterpret_cast<const uint8_t*>(w.codes.data()) +
                        w.stored_row(row) * w.columns * code_bytes(t.codes);
  switch (t.codes) {
    case FloatCodes::f32: pack_columns<FloatCodes::f32>(from, t, first, end, lane, tile); break;
    case FloatCodes::f16: pack_columns<FloatCodes::f16>(from, t, first, end, lane, tile); break;
    case FloatCodes::bf16: pack_columns<FloatCodes::bf16>(from, t, first, end, lane, tile); break;
    case FloatCodes::e4m3: pack_columns<FloatCodes::e4m3>(from, t, first, end, lane, tile); break;
  }
  if (t.group_columns == 0) return;
  const int64_t first_group = (first + t.group_columns - 1) / t.group_columns;
  for (int64_t g = first_group; g * t.group_columns < end; ++g) {
    const uint32_t bits = float_scale_bits(w, row, g);
    const int width = scale_bytes(t.scale);
    uint8_t* header = tile + column_start(t, g * t.group_columns) - kTileRows * width;
    std::memcpy(header + lane * width, &bits, static_cast<size_t>(width));
  }
}

// What the four-bit codes of the table formats stand for; twice the value plus 12 in FP4.
constexpr int8_t kE2m1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
constexpr int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

float scale_at(TileScale type, const uint8_t* scales, int lane) {
  switch (type) {
    case TileScale::f16: return f16_to_f32(load_le<uint16_t>(scales + 2 * lane));
    case TileScale::bf16: return bf16_to_f32(load_le<uint16_t>(scales + 2 * lane));
    case TileScale::f32: return load_le<float>(scales + 4 * lane);
    case TileScale::e8m0: return e8m0_to_f32(scales[lane]);
    case TileScale::none: break;
  }
  return 1.0f;
}

// The weights of one block by the decoders' own float steps.
void unpack_block(const IntTile& t, const uint8_t* tile, int lane, int64_t block, RowFactor factor, float* out) {
  const uint8_t* header = tile + header_start(t, block);
  const uint8_t* p = tile + block_start(t, block);
  const uint8_t* codes = p + block_scale_bytes(t.block_scales);
  const float d = scale_at(t.scale, header, lane);
  const uint8_t* minima = header + kTileRows * scale_bytes(t.scale);
  const float m = t.minimum == Minimum::value ? scale_at(t.scale, minima, lane) : 0.0f;
  const int zero = t.offset + (t.minimum == Minimum::zero_point ? minima[lane] : 0);
  for (int j = 0; j < kBlock; ++j) {
    const int stored = code_at(t.codes, codes, lane, j);
    const uint8_t half = p[kTileRows * (j / 16) + lane];
    const int meant = t.codes == IntCodes::iq4 ? kIq4[stored] : t.codes == IntCodes::e2m1 ? kE2m1[stored] : stored;
    const float code = static_cast<float>(meant - zero);
    switch (t.block_scales) {
      case BlockScales::none:
        out[j] = t.codes == IntCodes::e2m1 ? 0.5f * code * d : t.minimum == Minimum::value ? code * d + m : code * d;
        break;
      case BlockScales::u8_min:
        out[j] = d * static_cast<float>(p[lane]) * code - m * static_cast<float>(p[kTileRows + lane]);
        break;
      case BlockScales::i8: out[j] = d * static_cast<float>(static_cast<int8_t>(p[lane])) * code; break;
      case BlockScales::i8_halves: out[j] = d * static_cast<float>(static_cast<int8_t>(half)) * code; break;
      case BlockScales::u4_halves:
        out[j] = d * static_cast<float>(half & 15) * code - m * static_cast<float>(half >> 4);
        break;
      case BlockScales::e4m3_halves:
        out[j] = 0.5f * code * (e4m3_to_f32(half) * (factor.times * 0x1p-8f) / factor.over);
        break;
    }
  }
}

}  // namespace

uint64_t TileFormat::tile_bytes(int64_t columns) const {
  return static_cast<uint64_t>(integer ? bise::tile_bytes(ints, columns) : bise::tile_bytes(floats, columns));
}

namespace {

// Integer codes whose groups are whole blocks.
std::optional<TileFormat> tile_format_of_groups(const WeightView& w) {
  const bool row_scale = w.group >= w.columns;
  if (w.columns % kBlock != 0 || (!row_scale && w.group % kBlock != 0)) return std::nullopt;
  for (int64_t k = 0; !w.group_index.shape.empty() && k < w.columns; ++k) {
    if (group_of(w, k) != k / w.group) return std::nullopt;  // columns out of order
  }
  constexpr IntCodes kCodes[] = {IntCodes::u2, IntCodes::u2, IntCodes::u3, IntCodes::u4,
                                 IntCodes::u5, IntCodes::u6, IntCodes::s8, IntCodes::s8};
  IntTile t;
  t.codes = kCodes[w.bits - 1];
  const ScaleType scale = scale_type(w);
  t.scale = scale == ScaleType::f16 ? TileScale::f16 : scale == ScaleType::bf16 ? TileScale::bf16 : TileScale::f32;
  t.group_blocks = (row_scale ? w.columns : w.group) / kBlock;
  // Codes of signed bytes are stored 2^(bits - 1) below their value.
  const int32_t low = t.codes == IntCodes::s8 ? code_offset(w) : 0;
  switch (zero_kind(w)) {
    case ZeroKind::none: t.offset = code_offset(w) - low; break;
    case ZeroKind::point:
      t.minimum = Minimum::zero_point;
      t.offset = -low;
      break;
    case ZeroKind::bias:
      t.minimum = Minimum::value;
      t.offset = -low;
      break;
  }
  return TileFormat{true, {}, t};
}

}  // namespace

std::optional<TileFormat> tile_format_of(const WeightView& w) {
  using enum BlockScales;
  auto of_float = [](FloatCodes codes) { return TileFormat{false, {codes}, {}}; };
  auto of_int = [](IntTile tile) { return TileFormat{true, {}, tile}; };
  constexpr TileScale kF16 = TileScale::f16;
  constexpr Minimum kNone = Minimum::none, kValue = Minimum::value;
  switch (w.format) {
    case FormatId::f32: return of_float(FloatCodes::f32);
    case FormatId::f16: return of_float(FloatCodes::f16);
    case FormatId::bf16: return of_float(FloatCodes::bf16);
    case FormatId::fp8_e4m3: {
      TileFormat format = of_float(FloatCodes::e4m3);
      if (w.scale_block_rows == 0) return format;
      if (w.scale_block_columns % 2 != 0) return std::nullopt;
      format.floats.group_columns = w.scale_block_columns;
      format.floats.scale = w.scale.dtype == DType::bf16  ? TileScale::bf16
                            : w.scale.dtype == DType::f16 ? TileScale::f16
                                                          : TileScale::f32;
      return format;
    }
    case FormatId::q4_0: return of_int({IntCodes::u4, none, kF16, kNone, 8, 1});
    case FormatId::q4_1: return of_int({IntCodes::u4, none, kF16, kValue, 0, 1});
    case FormatId::q5_0: return of_int({IntCodes::u5, none, kF16, kNone, 16, 1});
    case FormatId::q5_1: return of_int({IntCodes::u5, none, kF16, kValue, 0, 1});
    case FormatId::q8_0: return of_int({IntCodes::s8, none, kF16, kNone, 0, 1});
    case FormatId::q2_k: return of_int({IntCodes::u2, u4_halves, kF16, kValue, 0, 8});
    case FormatId::q3_k: return of_int({IntCodes::u3, i8_halves, kF16, kNone, 4, 8});
    case FormatId::q4_k: return of_int({IntCodes::u4, u8_min, kF16, kValue, 0, 8});
    case FormatId::q5_k: return of_int({IntCodes::u5, u8_min, kF16, kValue, 0, 8});
    case FormatId::q6_k: return of_int({IntCodes::u6, i8_halves, kF16, kNone, 32, 8});
    case FormatId::iq4_nl: return of_int({IntCodes::iq4, none, kF16, kNone, 0, 1});
    case FormatId::iq4_xs: return of_int({IntCodes::iq4, i8, kF16, kNone, 0, 8});
    case FormatId::mxfp4_gguf: return of_int({IntCodes::e2m1, none, TileScale::e8m0, kNone, 12, 1});
    case FormatId::mxfp4:
      if (w.columns % kBlock != 0) return std::nullopt;
      return of_int({IntCodes::e2m1, none, TileScale::e8m0, kNone, 12, 1});
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf:
      if (w.columns % kBlock != 0) return std::nullopt;
      return of_int({IntCodes::e2m1, e4m3_halves, TileScale::none, kNone, 12, 1});
    case FormatId::mxfp8: return TileFormat{false, {FloatCodes::e4m3, TileScale::e8m0, w.group}, {}};
    case FormatId::int_packed:
    case FormatId::int8_plain:
    case FormatId::gptq:
    case FormatId::awq:
    case FormatId::mlx_affine: return tile_format_of_groups(w);
  }
  return std::nullopt;
}

// The kernels take e4m3 scales for 2^-8 of their value.
RowFactor row_factor(const WeightView& w, int64_t row) {
  switch (w.format) {
    case FormatId::fp8_e4m3: return {w.scale_block_rows == 0 ? fp8_scale(w, row, 0) : 1.0f, 1.0f};
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf:
      return w.global_divides ? RowFactor{256.0f, w.global_scale} : RowFactor{256.0f * w.global_scale, 1.0f};
    default: return {};
  }
}

void pack_row(const WeightView& w, int64_t row, const TileFormat& format, int64_t first, int64_t end,
              int lane, uint8_t* tile) {
  if (!format.integer) return pack_float_row(w, row, format.floats, first, end, lane, tile);
  const BlockSource at{has_group_codes(w.format) ? nullptr : row_bytes(w, weight_format(w.format), row, 0)};
  auto pack = [&]<IntCodes kCodes>(const auto& source) {
    pack_blocks<kCodes>(source, format.ints, first / kBlock, end / kBlock, lane, tile);
  };
  switch (w.format) {
    case FormatId::q4_0: return pack.template operator()<IntCodes::u4>(NibbleSource<false, false>{at});
    case FormatId::q4_1: return pack.template operator()<IntCodes::u4>(NibbleSource<true, false>{at});
    case FormatId::q5_0: return pack.template operator()<IntCodes::u5>(NibbleSource<false, true>{at});
    case FormatId::q5_1: return pack.template operator()<IntCodes::u5>(NibbleSource<true, true>{at});
    case FormatId::q8_0: return pack.template operator()<IntCodes::s8>(Q8_0Source{at});
    case FormatId::q2_k: return pack.template operator()<IntCodes::u2>(Q2KSource{at});
    case FormatId::q3_k: return pack.template operator()<IntCodes::u3>(Q3KSource{at});
    case FormatId::q4_k: return pack.template operator()<IntCodes::u4>(Q45KSource<false>{at});
    case FormatId::q5_k: return pack.template operator()<IntCodes::u5>(Q45KSource<true>{at});
    case FormatId::q6_k: return pack.template operator()<IntCodes::u6>(Q6KSource{at});
    case FormatId::iq4_nl: return pack.template operator()<IntCodes::iq4>(NibbleSource<false, false>{at});
    case FormatId::iq4_xs: return pack.template operator()<IntCodes::iq4>(Iq4XsSource{at});
    case FormatId::mxfp4_gguf: return pack.template operator()<IntCodes::e2m1>(Mxfp4Source{at});
    default: break;
  }
  const GroupSource groups(w, row, format.ints);
  switch (format.ints.codes) {
    case IntCodes::u2: return pack.template operator()<IntCodes::u2>(groups);
    case IntCodes::u3: return pack.template operator()<IntCodes::u3>(groups);
    case IntCodes::u4: return pack.template operator()<IntCodes::u4>(groups);
    case IntCodes::u5: return pack.template operator()<IntCodes::u5>(groups);
    case IntCodes::u6: return pack.template operator()<IntCodes::u6>(groups);
    case IntCodes::s8: return pack.template operator()<IntCodes::s8>(groups);
    case IntCodes::e2m1: return pack.template operator()<IntCodes::e2m1>(groups);
    case IntCodes::iq4: CHECK(false);
  }
}

void unpack_lane(const TileFormat& format, const uint8_t* tile, int lane, RowFactor factor, std::span<float> out) {
  if (format.integer) {
    for (size_t b = 0; b < out.size() / kBlock; ++b) {
      unpack_block(format.ints, tile, lane, static_cast<int64_t>(b), factor, &out[b * kBlock]);
    }
    return;
  }
  const FloatTile& t = format.floats;
  for (size_t k = 0; k < out.size(); ++k) {
    const int64_t column = static_cast<int64_t>(k);
    const uint8_t* p = tile + column_start(t, column) + element_of(t.codes, lane, column) * code_bytes(t.codes);
    switch (t.codes) {
      case FloatCodes::f32: out[k] = load_le<float>(p); break;
      case FloatCodes::f16: out[k] = f16_to_f32(load_le<uint16_t>(p)); break;
      case FloatCodes::bf16: out[k] = bf16_to_f32(load_le<uint16_t>(p)); break;
      case FloatCodes::e4m3: {
        float scale = factor.times;
        if (t.group_columns != 0) {
          const int64_t first = column / t.group_columns * t.group_columns;
          scale = scale_at(t.scale, tile + column_start(t, first) - kTileRows * scale_bytes(t.scale), lane);
        }
        out[k] = e4m3_to_f32(*p) * scale;
        break;
      }
    }
  }
}

}  // namespace bise
