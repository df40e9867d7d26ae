// Products of one tile of 16 rows, a few tokens at a time. Written over the vector
// vocabulary; included by isa_*.cpp only, inside their namespace.

constexpr int kTokensAtOnce = 4;

// How far ahead of a product its weights are asked for. They come from memory once per step, in one
// long run; the hardware's own prefetch is not enough for the full rate (10 % less of it on Zen 3).
constexpr int64_t kPrefetchBytes = 2048;
inline void prefetch(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + kPrefetchBytes + i);
}

// Calls run<kTokens>(first token) for groups of four, two and one.
template <class Run>
inline void in_groups(int num_tokens, Run run) {
  int t = 0;
  for (; t + kTokensAtOnce <= num_tokens; t += kTokensAtOnce) run.template operator()<4>(t);
  if (t + 2 <= num_tokens) {
    run.template operator()<2>(t);
    t += 2;
  }
  if (t < num_tokens) run.template operator()<1>(t);
}

// 16 scales as float32.
inline F load_scales(TileScale type, const uint8_t* p) {
  switch (type) {
    case TileScale::f16: return f_from_f16(reinterpret_cast<const uint16_t*>(p));
    case TileScale::bf16: return f_from_bf16(reinterpret_cast<const uint16_t*>(p));
    case TileScale::f32: return f_load(reinterpret_cast<const float*>(p));
    case TileScale::e8m0: return f_from_e8m0(p);
    case TileScale::none: break;
  }
  return f_set1(1.0f);
}

// --- Float tiles. Even and odd columns have sums of their own, joined at the end of a group.

// Two columns of 16 rows.
template <FloatCodes kCodes>
inline void load_two(const uint8_t* p, F* even, F* odd) {
  if constexpr (kCodes == FloatCodes::f32) {
    *even = f_load(reinterpret_cast<const float*>(p));
    *odd = f_load(reinterpret_cast<const float*>(p) + kTileRows);
  } else if constexpr (kCodes == FloatCodes::f16) {
    *even = f_from_f16(reinterpret_cast<const uint16_t*>(p));
    *odd = f_from_f16(reinterpret_cast<const uint16_t*>(p) + kTileRows);
  } else if constexpr (kCodes == FloatCodes::bf16) {
    f_two_from_bf16(p, even, odd);
  } else {
    f_two_from_e4m3(p, even, odd);
  }
}

// The sums of `columns` columns of a tile for one or two tokens: x[t] are their inputs. (An odd last
// column is paired with zeros.)
template <FloatCodes kCodes, int kTokens>
inline void group_sums_few(const uint8_t* tile, int64_t columns, const float* const* x, F* sums) {
  constexpr int64_t kBytes = kTileRows * code_bytes(kCodes);  // of one column
  F even[kTokens], odd[kTokens], a, b;
  for (int t = 0; t < kTokens; ++t) even[t] = odd[t] = f_set1(0.0f);
  int64_t k = 0;
  for (; k + 2 <= columns; k += 2) {
    prefetch(tile + k * kBytes, 2 * kBytes);
    load_two<kCodes>(tile + k * kBytes, &a, &b);
    for (int t = 0; t < kTokens; ++t) {
      even[t] = f_fma(a, f_set1(x[t][k]), even[t]);
      odd[t] = f_fma(b, f_set1(x[t][k + 1]), odd[t]);
    }
  }
  if (k < columns) {
    load_two<kCodes>(tile + k * kBytes, &a, &b);
    for (int t = 0; t < kTokens; ++t) even[t] = f_fma(a, f_set1(x[t][k]), even[t]);
  }
  for (int t = 0; t < kTokens; ++t) sums[t] = f_add(even[t], odd[t]);
}

// sums[t] += every second of `columns` float columns times kTokens tokens.
template <int kTokens>
inline void add_columns(const float* w, int64_t first, int64_t columns, const float* x, int64_t stride,
                        float* sums) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_load(sums + 2 * t * kTileRows);
  for (int64_t k = first; k < columns; k += 2) {
    F a = f_load(w + k * kTileRows);
    for (int t = 0; t < kTokens; ++t) sum[t] = f_fma(a, f_set1(x[t * stride + k]), sum[t]);
  }
  for (int t = 0; t < kTokens; ++t) f_store(sums + 2 * t * kTileRows, sum[t]);
}

