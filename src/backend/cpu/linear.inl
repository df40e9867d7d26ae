// Products of one tile of 16 rows, a few tokens at a time. Written over the vector
// vocabulary; included by isa_*.cpp only, inside their namespace.

constexpr int kTokensAtOnce = 4;

// How far ahead of a product its weights are asked for. They come from memory once per step, in one
// long run; the hardware's own prefetch is not enough for the full rate (10 % less of it on Zen 3).
constexpr int64_t kPrefetchBytes = 2048;
inline void prefetch(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + kPrefetchBytes + i);
}

// e4m3 comes as 2^-8 of its value; scaled_sum() makes up for it.
template <FloatCodes kCodes>
inline F load_column(const uint8_t* p) {
  if constexpr (kCodes == FloatCodes::f32) return f_load(reinterpret_cast<const float*>(p));
  else if constexpr (kCodes == FloatCodes::f16) return f_from_f16(reinterpret_cast<const uint16_t*>(p));
  else if constexpr (kCodes == FloatCodes::bf16) return f_from_bf16(reinterpret_cast<const uint16_t*>(p));
  else return f_from_e4m3_256th(p);
}
template <FloatCodes kCodes>
inline F scaled_sum(F even, F odd) {
  F sum = f_add(even, odd);
  if constexpr (kCodes == FloatCodes::e4m3) return f_mul(sum, f_set1(256.0f));
  else return sum;
}
template <FloatCodes kCodes>
constexpr int64_t kColumnBytes = kTileRows * (kCodes == FloatCodes::f32    ? 4
                                              : kCodes == FloatCodes::e4m3 ? 1
                                                                           : 2);

// A few tokens. Even and odd columns have sums of their own, so that two chains of FMA run side by
// side.
template <FloatCodes kCodes, int kTokens>
void float_tile_few(const uint8_t* tile, int64_t columns, const float* x, int64_t stride, float* out) {
  constexpr int64_t kBytes = kColumnBytes<kCodes>;
  F even[kTokens], odd[kTokens];
  for (int t = 0; t < kTokens; ++t) even[t] = odd[t] = f_set1(0.0f);
  int64_t k = 0;
  for (; k + 2 <= columns; k += 2) {
    prefetch(tile + k * kBytes, 2 * kBytes);
    F a = load_column<kCodes>(tile + k * kBytes), b = load_column<kCodes>(tile + (k + 1) * kBytes);
    for (int t = 0; t < kTokens; ++t) {
      even[t] = f_fma(a, f_set1(x[t * stride + k]), even[t]);
      odd[t] = f_fma(b, f_set1(x[t * stride + k + 1]), odd[t]);
    }
  }
  if (k < columns) {
    F a = load_column<kCodes>(tile + k * kBytes);
    for (int t = 0; t < kTokens; ++t) even[t] = f_fma(a, f_set1(x[t * stride + k]), even[t]);
  }
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, scaled_sum<kCodes>(even[t], odd[t]));
}

// sums[t] += every second of `columns` float columns of a tile times kTokensAtOnce tokens.
inline void add_columns(const float* w, int64_t first, int64_t columns, const float* x, int64_t stride,
                        float* sums) {
  F sum[kTokensAtOnce];
  for (int t = 0; t < kTokensAtOnce; ++t) sum[t] = f_load(sums + t * kTileRows);
  for (int64_t k = first; k < columns; k += 2) {
    F a = f_load(w + k * kTileRows);
    for (int t = 0; t < kTokensAtOnce; ++t) sum[t] = f_fma(a, f_set1(x[t * stride + k]), sum[t]);
  }
  for (int t = 0; t < kTokensAtOnce; ++t) f_store(sums + t * kTileRows, sum[t]);
}

