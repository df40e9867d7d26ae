#include "backend/cpu/tile_packing.h"

#include <cstring>

#include "backend/cpu/tile_sources.h"
#include "base/float_types.h"
#include "tensor/decoders.h"
#include "tensor/group_codes.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

using namespace packing;

// --- Tiles. Every word of four bytes belongs to one row.

void put_word(uint8_t* p, uint64_t bits) {
  const uint32_t w = static_cast<uint32_t>(bits);
  std::memcpy(p, &w, 4);
}
// The two words of x into neighbouring runs.
void put_runs(uint8_t* p, uint64_t x) {
  put_word(p, x);
  put_word(p + 64, x >> 32);
}

// 32 codes of one row into a block (behind its scales). A word of Codes holds quads 2 i and 2 i + 1.
template <IntCodes kCodes>
inline void squeeze(const Codes& c, int lane, uint8_t* block) {
  uint8_t* high = block + 4 * lane;
  uint8_t* low = high + high_bytes(kCodes);
  if constexpr (low_bits(kCodes) == 8) {
    for (int i = 0; i < 4; ++i) put_runs(low + 128 * i, c.w[i]);
  } else {
    constexpr uint64_t kLow = ((1u << low_bits(kCodes)) - 1) * kEach;
    const uint64_t even = (c.w[0] & kLow) | (c.w[2] & kLow) << 4, odd = (c.w[1] & kLow) | (c.w[3] & kLow) << 4;
    if constexpr (low_bits(kCodes) == 4) {
      put_runs(low, even);
      put_runs(low + 128, odd);
    } else {
      put_runs(low, even | odd << 2);
    }
  }
  constexpr int kShift = low_bits(kCodes);
  if constexpr (high_bits(kCodes) == 1) {
    uint64_t bits = 0;  // quads 0, 2, 4, 6 in the lower half, 1, 3, 5, 7 in the upper
    for (int i = 0; i < 4; ++i) bits |= ((c.w[i] >> kShift) & kEach) << (2 * i);
    put_word(high, bits | bits >> 31);
  }
  if constexpr (high_bits(kCodes) == 2) {
    for (int i = 0; i < 2; ++i) {
      const uint64_t bits = ((c.w[2 * i] >> kShift) & (3 * kEach)) | ((c.w[2 * i + 1] >> kShift) & (3 * kEach)) << 4;
      put_word(high + 64 * i, bits | bits >> 30);
    }
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
    squeeze<kCodes>(source.codes(b), lane, block + block_scale_bytes(t.block_scales));
  }
}

template <FloatCodes kCodes>
void pack_columns(const uint8_t* row, const FloatTile& t, int64_t first, int64_t end, int lane, uint8_t* tile) {
  constexpr int kWidth = code_bytes(kCodes);
  constexpr bool kPairs = element_of(kCodes, 0, 1) == 1;
  const int even = element_of(kCodes, lane, 0) * kWidth, odd = element_of(kCodes, lane, 1) * kWidth;
  const int64_t group = t.group_columns == 0 ? end : t.group_columns;
  for (int64_t k = first; k < end;) {
    const int64_t stop = t.group_columns == 0 ? end : std::min(end, (k / group + 1) * group);
    uint8_t* out = tile + column_start(t, k);
    for (; k + 2 <= stop; k += 2, out += 2 * kTileRows * kWidth) {
      if constexpr (kPairs) {
        std::memcpy(out + even, row + k * kWidth, 2 * kWidth);
      } else {
        std::memcpy(out + even, row + k * kWidth, kWidth);
        std::memcpy(out + odd, row + (k + 1) * kWidth, kWidth);
      }
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
