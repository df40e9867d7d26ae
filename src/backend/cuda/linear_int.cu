#include "backend/cuda/linear.cuh"
#include "backend/cuda/linear_kernels.h"

namespace bise::gpu {
namespace {

// The codes of a unit for rows g and g + 8, as bytes: of quad t, then of quad t + 4.
template <IntCodes codes>
BISE_DEVICE void load_codes(const uint8_t* p, int g, int t, uint32_t (&c)[2][2]) {
  const uint8_t* low = p + high_bytes(codes) + 4 * g;
  if constexpr (low_bits(codes) == 8) {
    load_rows(low + 64 * t, t, c[0][0], c[0][1]);
    load_rows(low + 64 * (t + 4), t, c[1][0], c[1][1]);
  } else {
    uint32_t w[2];
    load_rows(low + 64 * (low_bits(codes) == 4 ? t : t % 2), t, w[0], w[1]);
    BISE_UNROLL
    for (int row = 0; row < 2; ++row) {
      if constexpr (low_bits(codes) == 2) w[row] >>= 2 * (t / 2);
      constexpr uint32_t kMask = low_bits(codes) == 4 ? 0x0F0F0F0Fu : 0x03030303u;
      c[0][row] = w[row] & kMask;
      c[1][row] = w[row] >> 4 & kMask;
    }
  }
  BISE_UNROLL
  for (int row = 0; row < 2; ++row) {
    const uint8_t* high = p + 4 * (g + 8 * row);
    if constexpr (high_bits(codes) == 1) {
      const uint32_t h = load_word(high);
      c[0][row] |= (h >> t & 0x01010101u) << low_bits(codes);
      c[1][row] |= (h >> (t + 4) & 0x01010101u) << low_bits(codes);
    } else if constexpr (high_bits(codes) == 2) {
      c[0][row] |= (load_word(high) >> (2 * t) & 0x03030303u) << 4;
      c[1][row] |= (load_word(high + 64) >> (2 * t) & 0x03030303u) << 4;
    }
  }
}

// A whole number of at most 256 as both halves of a pair of BF16.
BISE_DEVICE uint32_t whole_bf16x2(int value) {
  const uint32_t bits = float_to_bits(static_cast<float>(value));
  return (bits & 0xFFFF0000u) | bits >> 16;
}
// Table values of four codes 0 to 15 in bytes.
BISE_DEVICE uint32_t iq4_values(uint32_t codes) {
  constexpr uint32_t kTable[4] = {0xBFAD9881u, 0xF6EADDCFu, 0x26190D01u, 0x71594535u};  // kIq4Values
  uint32_t three = codes & 0x07070707u;
  three |= three >> 4;
  const uint32_t selector = (three & 0xFFu) | (three >> 8 & 0xFF00u);
  const uint32_t low = byte_permute(kTable[0], kTable[1], selector),
                 high = byte_permute(kTable[2], kTable[3], selector);
  const uint32_t is_high = (codes >> 3 & 0x01010101u) * 0xFFu;
  return (low & ~is_high) | (high & is_high);
}

// Four codes in bytes as two pairs of BF16, less `offset` (whole_bf16x2; of codes up to 6 bits 128 more).
template <IntCodes codes>
BISE_DEVICE void widen(uint32_t c, uint32_t offset, bool has_offset, uint32_t& first, uint32_t& second) {
  constexpr uint32_t kOne = 0x3F803F80u, kMinus = 0x80008000u;
  if constexpr (codes == IntCodes::e2m1) {
    const uint32_t low = byte_permute(c, 0, 0x4140), high = byte_permute(c, 0, 0x4342);
    // Exponent and mantissa in place, times 2^126.
    first = fma_bf16x2((low & 0x00070007u) << 6 | (low & 0x00080008u) << 12, 0x7E807E80u, kMinus);
    second = fma_bf16x2((high & 0x00070007u) << 6 | (high & 0x00080008u) << 12, 0x7E807E80u, kMinus);
  } else if constexpr (codes == IntCodes::s8 || codes == IntCodes::iq4) {
    if constexpr (codes == IntCodes::iq4) c = iq4_values(c);
    // 0x4300 | b is 128 + b for b of seven bits; of that goes 128, or 256 for a negative code.
    const uint32_t unsigned_codes = c ^ 0x80808080u, seven = unsigned_codes & 0x7F7F7F7Fu,
                   top = unsigned_codes & 0x80808080u;
    first = fma_bf16x2(byte_permute(seven, 0x43434343u, 0x4140), kOne, byte_permute(top, 0, 0x4140) ^ 0xC380C380u);
    second = fma_bf16x2(byte_permute(seven, 0x43434343u, 0x4342), kOne, byte_permute(top, 0, 0x4342) ^ 0xC380C380u);
    if (has_offset) {
      first = fma_bf16x2(first, kOne, offset ^ kMinus);
      second = fma_bf16x2(second, kOne, offset ^ kMinus);
    }
  } else {
    first = fma_bf16x2(byte_permute(c, 0x43434343u, 0x4140), kOne, offset ^ kMinus);
    second = fma_bf16x2(byte_permute(c, 0x43434343u, 0x4342), kOne, offset ^ kMinus);
  }
}

// What stands in front of a group of units: a scale, and perhaps a minimum or a zero point. The usual ones have kernels
// of their own; `any` asks the tile.
enum class Header { f16, f16_minimum, f16_zero, bf16, bf16_minimum, bf16_zero, any };
constexpr bool is_f16(Header h) { return h == Header::f16 || h == Header::f16_minimum || h == Header::f16_zero; }
constexpr Header header_of(const IntTile& t) {
  if (t.scale != TileScale::f16 && t.scale != TileScale::bf16) return Header::any;
  const bool f16 = t.scale == TileScale::f16;
  if (t.minimum == Minimum::value) return f16 ? Header::f16_minimum : Header::bf16_minimum;
  if (t.minimum == Minimum::zero_point) return f16 ? Header::f16_zero : Header::bf16_zero;
  return f16 ? Header::f16 : Header::bf16;
}

template <IntCodes codes, BlockScales block_scales, Header header_kind, int n_tiles>
struct IntDecoder {
  using Stage = IntStage<block_bytes(codes, block_scales), n_tiles>;
  static constexpr bool kSmallCodes = codes != IntCodes::s8 && codes != IntCodes::iq4;
  static constexpr bool kHalves = block_scales == BlockScales::i8_halves || block_scales == BlockScales::u4_halves ||
                                  block_scales == BlockScales::e4m3_halves;