// Many: columns become floats once for all tokens. The same sums in the same order for each token.
template <FloatCodes kCodes>
void float_tile_many(const uint8_t* tile, int64_t columns, const float* x, int64_t stride, int groups,
                     float* out) {
  constexpr int64_t kColumns = 64;  // even, so that a column's parity is that in the chunk
  float odd[kMaxTokens * kTileRows], w[kColumns * kTileRows];
  const int tokens = groups * kTokensAtOnce;
  for (int t = 0; t < tokens; ++t) {
    f_store(out + t * kTileRows, f_set1(0.0f));
    f_store(odd + t * kTileRows, f_set1(0.0f));
  }
  for (int64_t first = 0; first < columns; first += kColumns) {
    const int64_t count = columns - first < kColumns ? columns - first : kColumns;
    for (int64_t k = 0; k < count; ++k) {
      f_store(w + k * kTileRows, load_column<kCodes>(tile + (first + k) * kColumnBytes<kCodes>));
    }
    for (int t = 0; t < tokens; t += kTokensAtOnce) {
      add_columns(w, 0, count, x + t * stride + first, stride, out + t * kTileRows);
      add_columns(w, 1, count, x + t * stride + first, stride, odd + t * kTileRows);
    }
  }
  for (int t = 0; t < tokens; ++t) {
    f_store(out + t * kTileRows,
            scaled_sum<kCodes>(f_load(out + t * kTileRows), f_load(odd + t * kTileRows)));
  }
}

// How the columns of one block become codes, and where its parts lie.
template <IntCodes kCodes>
struct IntLayout {
  static constexpr bool is_super =
      kCodes == IntCodes::q4_k || kCodes == IntCodes::q5_k || kCodes == IntCodes::q6_k;
  static constexpr bool has_min = kCodes == IntCodes::q4_1 || kCodes == IntCodes::q5_1 ||
                                  kCodes == IntCodes::q4_k || kCodes == IntCodes::q5_k;
  static constexpr bool is_signed = kCodes == IntCodes::q8_0;
  static constexpr int bits = kCodes == IntCodes::q6_k ? 6
                              : kCodes == IntCodes::q5_0 || kCodes == IntCodes::q5_1 || kCodes == IntCodes::q5_k
                                  ? 5
                                  : 4;
  static constexpr int offset = kCodes == IntCodes::q4_0 ? 8 : kCodes == IntCodes::q5_0 ? 16
                                : kCodes == IntCodes::q6_k ? 32 : 0;
  static constexpr int scale_bytes =
      kCodes == IntCodes::q6_k || kCodes == IntCodes::q4_k || kCodes == IntCodes::q5_k
          ? 32
          : (has_min ? 64 : 32);
  static constexpr int high_bytes = is_signed ? 0 : bits == 6 ? 128 : bits == 5 ? 64 : 0;
  static constexpr int code_bytes = is_signed ? 512 : 256;
  static constexpr int block_bytes = scale_bytes + high_bytes + code_bytes;
  static constexpr int super_bytes = !is_super ? 0 : has_min ? 64 : 32;
};

inline int32_t load_quad(const int8_t* p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return quad;
}