// The same for many: columns become floats once for all tokens. The same sums in the same order for
// each token. sums: [num_tokens][2][16] floats, even and odd columns.
template <FloatCodes kCodes>
inline void group_sums_many(const uint8_t* tile, int64_t columns, const float* x, int64_t stride,
                            int num_tokens, float* sums) {
  constexpr int64_t kBytes = kTileRows * code_bytes(kCodes);
  constexpr int64_t kColumns = 64;  // even, so that a column's parity is that in the chunk
  alignas(64) float w[kColumns * kTileRows];
  for (int i = 0; i < 2 * num_tokens; ++i) f_store(sums + i * kTileRows, f_set1(0.0f));
  for (int64_t first = 0; first < columns; first += kColumns) {
    const int64_t count = columns - first < kColumns ? columns - first : kColumns;
    for (int64_t k = 0; k < count; k += 2) {
      F a, b;
      prefetch(tile + (first + k) * kBytes, 2 * kBytes);
      load_two<kCodes>(tile + (first + k) * kBytes, &a, &b);
      f_store(w + k * kTileRows, a);
      f_store(w + (k + 1) * kTileRows, b);
    }
    in_groups(num_tokens, [&]<int kTokens>(int t) {
      add_columns<kTokens>(w, 0, count, x + t * stride + first, stride, sums + 2 * t * kTileRows);
      add_columns<kTokens>(w, 1, count, x + t * stride + first, stride, sums + (2 * t + 1) * kTileRows);
    });
  }
}

// Calls body(group's columns, first column, number of columns, scales) for every group of a tile.
template <FloatCodes kCodes, class Body>
inline void each_float_group(const FloatTile& layout, const uint8_t* tile, int64_t columns, Body body) {
  const int64_t size = layout.group_columns == 0 ? columns : layout.group_columns;
  for (int64_t first = 0; first < columns; first += size) {
    const int64_t count = columns - first < size ? columns - first : size;
    const F scales = load_scales(layout.scale, tile);
    tile += kTileRows * scale_bytes(layout.scale);
    body(tile, first, count, scales);
    tile += (count + count % 2) * kTileRows * code_bytes(kCodes);
  }
}

template <FloatCodes kCodes, int kTokens>
void float_tile_few(const FloatTile& layout, const uint8_t* tile, int64_t columns, const float* x,
                    int64_t stride, float* out) {
  const bool scaled = layout.scale != TileScale::none;
  F total[kTokens];
  for (int t = 0; t < kTokens; ++t) total[t] = f_set1(0.0f);
  each_float_group<kCodes>(layout, tile, columns, [&](const uint8_t* p, int64_t first, int64_t count, F scales) {
    const float* inputs[kTokens];
    F sums[kTokens];
    for (int t = 0; t < kTokens; ++t) inputs[t] = x + t * stride + first;
    group_sums_few<kCodes, kTokens>(p, count, inputs, sums);
    for (int t = 0; t < kTokens; ++t) total[t] = scaled ? f_fma(sums[t], scales, total[t]) : sums[t];
  });
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, total[t]);
}

template <FloatCodes kCodes>
void float_tile_many(const FloatTile& layout, const uint8_t* tile, int64_t columns, const float* x,
                     int64_t stride, int num_tokens, float* out) {
  const bool scaled = layout.scale != TileScale::none;
  float sums[kMaxTokens * 2 * kTileRows];
  for (int t = 0; t < num_tokens; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_float_group<kCodes>(layout, tile, columns, [&](const uint8_t* p, int64_t first, int64_t count, F scales) {
    group_sums_many<kCodes>(p, count, x + first, stride, num_tokens, sums);
    for (int t = 0; t < num_tokens; ++t) {
      const float* s = sums + 2 * t * kTileRows;
      const F sum = f_add(f_load(s), f_load(s + kTileRows));
      f_store(out + t * kTileRows, scaled ? f_fma(sum, scales, f_load(out + t * kTileRows)) : sum);
    }
  });
}

template <FloatCodes kCodes>
void float_tokens(const FloatTile& layout, const uint8_t* tile, int64_t columns, const float* x,
                  int64_t stride, int num_tokens, float* out) {
  switch (num_tokens) {
    case 1: return float_tile_few<kCodes, 1>(layout, tile, columns, x, stride, out);
    case 2: return float_tile_few<kCodes, 2>(layout, tile, columns, x, stride, out);
    default: return float_tile_many<kCodes>(layout, tile, columns, x, stride, num_tokens, out);
  }
}

void linear_float(const FloatTile& layout, const uint8_t* tile, int64_t columns, const float* x,
                  int64_t stride, int num_tokens, float* out) {
  switch (layout.codes) {
    case FloatCodes::f32: return float_tokens<FloatCodes::f32>(layout, tile, columns, x, stride, num_tokens, out);
    case FloatCodes::f16: return float_tokens<FloatCodes::f16>(layout, tile, columns, x, stride, num_tokens, out);
    case FloatCodes::bf16: return float_tokens<FloatCodes::bf16>(layout, tile, columns, x, stride, num_tokens, out);
    case FloatCodes::e4m3: return float_tokens<FloatCodes::e4m3>(layout, tile, columns, x, stride, num_tokens, out);
  }
}

// --- Integer tiles.

alignas(16) constexpr uint8_t kE2m1Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                12, 11, 10, 9,  8,  6,  4,  0};
alignas(16) constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