  const LinearKernelArgs& k;
  int g, t;
  bool has_offset, has_minimum, has_zero_point;
  int32_t header_bytes;
  int32_t in_group = 0;  // units of the group that are done
  bool starts_part = true;
  float scale[kWarpTiles][2] = {}, minimum[kWarpTiles][2] = {};
  uint32_t offset[kWarpTiles][2] = {};
  Sums<n_tiles> part[kWarpTiles] = {};

  BISE_DEVICE IntDecoder(const LinearKernelArgs& args, int row, int column) : k(args), g(row), t(column) {
    constexpr bool kAny = header_kind == Header::any;
    has_minimum = kAny ? k.a.w.ints.minimum == Minimum::value
                       : header_kind == Header::f16_minimum || header_kind == Header::bf16_minimum;
    has_zero_point = kAny ? k.a.w.ints.minimum == Minimum::zero_point
                          : header_kind == Header::f16_zero || header_kind == Header::bf16_zero;
    header_bytes = kAny ? k.units.header_bytes : kTileRows * (has_minimum ? 4 : has_zero_point ? 3 : 2);
    has_offset = has_zero_point || k.a.w.ints.offset != 0;
    BISE_UNROLL
    for (int tile = 0; tile < kWarpTiles; ++tile) offset[tile][0] = offset[tile][1] = offset_of(k.a.w.ints.offset);
  }

  static BISE_DEVICE int tile_row(int fragment_row) { return fragment_row; }

