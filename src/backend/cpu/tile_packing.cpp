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

// --- Tiles. Every word of four bytes belongs to one row. Rows are packed four at a time where four of
// one format lie side by side, so that vectors of 16 bytes are stored; a row alone goes word by word.

typedef uint32_t Word4 __attribute__((vector_size(16)));

template <int kLanes>
void put_words(uint8_t* p, const uint64_t* words) {
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t w = static_cast<uint32_t>(words[i]);
    std::memcpy(p + 4 * i, &w, 4);
  }
}
void store(uint8_t* p, Word4 v) { std::memcpy(p, &v, 16); }

// Of each row the two words of a into two neighbouring runs.
template <int kLanes>
inline void put_two_runs(uint8_t* p, const uint64_t* a) {
  if constexpr (kLanes == 4) {
    Word4 x, y;
    std::memcpy(&x, a, 16);
    std::memcpy(&y, a + 2, 16);
    store(p, __builtin_shufflevector(x, y, 0, 2, 4, 6));
    store(p + 64, __builtin_shufflevector(x, y, 1, 3, 5, 7));
  } else {
    const uint64_t upper = a[0] >> 32;
    put_words<1>(p, a);
    put_words<1>(p + 64, &upper);
  }
}

// 32 codes of each row into a block (behind its scales). A word of Codes holds quads 2 i and 2 i + 1.
template <IntCodes kCodes, int kLanes>
inline void squeeze(const Codes* c, int lane, uint8_t* block) {
  uint8_t* high = block + 4 * lane;
  uint8_t* low = high + high_bytes(kCodes);
  uint64_t x[kLanes], y[kLanes];
  if constexpr (low_bits(kCodes) == 8) {
    for (int i = 0; i < 4; ++i) {
      for (int r = 0; r < kLanes; ++r) x[r] = c[r].w[i];
      put_two_runs<kLanes>(low + 128 * i, x);
    }
  } else {
    constexpr uint64_t kLow = ((1u << low_bits(kCodes)) - 1) * kEach;
    for (int r = 0; r < kLanes; ++r) {
      x[r] = (c[r].w[0] & kLow) | (c[r].w[2] & kLow) << 4;
      y[r] = (c[r].w[1] & kLow) | (c[r].w[3] & kLow) << 4;
    }
    if constexpr (low_bits(kCodes) == 4) {
      put_two_runs<kLanes>(low, x);
      put_two_runs<kLanes>(low + 128, y);
    } else {
      for (int r = 0; r < kLanes; ++r) x[r] |= y[r] << 2;
      put_two_runs<kLanes>(low, x);
    }
  }
  constexpr int kShift = low_bits(kCodes);
  if constexpr (high_bits(kCodes) == 1) {
    for (int r = 0; r < kLanes; ++r) {
      uint64_t bits = 0;  // quads 0, 2, 4, 6 in the lower half, 1, 3, 5, 7 in the upper
      for (int i = 0; i < 4; ++i) bits |= ((c[r].w[i] >> kShift) & kEach) << (2 * i);
      x[r] = bits | bits >> 31;
    }
    put_words<kLanes>(high, x);
  }
  if constexpr (high_bits(kCodes) == 2) {
    for (int i = 0; i < 2; ++i) {
      for (int r = 0; r < kLanes; ++r) {
        const uint64_t bits = ((c[r].w[2 * i] >> kShift) & (3 * kEach)) | ((c[r].w[2 * i + 1] >> kShift) & (3 * kEach)) << 4;
        x[r] = bits | bits >> 30;
      }
      put_words<kLanes>(high + 64 * i, x);
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

// Blocks [first, end) of kLanes rows, the first in lane `lane`.
template <IntCodes kCodes, int kLanes, class Source>
void pack_blocks(const Source* sources, const IntTile& t, int64_t first, int64_t end, int lane, uint8_t* tile) {
  const int scale = scale_bytes(t.scale), minimum = t.minimum == Minimum::zero_point ? 1 : scale;
  const int scales = block_scale_bytes(t.block_scales), bytes = block_bytes(kCodes, t.block_scales);
  int64_t in_group = first % t.group_blocks;
  uint8_t* p = tile + block_start(t, first) - (in_group == 0 ? header_bytes(t) : 0);
  for (int64_t b = first; b < end; ++b, p += bytes) {
    if (in_group == 0) {
      for (int r = 0; r < kLanes; ++r) {
        sources[r].header(b, p + (lane + r) * scale);
        sources[r].minimum(b, p + kTileRows * scale + (lane + r) * minimum);
      }
      p += header_bytes(t);
    }
    if (++in_group == t.group_blocks) in_group = 0;
    Codes codes[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      sources[r].block_scales(b, p + lane + r);
      codes[r] = sources[r].codes(b);
    }
    squeeze<kCodes, kLanes>(codes, lane, p + scales);
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
    const int meant = t.codes == IntCodes::iq4 ? kIq4Values[stored] : t.codes == IntCodes::e2m1 ? kE2m1Codes[stored] : stored;
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

namespace {

// kLanes rows of one format.
template <int kLanes>
void pack_integer_rows(const PlacedRow* rows, const IntTile& t, int64_t first, int64_t end, int lane,
                       uint8_t* tile) {
  const FormatId id = rows[0].view->format;
  // Source: of a row of bytes.
  auto pack = [&]<IntCodes kCodes, class Source>() {
    Source sources[kLanes];
    for (int r = 0; r < kLanes; ++r) sources[r].row = row_bytes(*rows[r].view, weight_format(id), rows[r].row, 0);
    pack_blocks<kCodes, kLanes>(sources, t, first / kBlock, end / kBlock, lane, tile);
  };
  switch (id) {
    case FormatId::q4_0: return pack.template operator()<IntCodes::u4, NibbleSource<false, false>>();
    case FormatId::q4_1: return pack.template operator()<IntCodes::u4, NibbleSource<true, false>>();
    case FormatId::q5_0: return pack.template operator()<IntCodes::u5, NibbleSource<false, true>>();
    case FormatId::q5_1: return pack.template operator()<IntCodes::u5, NibbleSource<true, true>>();
    case FormatId::q8_0: return pack.template operator()<IntCodes::s8, Q8_0Source>();
    case FormatId::q2_k: return pack.template operator()<IntCodes::u2, Q2KSource>();
    case FormatId::q3_k: return pack.template operator()<IntCodes::u3, Q3KSource>();
    case FormatId::q4_k: return pack.template operator()<IntCodes::u4, Q45KSource<false>>();
    case FormatId::q5_k: return pack.template operator()<IntCodes::u5, Q45KSource<true>>();
    case FormatId::q6_k: return pack.template operator()<IntCodes::u6, Q6KSource>();
    case FormatId::iq4_nl: return pack.template operator()<IntCodes::iq4, NibbleSource<false, false>>();
    case FormatId::iq4_xs: return pack.template operator()<IntCodes::iq4, Iq4XsSource>();
    case FormatId::mxfp4_gguf: return pack.template operator()<IntCodes::e2m1, Mxfp4Source>();
    default: break;
  }
  auto pack_groups = [&]<IntCodes kCodes>() {
    GroupSource sources[kLanes];
    for (int r = 0; r < kLanes; ++r) sources[r] = GroupSource(*rows[r].view, rows[r].row, t);
    pack_blocks<kCodes, kLanes>(sources, t, first / kBlock, end / kBlock, lane, tile);
  };
  switch (t.codes) {
    case IntCodes::u2: return pack_groups.template operator()<IntCodes::u2>();
    case IntCodes::u3: return pack_groups.template operator()<IntCodes::u3>();
    case IntCodes::u4: return pack_groups.template operator()<IntCodes::u4>();
    case IntCodes::u5: return pack_groups.template operator()<IntCodes::u5>();
    case IntCodes::u6: return pack_groups.template operator()<IntCodes::u6>();
    case IntCodes::s8: return pack_groups.template operator()<IntCodes::s8>();
    case IntCodes::e2m1: return pack_groups.template operator()<IntCodes::e2m1>();
    case IntCodes::iq4: CHECK(false);
  }
}

}  // namespace

void pack_rows(std::span<const PlacedRow> rows, const TileFormat& format, int64_t first, int64_t end,
               uint8_t* tile) {
  constexpr int kTogether = 4;
  for (int lane = 0, next = 0; lane < static_cast<int>(rows.size()); lane = next) {
    const PlacedRow* row = &rows[static_cast<size_t>(lane)];
    next = lane + 1;
    if (!format.integer) {
      pack_float_row(*row->view, row->row, format.floats, first, end, lane, tile);
      continue;
    }
    // Vectors of four lanes: no other four will do.
    bool together = lane % kTogether == 0 && lane + kTogether <= static_cast<int>(rows.size());
    for (int r = 1; together && r < kTogether; ++r) together = row[r].view->format == row->view->format;
    if (together) {
      pack_integer_rows<kTogether>(row, format.ints, first, end, lane, tile);
      next = lane + kTogether;
    } else {
      pack_integer_rows<1>(row, format.ints, first, end, lane, tile);
    }
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