constexpr bool is_signed(IntCodes codes) { return codes == IntCodes::s8 || codes == IntCodes::iq4; }

inline int32_t load_quad(const int8_t* p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return quad;
}

// The codes of one quad, one byte each, out of a block as it is packed (behind its scales).
template <IntCodes kCodes, int kQuad>
inline B unpack_quad(const uint8_t* high) {
  const uint8_t* codes = high + high_bytes(kCodes);
  if constexpr (kCodes == IntCodes::s8) {
    return b_load(codes + kQuad * 64);
  } else if constexpr (low_bits(kCodes) == 2) {
    B low = b_bits<2 * (kQuad / 2), 3, 0>(b_load(codes + kQuad % 2 * 64));
    if constexpr (kCodes == IntCodes::u3) return b_or(low, b_bits<kQuad, 1, 2>(b_load(high)));
    else return low;
  } else {
    B packed = b_load(codes + kQuad % 4 * 64);
    B low = kQuad < 4 ? b_bits<0, 15, 0>(packed) : b_bits<4, 15, 0>(packed);
    if constexpr (kCodes == IntCodes::u5) return b_or(low, b_bits<kQuad, 1, 4>(b_load(high)));
    else if constexpr (kCodes == IntCodes::u6) return b_or(low, b_bits<kQuad % 4 * 2, 3, 4>(b_load(high + kQuad / 4 * 64)));
    else if constexpr (kCodes == IntCodes::e2m1) return b_table(low, kE2m1Codes);
    else if constexpr (kCodes == IntCodes::iq4) return b_table(low, reinterpret_cast<const uint8_t*>(kIq4Values));
    else return low;
  }
}

// Where the codes of a block come from: the packed block itself, or 8 x 64 bytes unpacked before.
template <IntCodes kCodes>
struct PackedQuads {
  const uint8_t* block;
  template <int kQuad>
  B quad() const {
    return unpack_quad<kCodes, kQuad>(block);
  }
};
struct UnpackedQuads {
  const uint8_t* bytes;
  template <int kQuad>
  B quad() const {
    return b_load(bytes + kQuad * 64);
  }
};

// Calls body<first>() … body<last - 1>(): shifts must be constants.
template <int kFirst, int kLast, class Body>
inline void for_each_index(Body& body) {
  if constexpr (kFirst < kLast) {
    body.template operator()<kFirst>();
    for_each_index<kFirst + 1, kLast>(body);
  }
}

// Adds the products of half a block (quads 4 * kHalf to 4 * kHalf + 3) to sum[t]. `narrow` carries
// sums that may be too small for more products; it is flushed when they are full or when `kFlush`.
template <IntCodes kCodes, int kTokens, int kHalf, bool kFlush, class Quads>
inline void half_block_sums(Quads quads, const int8_t* const* x, D* narrow, I* sum) {
  auto step = [&]<int kQuad>() {
    const B w = quads.template quad<kQuad>();
    if constexpr (is_signed(kCodes)) {
      for (int t = 0; t < kTokens; ++t) sum[t] = i_mac_signed(sum[t], w, load_quad(x[t] + 4 * kQuad));
    } else {
      constexpr int kSafe = safe_quads(largest_code(kCodes));
      for (int t = 0; t < kTokens; ++t) narrow[t] = d_mac(narrow[t], w, load_quad(x[t] + 4 * kQuad));
      constexpr bool kFull = kSafe < 8 && (kQuad + 1) % kSafe == 0;
      if constexpr (kFull || (kFlush && kQuad % 4 == 3)) {
        for (int t = 0; t < kTokens; ++t) {
          sum[t] = i_add(sum[t], d_flush(narrow[t]));
          narrow[t] = d_zero();
        }
      }
    }
  };
  for_each_index<4 * kHalf, 4 * kHalf + 4>(step);
}

constexpr bool has_halves(BlockScales s) {
  return s == BlockScales::i8_halves || s == BlockScales::u4_halves || s == BlockScales::e4m3_halves;
}