  BISE_DEVICE float header_value(const uint8_t* values, int r) const {
    if constexpr (header_kind == Header::any) return tile_scale(k.a.w.ints.scale, values, r);
    const uint16_t bits = load_half(values + 2 * r);
    return is_f16(header_kind) ? f16_bits_to_float(bits) : bits_to_float(uint32_t{bits} << 16);
  }
  BISE_DEVICE void read_header(int tile, const uint8_t* header) {
    const uint8_t* minima =
        header + (header_kind == Header::any ? kTileRows * scale_bytes(k.a.w.ints.scale) : kTileRows * 2);
    BISE_UNROLL
    for (int row = 0; row < 2; ++row) {
      const int r = g + 8 * row;
      scale[tile][row] = header_value(header, r);
      if (has_minimum) minimum[tile][row] = header_value(minima, r);
      if (has_zero_point) offset[tile][row] = offset_of(k.a.w.ints.offset + minima[r]);
    }
  }
  static BISE_DEVICE uint32_t offset_of(int zero) { return whole_bf16x2(zero + (kSmallCodes ? 128 : 0)); }

  // sums += what[row] times the inputs of runs of 16 columns.
  BISE_DEVICE void add_minimum(const uint8_t* inputs_of_run, const float (&what)[2], int runs,
                               Sums<n_tiles>& sums) const {
    BISE_UNROLL
    for (int n = 0; n < n_tiles; ++n) {
      BISE_UNROLL
      for (int i = 0; i < 2; ++i) {
        const uint8_t* x = inputs_of_run + (8 * n + 2 * t + i) * (8 * Stage::units);
        float inputs = bits_to_float(load_word(x));
        if (runs == 2) inputs += bits_to_float(load_word(x + 4));
        BISE_UNROLL
        for (int row = 0; row < 2; ++row) sums[n][2 * row + i] = fmaf(what[row], inputs, sums[n][2 * row + i]);
      }
    }
  }

  template <class Stages>
  BISE_DEVICE void begin_range(const Stages& stages, int32_t begin) {
    in_group = begin % k.units.per_group;
    if (in_group == 0) return;
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      if (!stages.has_tile(tile)) continue;
      read_header(tile, k.a.w.tiles + static_cast<uint64_t>(stages.first_tile + tile) * k.a.w.tile_bytes +
                            k.units.span_begin(begin - in_group));
    }
  }

  // part += w times the inputs of 16 columns, or part is that.
  template <bool from_zero>
  BISE_DEVICE void multiply(const uint32_t (&w)[kWarpTiles][4], const uint8_t* x) {
    BISE_UNROLL
    for (int n = 0; n < n_tiles; ++n) {
      uint32_t b0, b1;
      load_words(x + 8 * n * Stage::x_stride, b0, b1);
      BISE_UNROLL
      for (int tile = 0; tile < kWarpTiles; ++tile) {
        if constexpr (from_zero) mma_bf16_from_zero(part[tile][n], w[tile], b0, b1);
        else mma_bf16(part[tile][n], w[tile], b0, b1);
      }
    }
  }

  // Groups of one unit or two, and groups that stages divide, have their headers where the compiler knows.
  BISE_DEVICE void stage(StageCursor cursor, int32_t, int32_t count, bool ends_range,
                         Sums<n_tiles> (&sums)[kWarpTiles]) {
    constexpr bool kAnyGroup = block_scales == BlockScales::none,
                   kOne = kAnyGroup || block_scales == BlockScales::e4m3_halves;
    if constexpr (header_kind != Header::any || !kAnyGroup) {
      if (count == Stage::units) {
        if (kOne && k.units.per_group == 1) return units<1>(cursor, count, ends_range, sums);
        if (kAnyGroup && k.units.per_group == 2) return units<2>(cursor, count, ends_range, sums);
        if (k.units.per_group % Stage::units == 0) return units<Stage::units>(cursor, count, ends_range, sums);
      }
    }
    units<0>(cursor, count, ends_range, sums);
  }
  // group: units of a group, or of the part of one that a stage has; 0: whatever they are.
  template <int group>
  BISE_DEVICE void units(StageCursor& cursor, int32_t count, bool ends_range, Sums<n_tiles> (&sums)[kWarpTiles]) {
    constexpr bool kStage = group == Stage::units && group > 1;
    BISE_UNROLL
    for (int u = 0; u < Stage::units; ++u) {
      if (group == 0 && u >= count) break;
      bool begins, ends;  // a group
      if constexpr (group == 0) {
        begins = in_group == 0;
        ends = ++in_group == k.units.per_group;
        if (ends) in_group = 0;
      } else if constexpr (kStage) {
        begins = u == 0 && in_group == 0;
        ends = false;
        if (u + 1 == Stage::units) {
          in_group += Stage::units;
          ends = in_group == k.units.per_group;
          if (ends) in_group = 0;
        }
      } else {
        begins = u % group == 0;
        ends = (u + 1) % group == 0;
      }
      const bool from_zero = kStage || group == 0 ? (group == 0 || u == 0) && starts_part : begins;
      starts_part = ends || (ends_range && u + 1 == (group == 0 ? count : Stage::units));
      unit(cursor, u, begins, from_zero, starts_part, sums);
    }
  }