// The codes of one quad, one byte each, out of a block as it is packed.
template <IntCodes kCodes, int kQuad>
inline B unpack_quad(const uint8_t* block) {
  using L = IntLayout<kCodes>;
  const uint8_t* high = block + L::scale_bytes;
  const uint8_t* codes = high + L::high_bytes;
  if constexpr (L::is_signed) {
    return b_load(codes + kQuad * 64);
  } else {
    B packed = b_load(codes + kQuad % 4 * 64);
    B low = kQuad < 4 ? b_low_nibbles(packed) : b_high_nibbles(packed);
    if constexpr (L::bits == 5) return b_or(low, b_bits_to_4<kQuad, 1>(b_load(high)));
    else if constexpr (L::bits == 6) return b_or(low, b_bits_to_4<kQuad % 4 * 2, 3>(b_load(high + kQuad / 4 * 64)));
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
  using L = IntLayout<kCodes>;
  auto step = [&]<int kQuad>() {
    const B w = quads.template quad<kQuad>();
    if constexpr (L::is_signed) {
      for (int t = 0; t < kTokens; ++t) sum[t] = i_mac_signed(sum[t], w, load_quad(x[t] + 4 * kQuad));
    } else {
      for (int t = 0; t < kTokens; ++t) narrow[t] = d_mac(narrow[t], w, load_quad(x[t] + 4 * kQuad));
      constexpr bool kFull = kSafe<L::bits> < 8 && (kQuad + 1) % kSafe<L::bits> == 0;
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

// The factors of one block: w = d q + m, or d (q - offset).
template <IntCodes kCodes>
inline void block_factors(const uint8_t* super, const uint8_t* block, F* d, F* m) {
  using L = IntLayout<kCodes>;
  *d = f_from_f16(reinterpret_cast<const uint16_t*>(L::is_super ? super : block));
  *m = *d;
  if constexpr (L::has_min) {
    *m = f_from_f16(reinterpret_cast<const uint16_t*>((L::is_super ? super : block) + 32));
    if constexpr (L::is_super) {
      *d = f_mul(*d, f_from_i(i_from_u8(block)));
      *m = f_sub(f_set1(0.0f), f_mul(*m, f_from_i(i_from_u8(block + 16))));
    }
  }
}

// sum[t] += one block of the tile times block `b` of token t.
template <IntCodes kCodes, int kTokens, class Quads>
inline void add_block(Quads quads, const uint8_t* block, F d, F m, const QuantizedRow* x, int64_t b,
                      F* sum) {
  using L = IntLayout<kCodes>;
  constexpr bool kTwoScales = kCodes == IntCodes::q6_k;  // each half block has its own
  const int8_t* codes[kTokens];
  I low[kTokens], high[kTokens];
  D narrow[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    codes[t] = x[t].codes + b * kBlock;
    low[t] = high[t] = i_zero();
    narrow[t] = d_zero();
  }
  half_block_sums<kCodes, kTokens, 0, kTwoScales>(quads, codes, narrow, low);
  half_block_sums<kCodes, kTokens, 1, true>(quads, codes, narrow, kTwoScales ? high : low);
  for (int t = 0; t < kTokens; ++t) {
    const int32_t* sums = x[t].sums + 2 * b;
    I dot = low[t];
    if constexpr (kTwoScales) {
      I first = i_sub(low[t], i_set1(L::offset * sums[0]));
      I second = i_sub(high[t], i_set1(L::offset * sums[1]));
      dot = i_add(i_mul(first, i_from_i8(block)), i_mul(second, i_from_i8(block + 16)));
    } else if constexpr (L::offset != 0) {
      dot = i_sub(dot, i_set1(L::offset * (sums[0] + sums[1])));
    }
    sum[t] = f_fma(f_from_i(dot), f_mul(d, f_set1(x[t].scales[b])), sum[t]);
    if constexpr (L::has_min) sum[t] = f_fma(m, f_set1(x[t].scaled_sums[b]), sum[t]);
  }
}

// Calls body(block number, its super-block or null, block) for every block of a tile.
template <IntCodes kCodes, class Body>
inline void each_tile_block(const uint8_t* tile, int64_t columns, Body body) {
  using L = IntLayout<kCodes>;
  const uint8_t *p = tile, *super = tile;
  for (int64_t b = 0; b < columns / kBlock; ++b) {
    if (L::is_super && b % 8 == 0) {
      super = p;
      p += L::super_bytes;
    }
    body(b, super, p);
    p += L::block_bytes;
  }
}

// A few tokens: codes go from the packed block straight into the products.
template <IntCodes kCodes, int kTokens>
void int_tile_few(const uint8_t* tile, int64_t columns, const QuantizedRow* x, float* out) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_set1(0.0f);
  each_tile_block<kCodes>(tile, columns, [&](int64_t b, const uint8_t* super, const uint8_t* block) {
    prefetch(block, IntLayout<kCodes>::block_bytes);
    F d, m;
    block_factors<kCodes>(super, block, &d, &m);
    add_block<kCodes, kTokens>(PackedQuads<kCodes>{block}, block, d, m, x, b, sum);
  });
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, sum[t]);
}

// Many: each block is unpacked once for all of them, and the sums wait in `out`. The same steps in
// the same order for each token.
template <IntCodes kCodes>
void int_tile_many(const uint8_t* tile, int64_t columns, const QuantizedRow* x, int groups, float* out) {
  for (int t = 0; t < groups * kTokensAtOnce; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_tile_block<kCodes>(tile, columns, [&](int64_t b, const uint8_t* super, const uint8_t* block) {
    alignas(64) uint8_t bytes[8 * 64];
    auto unpack = [&]<int kQuad>() { b_store(bytes + kQuad * 64, unpack_quad<kCodes, kQuad>(block)); };
    for_each_index<0, 8>(unpack);
    F d, m;
    block_factors<kCodes>(super, block, &d, &m);
    for (int g = 0; g < groups; ++g) {
      float* at = out + g * kTokensAtOnce * kTileRows;
      F sum[kTokensAtOnce];
      for (int t = 0; t < kTokensAtOnce; ++t) sum[t] = f_load(at + t * kTileRows);
      add_block<kCodes, kTokensAtOnce>(UnpackedQuads{bytes}, block, d, m, x + g * kTokensAtOnce, b, sum);
      for (int t = 0; t < kTokensAtOnce; ++t) f_store(at + t * kTileRows, sum[t]);
    }
  });
}

// Calls run<kTokens>(first token) for groups of four and the rest.
template <class Run>
inline void in_groups(int num_tokens, Run run) {
  int t = 0;
  for (; t + kTokensAtOnce <= num_tokens; t += kTokensAtOnce) run.template operator()<4>(t);
  switch (num_tokens - t) {
    case 3: run.template operator()<3>(t); break;
    case 2: run.template operator()<2>(t); break;
    case 1: run.template operator()<1>(t); break;
    default: break;
  }
}

// How many groups of tokens go through the forms for many.
inline int groups_of(int num_tokens) { return num_tokens > kTokensAtOnce ? num_tokens / kTokensAtOnce : 0; }

template <FloatCodes kCodes>
void float_tokens(const uint8_t* tile, int64_t columns, const float* x, int64_t stride,
                  int num_tokens, float* out) {
  const int groups = groups_of(num_tokens), done = groups * kTokensAtOnce;
  if (groups > 0) float_tile_many<kCodes>(tile, columns, x, stride, groups, out);
  in_groups(num_tokens - done, [&]<int kTokens>(int t) {
    float_tile_few<kCodes, kTokens>(tile, columns, x + (done + t) * stride, stride,
                                    out + (done + t) * kTileRows);
  });
}

template <IntCodes kCodes>
void int_tokens(const uint8_t* tile, int64_t columns, const QuantizedRow* x, int num_tokens, float* out) {
  const int groups = groups_of(num_tokens), done = groups * kTokensAtOnce;
  if (groups > 0) int_tile_many<kCodes>(tile, columns, x, groups, out);
  in_groups(num_tokens - done, [&]<int kTokens>(int t) {
    int_tile_few<kCodes, kTokens>(tile, columns, x + done + t, out + (done + t) * kTileRows);
  });
}

void linear_float(FloatCodes codes, const uint8_t* tile, int64_t columns, const float* x,
                  int64_t stride, int num_tokens, float* out) {
  switch (codes) {
    case FloatCodes::f32: return float_tokens<FloatCodes::f32>(tile, columns, x, stride, num_tokens, out);
    case FloatCodes::f16: return float_tokens<FloatCodes::f16>(tile, columns, x, stride, num_tokens, out);
    case FloatCodes::bf16: return float_tokens<FloatCodes::bf16>(tile, columns, x, stride, num_tokens, out);
    case FloatCodes::e4m3: return float_tokens<FloatCodes::e4m3>(tile, columns, x, stride, num_tokens, out);
  }
}

void linear_int(IntCodes codes, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                int num_tokens, float* out) {
  switch (codes) {
    case IntCodes::q4_0: return int_tokens<IntCodes::q4_0>(tile, columns, x, num_tokens, out);
    case IntCodes::q4_1: return int_tokens<IntCodes::q4_1>(tile, columns, x, num_tokens, out);
    case IntCodes::q5_0: return int_tokens<IntCodes::q5_0>(tile, columns, x, num_tokens, out);
    case IntCodes::q5_1: return int_tokens<IntCodes::q5_1>(tile, columns, x, num_tokens, out);
    case IntCodes::q8_0: return int_tokens<IntCodes::q8_0>(tile, columns, x, num_tokens, out);
    case IntCodes::q4_k: return int_tokens<IntCodes::q4_k>(tile, columns, x, num_tokens, out);
    case IntCodes::q5_k: return int_tokens<IntCodes::q5_k>(tile, columns, x, num_tokens, out);
    case IntCodes::q6_k: return int_tokens<IntCodes::q6_k>(tile, columns, x, num_tokens, out);
  }
}