// The factors that the header gives the blocks of a group: of the codes, and of the minimum.
struct GroupFactors {
  F d, m;
};
template <IntCodes kCodes, BlockScales kScales>
inline GroupFactors group_factors(const IntTile& layout, const uint8_t* header) {
  F d = load_scales(layout.scale, header), m = d;
  if constexpr (kCodes == IntCodes::e2m1) d = f_mul(d, f_set1(0.5f));
  if (layout.minimum == Minimum::value) {
    m = load_scales(layout.scale, header + kTileRows * scale_bytes(layout.scale));
    if constexpr (kScales != BlockScales::none) m = f_sub(f_set1(0.0f), m);
  } else if (layout.minimum == Minimum::zero_point) {
    m = f_mul(f_sub(f_set1(0.0f), d), f_from_i(i_from_u8(header + kTileRows * scale_bytes(layout.scale))));
  }
  return {d, m};
}

// sum[t] += one block of the tile times block `b` of token t. `scales`: the block's own.
template <IntCodes kCodes, BlockScales kScales, int kTokens, class Quads>
inline void add_block(const IntTile& layout, GroupFactors f, Quads quads, const uint8_t* scales,
                      const QuantizedRow* x, int64_t b, F* sum) {
  constexpr bool kHalves = has_halves(kScales);
  const int8_t* codes[kTokens];
  I low[kTokens], high[kTokens];
  D narrow[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    codes[t] = x[t].codes + b * kBlock;
    low[t] = high[t] = i_zero();
    narrow[t] = d_zero();
  }
  half_block_sums<kCodes, kTokens, 0, kHalves>(quads, codes, narrow, low);
  half_block_sums<kCodes, kTokens, 1, true>(quads, codes, narrow, kHalves ? high : low);

  if constexpr (kScales == BlockScales::u8_min) {
    f.d = f_mul(f.d, f_from_i(i_from_u8(scales)));
    f.m = f_mul(f.m, f_from_i(i_from_u8(scales + kTileRows)));
  }
  for (int t = 0; t < kTokens; ++t) {
    const int32_t* sums = x[t].sums + 2 * b;
    const F scale = f_set1(x[t].scales[b]);
    if constexpr (kHalves) {
      if (layout.offset != 0) {
        low[t] = i_sub(low[t], i_set1(layout.offset * sums[0]));
        high[t] = i_sub(high[t], i_set1(layout.offset * sums[1]));
      }
    } else if (layout.offset != 0) {
      low[t] = i_sub(low[t], i_set1(layout.offset * (sums[0] + sums[1])));
    }
    if constexpr (kScales == BlockScales::e4m3_halves) {
      const F first = f_mul(f_from_i(low[t]), f_from_e4m3_256th(scales));
      const F both = f_fma(f_from_i(high[t]), f_from_e4m3_256th(scales + kTileRows), first);
      sum[t] = f_fma(both, f_mul(f.d, scale), sum[t]);
      continue;
    }
    I dot = low[t];
    if constexpr (kScales == BlockScales::i8) dot = i_mul(low[t], i_from_i8(scales));
    if constexpr (kScales == BlockScales::i8_halves) {
      dot = i_add(i_mul(low[t], i_from_i8(scales)), i_mul(high[t], i_from_i8(scales + kTileRows)));
    }
    if constexpr (kScales == BlockScales::u4_halves) {
      dot = i_add(i_mul(low[t], i_low_nibbles(scales)), i_mul(high[t], i_low_nibbles(scales + kTileRows)));
      const I minima = i_add(i_mul(i_high_nibbles(scales), i_set1(sums[0])),
                             i_mul(i_high_nibbles(scales + kTileRows), i_set1(sums[1])));
      sum[t] = f_fma(f_from_i(minima), f_mul(f.m, scale), sum[t]);
    }
    sum[t] = f_fma(f_from_i(dot), f_mul(f.d, scale), sum[t]);
    if constexpr (kScales == BlockScales::none || kScales == BlockScales::u8_min) {
      if (layout.minimum != Minimum::none) sum[t] = f_fma(f.m, f_set1(x[t].scaled_sums[b]), sum[t]);
    }
  }
}

