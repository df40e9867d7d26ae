// What packing reads of a weight: the blocks of 32 columns of one row, out of every format's own order.
// Included by tile_packing.cpp only.
#pragma once

#include <cstring>

#include "backend/cpu/tile_layout.h"
#include "base/bytes.h"
#include "tensor/group_codes.h"

namespace bise::packing {

// A source reads the blocks of 32 columns of one row: `codes` as bytes, eight to a word,
// column 0 lowest; `block_scales` are the block's own; `header` and `minimum` those of the group that
// a block starts.

constexpr uint64_t kEach = 0x0101010101010101;  // times a byte: that byte in every byte
struct Codes {
  uint64_t w[4];
};

inline uint64_t word64(const uint8_t* p) {
  uint64_t w;
  std::memcpy(&w, p, 8);
  return w;
}
// (byte >> shift) & mask of 32 bytes. What crosses into a byte from above is masked away.
inline Codes bits_of(const uint8_t* p, int64_t shift, uint64_t mask) {
  Codes c;
  for (int i = 0; i < 4; ++i) c.w[i] = (word64(p + 8 * i) >> shift) & (mask * kEach);
  return c;
}
inline void add_high(Codes& c, const Codes& high, int to) {
  for (int i = 0; i < 4; ++i) c.w[i] |= high.w[i] << to;
}
// 16 bytes: low nibbles are columns 0 to 15, high nibbles 16 to 31.
inline Codes nibbles(const uint8_t* p) {
  const uint64_t a = word64(p), b = word64(p + 8), mask = 15 * kEach;
  return {{a & mask, b & mask, (a >> 4) & mask, (b >> 4) & mask}};
}
// Bit i of a byte to byte i: 0 or 1.
inline uint64_t spread_bits(uint64_t byte) {
  const uint64_t each = (byte * kEach) & 0x8040201008040201;
  return ((each + 0x7F7F7F7F7F7F7F7F) >> 7) & kEach;
}
inline void add_fifth_bits(const uint8_t* p, Codes& c) {
  for (int i = 0; i < 4; ++i) c.w[i] |= spread_bits(p[i]) << 4;
}

struct BlockSource {
  const uint8_t* row = nullptr;
  void minimum(int64_t, uint8_t*) const {}
  void block_scales(int64_t, uint8_t*) const {}
};

// Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL: d [· m] [· 32 fifth bits] · 16 bytes of nibbles.
template <bool kMin, bool kFive>
struct NibbleSource : BlockSource {
  static constexpr int kBytes = 2 + (kMin ? 2 : 0) + (kFive ? 4 : 0) + 16;
  const uint8_t* at(int64_t b) const { return row + b * kBytes; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b), 2); }
  void minimum(int64_t b, uint8_t* out) const {
    if constexpr (kMin) std::memcpy(out, at(b) + 2, 2);
  }
  Codes codes(int64_t b) const {
    const uint8_t* p = at(b) + (kMin ? 4 : 2);
    Codes c = nibbles(p + (kFive ? 4 : 0));
    if constexpr (kFive) add_fifth_bits(p, c);
    return c;
  }
};
struct Q8_0Source : BlockSource {
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, row + b * 34, 2); }
  Codes codes(int64_t b) const { return bits_of(row + b * 34 + 2, 0, 255); }
};
struct Mxfp4Source : BlockSource {
  void header(int64_t b, uint8_t* out) const { *out = row[b * 17]; }
  Codes codes(int64_t b) const { return nibbles(row + b * 17 + 1); }
};

