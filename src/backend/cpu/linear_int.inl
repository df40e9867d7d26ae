// Products of one integer tile of 16 rows with inputs of 8 bits, a few tokens at a time. Included by
// isa_*.cpp behind tile_codes.inl.

// The record of one block of columns of kTokens tokens that run together (tile_layout.h).
template <int kTokens>
struct Run {
  const uint8_t* record;

  template <class T>
  T at(int64_t offset) const {
    T value;
    memcpy(&value, record + offset, sizeof(T));
    return value;
  }
  int32_t quad(int q, int t) const { return at<int32_t>(4 * (q * kTokens + t)); }
  float scale(int t) const { return at<float>(kRunScales * kTokens + 4 * t); }
  float scaled_sum(int t) const { return at<float>(kRunScaledSums * kTokens + 4 * t); }
  int32_t pair_sums(RunPart part, int t) const {
    return at<int32_t>(kRunPairSums * kTokens + 4 * (static_cast<int>(part) * kTokens + t));
  }
};

// Where the codes of a block come from: the packed block itself, or 8 x 64 bytes unpacked before.
template <IntCodes kCodes>
struct PackedQuads {
  const uint8_t* codes;
  template <int kQuad>
  B quad() const {
    return unpack_quad<kCodes, kQuad>(codes);
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

// How the products of a block are summed.
//   wide      signed codes, in 32 bits
//   whole     unsigned codes whose sums over a block fit the narrow sums
//   by_halves unsigned codes: narrow sums of 16 columns each
// Centred sums begin at -offset times the sum of the inputs and end at the products of the codes less the offset.
// Those are small, whatever they passed on the way: narrow sums that wrap around come back.
enum class SumKind : uint8_t { wide, whole, by_halves };
constexpr SumKind sum_kind(IntCodes codes, BlockScales scales, bool centred) {
  if (is_signed(codes)) return SumKind::wide;
  const int largest = centred ? (largest_code(codes) + 1) / 2 : largest_code(codes);
  const bool fits = largest * (kBlock / 2) * 127 <= 32767;
  return has_halves(scales) || !fits ? SumKind::by_halves : SumKind::whole;
}
// Codes that occur both with an offset and without one have kernels for either; six bits fit centred sums alone.
constexpr bool both_ways(IntCodes codes, BlockScales scales) {
  return scales == BlockScales::none && !is_signed(codes) && codes != IntCodes::u6 && codes != IntCodes::e2m1;
}
constexpr bool never_centred(IntCodes codes, BlockScales scales) {
  return is_signed(codes) || scales == BlockScales::u8_min || scales == BlockScales::u4_halves;
}
// What is subtracted from the codes in the sums, what of the offset is left for their end, and whether there is a
// minimum to add.
struct BlockTerms {
  int start_offset, end_offset;
  bool has_minimum;
};
template <IntCodes kCodes, bool kCentred>
inline BlockTerms block_terms(const IntTile& layout) {
  const int start = !kCentred ? 0 : kCodes == IntCodes::u6 ? 32 : layout.offset;
  return {start, layout.offset - start, layout.minimum != Minimum::none};
}

// narrow[t] = the products of quads [kFirst, kLast) with token t.
template <bool kCentred, int kFirst, int kLast, int kTokens, class Quads>
inline void narrow_sums(Quads quads, Run<kTokens> x, RunPart part, int offset, D* narrow) {
  if constexpr (kCentred) {
    for (int t = 0; t < kTokens; ++t) narrow[t] = d_start(x.pair_sums(part, t), offset);
  }
  auto step = [&]<int kQuad>() {
    const B w = quads.template quad<kQuad>();
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kQuad == kFirst && !kCentred) narrow[t] = d_mul(w, x.quad(kQuad, t));
      else narrow[t] = d_mac(narrow[t], w, x.quad(kQuad, t));
    }
  };
  for_each_index<kFirst, kLast>(step);
}

// What the products of a block are multiplied with.
template <BlockScales kScales>
struct BlockFactors {
  F d, m;
  BlockFactors(GroupFactors f, const uint8_t* scales) : d(f.d), m(f.m) {
    if constexpr (kScales == BlockScales::u8_min) {
      d = f_mul(d, f_from_i(i_from_u8(scales)));
      m = f_mul(m, f_from_i(i_from_u8(scales + kTileRows)));
    }
  }
};
template <>
struct BlockFactors<BlockScales::i8> {
  F d;
  I scale;
  BlockFactors(GroupFactors f, const uint8_t* scales) : d(f.d), scale(i_from_i8(scales)) {}
};
template <>
struct BlockFactors<BlockScales::i8_halves> {
  F d;
  S low, high;
  BlockFactors(GroupFactors f, const uint8_t* scales)
      : d(f.d), low(s_from_i8(scales)), high(s_from_i8(scales + kTileRows)) {}
};
template <>
struct BlockFactors<BlockScales::u4_halves> {
  F d, m;
  S low, high;
  H min_low, min_high;
  BlockFactors(GroupFactors f, const uint8_t* scales)
      : d(f.d), m(f.m), low(s_low_nibbles(scales)), high(s_low_nibbles(scales + kTileRows)),
        min_low(h_pairs_high_nibbles(scales)), min_high(h_pairs_high_nibbles(scales + kTileRows)) {}
};
template <>
struct BlockFactors<BlockScales::e4m3_halves> {
  F low, high;
  BlockFactors(GroupFactors f, const uint8_t* scales)
      : low(f_mul(f.d, f_from_e4m3_256th(scales))), high(f_mul(f.d, f_from_e4m3_256th(scales + kTileRows))) {}
};