  // begins: a header comes first. from_zero: `part` starts here. ends_part: and here it is added to the sums.
  BISE_DEVICE void unit(StageCursor& cursor, int in_stage, bool begins, bool from_zero, bool ends_part,
                        Sums<n_tiles> (&sums)[kWarpTiles]) {
    if (begins) {
      BISE_UNROLL
      for (int tile = 0; tile < kWarpTiles; ++tile) read_header(tile, cursor.tile[tile]);
      cursor.skip(header_bytes);
    }
    const uint8_t* p[kWarpTiles];
    uint32_t c[kWarpTiles][2][2];
    BISE_UNROLL
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      p[tile] = cursor.tile[tile];
      load_codes<codes>(p[tile] + block_scale_bytes(block_scales), g, t, c[tile]);
    }
    cursor.skip(block_bytes(codes, block_scales));
    const uint8_t* inputs = cursor.sums + 8 * in_stage;
    BISE_UNROLL
    for (int half = 0; half < 2; ++half) {
      uint32_t w[kWarpTiles][4];
      BISE_UNROLL
      for (int tile = 0; tile < kWarpTiles; ++tile) {
        widen<codes>(c[tile][half][0], offset[tile][0], has_offset, w[tile][0], w[tile][2]);
        widen<codes>(c[tile][half][1], offset[tile][1], has_offset, w[tile][1], w[tile][3]);
      }
      const uint8_t* x = cursor.x + 32 * (2 * in_stage + half) + 8 * t;
      // The first products that a scale is for need no zeros to start from.
      if (kHalves || (half == 0 && (block_scales != BlockScales::none || from_zero))) {
        multiply<true>(w, x);
      } else {
        multiply<false>(w, x);
      }
      if constexpr (kHalves) {
        BISE_UNROLL
        for (int tile = 0; tile < kWarpTiles; ++tile) {
          float of_half[2], minimum_of_half[2];
          BISE_UNROLL
          for (int row = 0; row < 2; ++row) {
            const uint8_t s = p[tile][kTileRows * half + g + 8 * row];
            of_half[row] = block_scales == BlockScales::e4m3_halves ? bf16_low(e4m3_to_bf16x2(s)) * 0x1p-8f
                           : block_scales == BlockScales::i8_halves
                               ? scale[tile][row] * static_cast<float>(static_cast<int8_t>(s))
                               : scale[tile][row] * static_cast<float>(s & 15);
            minimum_of_half[row] = -minimum[tile][row] * static_cast<float>(s >> 4);
          }
          add_scaled<n_tiles>(of_half, part[tile], sums[tile]);
          if constexpr (block_scales == BlockScales::u4_halves) {
            add_minimum(inputs + 4 * half, minimum_of_half, 1, sums[tile]);
          }
        }
      }
    }
    BISE_UNROLL
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      if constexpr (block_scales == BlockScales::u8_min || block_scales == BlockScales::i8) {
        float of_block[2], minimum_of_block[2];
        BISE_UNROLL
        for (int row = 0; row < 2; ++row) {
          const uint8_t* s = p[tile] + g + 8 * row;
          of_block[row] =
              scale[tile][row] * (block_scales == BlockScales::i8 ? static_cast<float>(static_cast<int8_t>(s[0]))
                                                                  : static_cast<float>(s[0]));
          minimum_of_block[row] =
              block_scales == BlockScales::i8 ? 0.0f : -minimum[tile][row] * static_cast<float>(s[kTileRows]);
        }
        add_scaled<n_tiles>(of_block, part[tile], sums[tile]);
        if constexpr (block_scales == BlockScales::u8_min) add_minimum(inputs, minimum_of_block, 2, sums[tile]);
      }
      if constexpr (block_scales == BlockScales::none) {
        if (ends_part) add_scaled<n_tiles>(scale[tile], part[tile], sums[tile]);
        if (has_minimum) add_minimum(inputs, minimum[tile], 2, sums[tile]);
      }
    }
  }
};