// Two bits of each code of block `b` of a super-block: Q2_K and Q3_K.
inline Codes two_bits(const uint8_t* qs, int64_t b) { return bits_of(qs + 32 * (b / 4), 2 * (b % 4), 3); }
struct Q2KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 84; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 80, 2); }
  void minimum(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 82, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = at(b)[2 * (b % 8)];
    out[kTileRows] = at(b)[2 * (b % 8) + 1];
  }
  Codes codes(int64_t b) const { return two_bits(at(b) + 16, b % 8); }
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
  Codes codes(int64_t b) const {
    Codes c = two_bits(at(b) + 32, b % 8);
    add_high(c, bits_of(at(b), b % 8, 1), 2);
    return c;
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
  Codes codes(int64_t b) const {
    const int64_t j = b % 8;
    Codes c = bits_of(at(b) + (kFive ? 48 : 16) + j / 2 * 32, j % 2 * 4, 15);
    if constexpr (kFive) add_high(c, bits_of(at(b) + 16, j, 1), 4);
    return c;
  }
};
struct Q6KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 210; }
  void header(int64_t b, uint8_t* out) const { std::memcpy(out, at(b) + 208, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = at(b)[192 + 2 * (b % 8)];
    out[kTileRows] = at(b)[193 + 2 * (b % 8)];
  }
  Codes codes(int64_t b) const {
    const int64_t half = b % 8 / 4, part = b % 4;
    Codes c = bits_of(at(b) + 64 * half + 32 * (part % 2), part / 2 * 4, 15);
    add_high(c, bits_of(at(b) + 128 + 32 * half, 2 * part, 3), 4);
    return c;
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
  Codes codes(int64_t b) const { return nibbles(at(b) + 8 + b % 8 * 16); }
};

// --- Codes and scales in tensors of their own (group_codes.h). 32 codes are `bits` words.

template <int kBits>
inline Codes dense_codes(const uint8_t* words) {
  uint32_t w[kBits + 1];
  std::memcpy(w, words, 4 * kBits);
  w[kBits] = 0;
  Codes c{};
  for (int i = 0; i < kBlock; ++i) {
    const int at = i * kBits / 32, shift = i * kBits % 32;
    const uint64_t two = w[at] | uint64_t{w[at + 1]} << 32;
    c.w[i / 8] |= ((two >> shift) & ((1u << kBits) - 1)) << (8 * (i % 8));
  }
  return c;
}
template <>
inline Codes dense_codes<4>(const uint8_t* words) {
  Codes c;
  for (int i = 0; i < 4; ++i) {
    uint64_t x = load_le<uint32_t>(words + 4 * i);  // eight nibbles, moved apart
    x = (x | x << 16) & 0x0000FFFF0000FFFF;
    x = (x | x << 8) & 0x00FF00FF00FF00FF;
    c.w[i] = (x | x << 4) & (15 * kEach);
  }
  return c;
}
inline Codes dense_codes(int bits, const uint8_t* words) {
  switch (bits) {
    case 1: return dense_codes<1>(words);
    case 2: return dense_codes<2>(words);
    case 3: return dense_codes<3>(words);
    case 4: return dense_codes<4>(words);
    case 5: return dense_codes<5>(words);
    case 6: return dense_codes<6>(words);
    case 7: return dense_codes<7>(words);
    default: return bits_of(words, 0, 255);
  }
}

struct GroupSource {
  const WeightView* view = nullptr;
  int64_t row = 0;
  int scale_width = 0;
  const uint8_t* words = nullptr;  // of the row, `stride` bytes apart; null: read code by code
  int64_t stride = 4;
  int bits = 0;
  uint64_t sign = 0;  // what makes a stored code a signed byte

  GroupSource() = default;
  GroupSource(const WeightView& w, int64_t r, const IntTile& t)
      : view(&w), row(r), scale_width(scale_bytes(t.scale)), bits(w.bits) {
    const auto* codes = reinterpret_cast<const uint8_t*>(w.codes.data());
    const int64_t stored = w.stored_row(row);
    if (t.codes == IntCodes::s8) sign = uint64_t{1} << (bits - 1);
    if (code_kind(w) == CodeKind::e2m1) bits = 4;
    if (w.format == FormatId::gptq) {
      words = codes + 4 * stored;
      stride = 4 * w.rows;
    } else if (w.format != FormatId::awq && w.format != FormatId::nvfp4_gguf &&
               w.format != FormatId::int8_plain && w.codes_per_word == 0) {
      words = codes + stored * (w.columns * bits / 8);
    }
  }
  int64_t group(int64_t b) const { return b * kBlock / view->group; }
  void header(int64_t b, uint8_t* out) const {
    if (scale_width == 0) return;
    const uint32_t stored = scale_bits(*view, row, group(b));
    std::memcpy(out, &stored, static_cast<size_t>(scale_width));
  }
  void minimum(int64_t b, uint8_t* out) const {
    switch (zero_kind(*view)) {
      case ZeroKind::none: break;
      case ZeroKind::point: *out = static_cast<uint8_t>(zero_point(*view, row, group(b))); break;
      case ZeroKind::bias: {
        const uint32_t stored = bias_bits(*view, row, group(b));
        std::memcpy(out, &stored, static_cast<size_t>(scale_width));
      }
    }
  }
  void block_scales(int64_t b, uint8_t* out) const {
    if (scale_width != 0) return;  // NVFP4: two groups in a block
    out[0] = static_cast<uint8_t>(scale_bits(*view, row, 2 * b));
    out[kTileRows] = static_cast<uint8_t>(scale_bits(*view, row, 2 * b + 1));
  }
  Codes codes(int64_t b) const {
    Codes c;
    uint8_t bytes[kBlock];
    if (words == nullptr) {
      read_codes(*view, row, b * kBlock, kBlock, bytes);
      c = bits_of(bytes, 0, 255);
    } else if (stride == 4) {
      c = dense_codes(bits, words + b * bits * 4);
    } else {
      for (int i = 0; i < bits; ++i) std::memcpy(bytes + 4 * i, words + (b * bits + i) * stride, 4);
      c = dense_codes(bits, bytes);
    }
    if (sign == 0) return c;
    // Less 2^(bits - 1) in every byte: bit 7 keeps borrows from crossing.
    const uint64_t top = 128 * kEach;
    for (uint64_t& x : c.w) x = ((x | top) - sign * kEach) ^ (~x & top);
    return c;
  }
};

}  // namespace bise::packing