// sums.get(t) += one block of the tile times the same block of token t.
template <SumKind kKind, bool kCentred, BlockScales kScales, int kTokens, class Quads, class Sums>
inline void add_block(BlockTerms terms, const BlockFactors<kScales>& f, Quads quads, Run<kTokens> x, Sums sums) {
  I dot[kTokens];
  D narrow[kTokens];
  F both[kTokens];
  if constexpr (kKind == SumKind::wide) {
    for (int t = 0; t < kTokens; ++t) dot[t] = i_signed_start(x.pair_sums(RunPart::whole, t));
    auto step = [&]<int kQuad>() {
      const B w = b_signed(quads.template quad<kQuad>());
      for (int t = 0; t < kTokens; ++t) dot[t] = i_mac_signed(dot[t], w, x.quad(kQuad, t));
    };
    for_each_index<0, 8>(step);
  } else if constexpr (kKind == SumKind::whole) {
    narrow_sums<kCentred, 0, 8>(quads, x, RunPart::whole, terms.start_offset, narrow);
    for (int t = 0; t < kTokens; ++t) dot[t] = d_flush(narrow[t]);
  } else {
    narrow_sums<kCentred, 0, 4>(quads, x, RunPart::first, terms.start_offset, narrow);
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kScales == BlockScales::e4m3_halves) both[t] = f_mul(f_from_i(d_flush(narrow[t])), f.low);
      else if constexpr (has_halves(kScales)) dot[t] = d_flush_scaled(narrow[t], f.low);
      else dot[t] = d_flush(narrow[t]);
    }
    narrow_sums<kCentred, 4, 8>(quads, x, RunPart::second, terms.start_offset, narrow);
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kScales == BlockScales::e4m3_halves) both[t] = f_fma(f_from_i(d_flush(narrow[t])), f.high, both[t]);
      else if constexpr (has_halves(kScales)) dot[t] = i_add(dot[t], d_flush_scaled(narrow[t], f.high));
      else dot[t] = i_add(dot[t], d_flush(narrow[t]));
    }
  }
  if constexpr (kScales == BlockScales::none && kKind != SumKind::whole) {
    if (terms.end_offset != 0) {
      for (int t = 0; t < kTokens; ++t) {
        dot[t] = i_add(dot[t], i_start(x.pair_sums(RunPart::whole, t), terms.end_offset));
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    const F scale = f_set1(x.scale(t));
    F sum = sums.get(t);
    if constexpr (kScales == BlockScales::e4m3_halves) {
      sum = f_fma(both[t], scale, sum);
    } else {
      if constexpr (kScales == BlockScales::i8) dot[t] = i_mul(dot[t], f.scale);
      if constexpr (kScales == BlockScales::u4_halves) {
        const I minima = i_mac_pairs(i_mac_pairs(i_zero(), f.min_low, x.pair_sums(RunPart::first, t)), f.min_high,
                                     x.pair_sums(RunPart::second, t));
        sum = f_fma(f_from_i(minima), f_mul(f.m, scale), sum);
      }
      sum = f_fma(f_from_i(dot[t]), f_mul(f.d, scale), sum);
      if constexpr (kScales == BlockScales::none || kScales == BlockScales::u8_min) {
        if (terms.has_minimum) sum = f_fma(f.m, f_set1(x.scaled_sum(t)), sum);
      }
    }
    sums.set(t, sum);
  }
}

// Calls body(its group's factors, block) for every block of a tile, in order.
template <IntCodes kCodes, BlockScales kScales, bool kOneToken, class Body>
inline void each_block(const IntTile& layout, const uint8_t* tile, int64_t columns, Body body) {
  constexpr int kBytes = block_bytes(kCodes, kScales);
  const int64_t blocks = columns / kBlock;
  // Eight-bit codes of one token pass at the rate of memory: what the first cache can ask for at a time is too little for them.
  constexpr int kLocality = kOneToken && kCodes == IntCodes::s8 ? 2 : 3;
  const int header = header_bytes(layout);
  for (int64_t first = 0; first < blocks; first += layout.group_blocks) {
    const int64_t end = blocks - first < layout.group_blocks ? blocks : first + layout.group_blocks;
    prefetch(tile, header);
    const GroupFactors f = group_factors<kCodes, kScales>(layout, tile);
    tile += header;
    for (int64_t b = first; b < end; ++b, tile += kBytes) {
      prefetch<kLocality>(tile, kBytes);
      body(f, tile);
    }
  }
}

// A few tokens: codes go from the packed block straight into the products, and the sums stay in registers.
template <IntCodes kCodes, BlockScales kScales, bool kCentred, int kTokens>
void int_tile_few(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, float* out) {
  const BlockTerms terms = block_terms<kCodes, kCentred>(layout);
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_set1(0.0f);
  each_block<kCodes, kScales, kTokens == 1>(layout, tile, columns, [&](GroupFactors f, const uint8_t* block) {
    add_block<sum_kind(kCodes, kScales, kCentred), kCentred, kScales, kTokens>(
        terms, BlockFactors<kScales>(f, block), PackedQuads<kCodes>{block + block_scale_bytes(kScales)}, Run<kTokens>{x},
        HeldSums{sum});
    x += kTokens * kTokenRecord;
  });
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, sum[t]);
}

