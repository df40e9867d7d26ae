// Products of one integer tile of 16 rows with inputs of 8 bits, a few tokens at a time. Included by
// isa_*.cpp behind tile_codes.inl.

inline int32_t load_quad(const int8_t* p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return quad;
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

// Where the sums of the tokens are: in registers, or in memory, which then is read late.
struct HeldSums {
  F* sum;
  F get(int t) const { return sum[t]; }
  void set(int t, F value) const { sum[t] = value; }
};
struct StoredSums {
  float* sum;
  F get(int t) const { return f_load(sum + t * kTileRows); }
  void set(int t, F value) const { f_store(sum + t * kTileRows, value); }
};

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

// sums.get(t) += one block of the tile times block `b` of token t. `scales`: the block's own.
template <IntCodes kCodes, BlockScales kScales, int kTokens, class Quads, class Sums>
inline void add_block(const IntTile& layout, GroupFactors f, Quads quads, const uint8_t* scales,
                      const QuantizedRow* x, int64_t b, Sums sums) {
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
    const int32_t* code_sums = x[t].sums + 2 * b;
    F sum = sums.get(t);
    const F scale = f_set1(x[t].scales[b]);
    if constexpr (kHalves) {
      if (layout.offset != 0) {
        low[t] = i_sub(low[t], i_set1(layout.offset * code_sums[0]));
        high[t] = i_sub(high[t], i_set1(layout.offset * code_sums[1]));
      }
    } else if (layout.offset != 0) {
      low[t] = i_sub(low[t], i_set1(layout.offset * (code_sums[0] + code_sums[1])));
    }
    if constexpr (kScales == BlockScales::e4m3_halves) {
      const F first = f_mul(f_from_i(low[t]), f_from_e4m3_256th(scales));
      const F both = f_fma(f_from_i(high[t]), f_from_e4m3_256th(scales + kTileRows), first);
      sums.set(t, f_fma(both, f_mul(f.d, scale), sum));
      continue;
    }
    I dot = low[t];
    if constexpr (kScales == BlockScales::i8) dot = i_mul(low[t], i_from_i8(scales));
    if constexpr (kScales == BlockScales::i8_halves) {
      dot = i_add(i_mul(low[t], i_from_i8(scales)), i_mul(high[t], i_from_i8(scales + kTileRows)));
    }
    if constexpr (kScales == BlockScales::u4_halves) {
      dot = i_add(i_mul(low[t], i_low_nibbles(scales)), i_mul(high[t], i_low_nibbles(scales + kTileRows)));
      const I minima = i_add(i_mul(i_high_nibbles(scales), i_set1(code_sums[0])),
                             i_mul(i_high_nibbles(scales + kTileRows), i_set1(code_sums[1])));
      sum = f_fma(f_from_i(minima), f_mul(f.m, scale), sum);
    }
    sum = f_fma(f_from_i(dot), f_mul(f.d, scale), sum);
    if constexpr (kScales == BlockScales::none || kScales == BlockScales::u8_min) {
      if (layout.minimum != Minimum::none) sum = f_fma(f.m, f_set1(x[t].scaled_sums[b]), sum);
    }
    sums.set(t, sum);
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
                                        x, b, HeldSums{sum});
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
    // Compilers else keep what they have just stored in registers, of which there are too few, and move it about.
    asm volatile("" : : "r"(bytes) : "memory");
    in_groups(num_tokens, [&]<int kTokens>(int first) {
      add_block<kCodes, kScales, kTokens>(layout, f, UnpackedQuads{bytes}, block, x + first, b,
                                          StoredSums{out + first * kTileRows});
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

void linear_int(const IntTile& layout, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                int num_tokens, float* out) {
  with_int_codes(layout, [&]<IntCodes kCodes, BlockScales kScales>() {
    int_tokens<kCodes, kScales>(layout, tile, columns, x, num_tokens, out);
  });
}