template <IntCodes codes, BlockScales block_scales, Header header, int n_tiles>
BISE_KERNEL_OF(kLinearWarps* kWarp, blocks_at_once(n_tiles))
linear_int(const LinearKernelArgs k) {
  linear<IntStage<block_bytes(codes, block_scales), n_tiles>, IntDecoder<codes, block_scales, header, n_tiles>,
         n_tiles>(k);
}

}  // namespace

bool launch_linear_int(Queue& queue, LinearKernelArgs k, const LinearPlan& plan) {
  const IntTile& tile = k.a.w.ints;
  k.units = {static_cast<int32_t>(k.a.w.columns / kBlock), static_cast<int32_t>(tile.group_blocks), header_bytes(tile),
             block_bytes(tile.codes, tile.block_scales),   static_cast<int32_t>(k.a.w.tile_bytes),  256 / kBlock};
  k.needs_sums = tile.minimum == Minimum::value;
  bool found = false;
  auto take = [&]<IntCodes codes, BlockScales scales, Header header>() {
    if (found || tile.codes != codes || tile.block_scales != scales) return;
    if (header != header_of(tile) && header != Header::any) return;
    found = true;
    with_n_tiles(plan.n_tiles, [&](auto n) {
      launch_linear_kernel<IntStage<block_bytes(codes, scales), n()>>(linear_int<codes, scales, header, n()>, queue, k,
                                                                      plan);
    });
  };
  using enum IntCodes;
  using enum BlockScales;
  // Groups of any size: GGUF, GPTQ, AWQ, compressed-tensors, MLX.
  take.template operator()<u4, none, Header::f16>();
  take.template operator()<u4, none, Header::f16_minimum>();
  take.template operator()<u4, none, Header::f16_zero>();
  take.template operator()<u4, none, Header::bf16>();
  take.template operator()<u4, none, Header::bf16_minimum>();
  take.template operator()<u4, none, Header::bf16_zero>();
  take.template operator()<u4, none, Header::any>();
  take.template operator()<s8, none, Header::f16>();
  take.template operator()<s8, none, Header::bf16>();
  take.template operator()<s8, none, Header::bf16_minimum>();
  take.template operator()<s8, none, Header::any>();
  take.template operator()<u5, none, Header::f16>();
  take.template operator()<u5, none, Header::f16_minimum>();
  take.template operator()<u2, none, Header::bf16_minimum>();
  take.template operator()<u3, none, Header::bf16_minimum>();
  take.template operator()<u5, none, Header::bf16_minimum>();
  take.template operator()<u6, none, Header::bf16_minimum>();
  take.template operator()<u2, none, Header::any>();
  take.template operator()<u3, none, Header::any>();
  take.template operator()<u5, none, Header::any>();
  take.template operator()<u6, none, Header::any>();
  take.template operator()<IntCodes::iq4, none, Header::f16>();
  take.template operator()<e2m1, none, Header::any>();
  // Scales of blocks under a group's.
  take.template operator()<e2m1, e4m3_halves, Header::any>();
  take.template operator()<u2, u4_halves, Header::f16_minimum>();
  take.template operator()<u3, i8_halves, Header::f16>();
  take.template operator()<u6, i8_halves, Header::f16>();
  take.template operator()<u4, u8_min, Header::f16_minimum>();
  take.template operator()<u5, u8_min, Header::f16_minimum>();
  take.template operator()<IntCodes::iq4, BlockScales::i8, Header::f16>();
  return found;
}

}  // namespace bise::gpu