// Runs: the same, but the sums wait in `out`. Each run unpacks the codes again. For one or two runs of four that costs
// less than storing what was unpacked; with the registers of AVX-512, for any number (kRunsOnly).
template <IntCodes kCodes, BlockScales kScales, bool kCentred>
void int_tile_runs(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, int num_tokens,
                   float* out) {
  const BlockTerms terms = block_terms<kCodes, kCentred>(layout);
  for (int t = 0; t < num_tokens; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_block<kCodes, kScales, false>(layout, tile, columns, [&](GroupFactors f, const uint8_t* block) {
    const BlockFactors<kScales> factors(f, block);
    auto add_run = [&]<int kTokens>(int first) {
      add_block<sum_kind(kCodes, kScales, kCentred), kCentred, kScales, kTokens>(
          terms, factors, PackedQuads<kCodes>{block + block_scale_bytes(kScales)}, Run<kTokens>{x},
          StoredSums{out + first * kTileRows});
      x += kTokens * kTokenRecord;
    };
    if constexpr (kRunsOnly) {
      in_groups(num_tokens, add_run);
    } else {
      for (int t = 0; t < num_tokens; t += 4) add_run.template operator()<4>(t);
    }
  });
}

// The products of a block whose codes lie unpacked with all tokens. Not a part of int_tile_many(), which knows the
// codes: so codes that are summed alike share it.
template <SumKind kKind, bool kCentred, BlockScales kScales>
[[gnu::noinline]] void add_unpacked_block(BlockTerms terms, const BlockFactors<kScales>& f, const uint8_t* bytes,
                                          const uint8_t* x, int num_tokens, float* out) {
  in_groups(num_tokens, [&]<int kTokens>(int first) {
    add_block<kKind, kCentred, kScales, kTokens>(terms, f, UnpackedQuads{bytes},
                                                 Run<kTokens>{x + first * kTokenRecord},
                                                 StoredSums{out + first * kTileRows});
  });
}

// Many: each block is unpacked once for all of them, and the sums wait in `out`. The same steps in
// the same order for each token.
template <IntCodes kCodes, BlockScales kScales, bool kCentred>
void int_tile_many(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, int num_tokens,
                   float* out) {
  const BlockTerms terms = block_terms<kCodes, kCentred>(layout);
  for (int t = 0; t < num_tokens; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_block<kCodes, kScales, false>(layout, tile, columns, [&](GroupFactors f, const uint8_t* block) {
    alignas(64) uint8_t bytes[8 * 64];
    auto unpack = [&]<int kQuad>() {
      b_store(bytes + kQuad * 64, unpack_quad<kCodes, kQuad>(block + block_scale_bytes(kScales)));
    };
    for_each_index<0, 8>(unpack);
    const BlockFactors<kScales> factors(f, block);
    add_unpacked_block<sum_kind(kCodes, kScales, kCentred), kCentred, kScales>(terms, factors, bytes, x, num_tokens, out);
    x += num_tokens * kTokenRecord;
  });
}

template <IntCodes kCodes, BlockScales kScales, bool kCentred>
void int_tokens(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, int num_tokens,
                float* out) {
  if constexpr (kFewTokenKernels) {
    if (num_tokens == 1) return int_tile_few<kCodes, kScales, kCentred, 1>(layout, tile, columns, x, out);
    if (num_tokens == 2) return int_tile_few<kCodes, kScales, kCentred, 2>(layout, tile, columns, x, out);
    if (kRunsOnly || num_tokens == 4 || num_tokens == 8) {
      return int_tile_runs<kCodes, kScales, kCentred>(layout, tile, columns, x, num_tokens, out);
    }
  }
  if constexpr (!kRunsOnly) int_tile_many<kCodes, kScales, kCentred>(layout, tile, columns, x, num_tokens, out);
}

void linear_int(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, int num_tokens,
                float* out) {
  with_int_codes(layout, [&]<IntCodes kCodes, BlockScales kScales>() {
    if constexpr (both_ways(kCodes, kScales)) {
      if (layout.offset == 0) return int_tokens<kCodes, kScales, false>(layout, tile, columns, x, num_tokens, out);
    }
    int_tokens<kCodes, kScales, !never_centred(kCodes, kScales)>(layout, tile, columns, x, num_tokens, out);
  });
}