// Calls body(block number, its group's factors, block) for every block of a tile.
template <IntCodes kCodes, BlockScales kScales, class Body>
inline void each_block(const IntTile& layout, const uint8_t* tile, int64_t columns, Body body) {
  constexpr int kBytes = block_bytes(kCodes, kScales);
  const int64_t blocks = columns / kBlock;
  const int header = header_bytes(layout);
  for (int64_t first = 0; first < blocks; first += layout.group_blocks) {
    const int64_t end = blocks - first < layout.group_blocks ? blocks : first + layout.group_blocks;
    prefetch(tile, header);
    const GroupFactors f = group_factors<kCodes, kScales>(layout, tile);
    tile += header;
    for (int64_t b = first; b < end; ++b, tile += kBytes) {
      prefetch(tile, kBytes);
      body(b, f, tile);
    }
  }
}

// A few tokens: codes go from the packed block straight into the products.
template <IntCodes kCodes, BlockScales kScales, int kTokens>
void int_tile_few(const IntTile& layout, const uint8_t* tile, int64_t columns, const QuantizedRow* x, float* out) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_set1(0.0f);
  each_block<kCodes, kScales>(layout, tile, columns, [&](int64_t b, GroupFactors f, const uint8_t* block) {
    add_block<kCodes, kScales, kTokens>(layout, f, PackedQuads<kCodes>{block + block_scale_bytes(kScales)}, block,
                                        x, b, sum);
  });
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, sum[t]);
}

// Many: each block is unpacked once for all of them, and the sums wait in `out`. The same steps in
// the same order for each token.
template <IntCodes kCodes, BlockScales kScales>
void int_tile_many(const IntTile& layout, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                   int num_tokens, float* out) {
  for (int t = 0; t < num_tokens; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_block<kCodes, kScales>(layout, tile, columns, [&](int64_t b, GroupFactors f, const uint8_t* block) {
    alignas(64) uint8_t bytes[8 * 64];
    auto unpack = [&]<int kQuad>() {
      b_store(bytes + kQuad * 64, unpack_quad<kCodes, kQuad>(block + block_scale_bytes(kScales)));
    };
    for_each_index<0, 8>(unpack);
    in_groups(num_tokens, [&]<int kTokens>(int first) {
      float* at = out + first * kTileRows;
      F sum[kTokens];
      for (int t = 0; t < kTokens; ++t) sum[t] = f_load(at + t * kTileRows);
      add_block<kCodes, kScales, kTokens>(layout, f, UnpackedQuads{bytes}, block, x + first, b, sum);
      for (int t = 0; t < kTokens; ++t) f_store(at + t * kTileRows, sum[t]);
    });
  });
}

template <IntCodes kCodes, BlockScales kScales>
void int_tokens(const IntTile& layout, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                int num_tokens, float* out) {
  switch (num_tokens) {
    case 1: return int_tile_few<kCodes, kScales, 1>(layout, tile, columns, x, out);
    case 2: return int_tile_few<kCodes, kScales, 2>(layout, tile, columns, x, out);
    default: return int_tile_many<kCodes, kScales>(layout, tile, columns, x, num_tokens, out);
  }
}

// Codes and block scales that occur together.
void linear_int(const IntTile& layout, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                int num_tokens, float* out) {
  auto with = [&]<IntCodes kCodes, BlockScales kScales>() {
    int_tokens<kCodes, kScales>(layout, tile, columns, x, num_tokens, out);
  };
  using enum BlockScales;
  switch (layout.codes) {
    case IntCodes::u2:
      if (layout.block_scales == u4_halves) return with.template operator()<IntCodes::u2, u4_halves>();
      return with.template operator()<IntCodes::u2, none>();
    case IntCodes::u3:
      if (layout.block_scales == i8_halves) return with.template operator()<IntCodes::u3, i8_halves>();
      return with.template operator()<IntCodes::u3, none>();
    case IntCodes::u4:
      if (layout.block_scales == u8_min) return with.template operator()<IntCodes::u4, u8_min>();
      return with.template operator()<IntCodes::u4, none>();
    case IntCodes::u5:
      if (layout.block_scales == u8_min) return with.template operator()<IntCodes::u5, u8_min>();
      return with.template operator()<IntCodes::u5, none>();
    case IntCodes::u6:
      if (layout.block_scales == i8_halves) return with.template operator()<IntCodes::u6, i8_halves>();
      return with.template operator()<IntCodes::u6, none>();
    case IntCodes::s8: return with.template operator()<IntCodes::s8, none>();
    case IntCodes::e2m1:
      if (layout.block_scales == e4m3_halves) return with.template operator()<IntCodes::e2m1, e4m3_halves>();
      return with.template operator()<IntCodes::e2m1, none>();
    case IntCodes::iq4:
      if (layout.block_scales == i8) return with.template operator()<IntCodes::iq4, i8>();
      return with.template operator()<IntCodes::iq4, none>();
  }
}
