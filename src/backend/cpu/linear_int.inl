// Products of integer tiles of 16 rows with inputs of 8 bits, a few tokens at a time. Included by
// isa_*.cpp behind tile_codes.inl.

// The record of one block of columns of kTokens tokens that run together (run_layout.h), or two such records of four.
template <int kTokens>
struct Run {
  const uint8_t* record;
  static constexpr int kRun = kTokens < 4 ? kTokens : 4;

  template <class T>
  T at(int t, int64_t offset) const {
    T value;
    memcpy(&value, record + t / kRun * kRun * kTokenRecord + offset + 4 * (t % kRun), sizeof(T));
    return value;
  }
  int32_t quad(int q, int t) const { return at<int32_t>(t, 4 * q * kRun); }
  float scale(int t) const { return at<float>(t, kRunScales * kRun); }
  float scaled_sum(int t) const { return at<float>(t, kRunScaledSums * kRun); }
  int32_t pair_sums(RunPart part, int t) const {
    return at<int32_t>(t, (kRunPairSums + 4 * static_cast<int>(part)) * kRun);
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

// Where the sums of the tokens of tile j are: in registers, or in memory, which then is read late.
template <int kTokens>
struct HeldSums {
  F (*sum)[kTokens];
  F get(int j, int t) const { return sum[j][t]; }
  void set(int j, int t, F value) const { sum[j][t] = value; }
};
struct StoredSums {
  float* sum;
  int64_t stride;  // from tile to tile
  F get(int j, int t) const { return f_load(sum + j * stride + t * kTileRows); }
  void set(int j, int t, F value) const { f_store(sum + j * stride + t * kTileRows, value); }
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
  const bool fits = !kNarrowSums || largest * (kBlock / 2) * 127 <= 32767;
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
  const int start = !kCentred ? 0 : kCodes == IntCodes::u6 && kNarrowSums ? 32 : layout.offset;
  return {start, layout.offset - start, layout.minimum != Minimum::none};
}

// narrow[j][t] = the products of quads [kFirst, kLast) of tile j with token t.
template <bool kCentred, int kFirst, int kLast, int kTiles, int kTokens, class Quads>
inline void narrow_sums(const Quads (&quads)[kTiles], Run<kTokens> x, RunPart part, int offset,
                        D (&narrow)[kTiles][kTokens]) {
  if constexpr (kCentred) {
    for (int t = 0; t < kTokens; ++t) {
      const D start = d_start(x.pair_sums(part, t), offset);
      for (int j = 0; j < kTiles; ++j) narrow[j][t] = start;
    }
  }
  auto step = [&]<int kQuad>() {
    B w[kTiles];
    for (int j = 0; j < kTiles; ++j) w[j] = quads[j].template quad<kQuad>();
    for (int t = 0; t < kTokens; ++t) {
      const int32_t quad = x.quad(kQuad, t);
      for (int j = 0; j < kTiles; ++j) {
        if constexpr (kQuad == kFirst && !kCentred) narrow[j][t] = d_mul(w[j], quad);
        else narrow[j][t] = d_mac(narrow[j][t], w[j], quad);
      }
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

// sums.get(j, t) += one block of tile j times the same block of token t.
template <SumKind kKind, bool kCentred, BlockScales kScales, int kTiles, int kTokens, class Quads, class Sums>
inline void add_block(BlockTerms terms, const BlockFactors<kScales> (&f)[kTiles], const Quads (&quads)[kTiles],
                      Run<kTokens> x, Sums sums) {
  I dot[kTiles][kTokens];
  D narrow[kTiles][kTokens];
  F both[kTiles][kTokens];
  auto each = [](auto body) {
    for (int t = 0; t < kTokens; ++t) {
      for (int j = 0; j < kTiles; ++j) body(j, t);
    }
  };
  if constexpr (kKind == SumKind::wide) {
    for (int t = 0; t < kTokens; ++t) {
      const I start = i_signed_start(x.pair_sums(RunPart::whole, t));
      for (int j = 0; j < kTiles; ++j) dot[j][t] = start;
    }
    auto step = [&]<int kQuad>() {
      B w[kTiles];
      for (int j = 0; j < kTiles; ++j) w[j] = b_signed(quads[j].template quad<kQuad>());
      for (int t = 0; t < kTokens; ++t) {
        const int32_t quad = x.quad(kQuad, t);
        for (int j = 0; j < kTiles; ++j) dot[j][t] = i_mac_signed(dot[j][t], w[j], quad);
      }
    };
    for_each_index<0, 8>(step);
  } else if constexpr (kKind == SumKind::whole) {
    narrow_sums<kCentred, 0, 8>(quads, x, RunPart::whole, terms.start_offset, narrow);
    each([&](int j, int t) { dot[j][t] = d_flush(narrow[j][t]); });
  } else {
    narrow_sums<kCentred, 0, 4>(quads, x, RunPart::first, terms.start_offset, narrow);
    each([&](int j, int t) {
      if constexpr (kScales == BlockScales::e4m3_halves) both[j][t] = f_mul(f_from_i(d_flush(narrow[j][t])), f[j].low);
      else if constexpr (has_halves(kScales)) dot[j][t] = d_flush_scaled(narrow[j][t], f[j].low);
      else dot[j][t] = d_flush(narrow[j][t]);
    });
    narrow_sums<kCentred, 4, 8>(quads, x, RunPart::second, terms.start_offset, narrow);
    each([&](int j, int t) {
      if constexpr (kScales == BlockScales::e4m3_halves)
        both[j][t] = f_fma(f_from_i(d_flush(narrow[j][t])), f[j].high, both[j][t]);
      else if constexpr (has_halves(kScales)) dot[j][t] = i_add(dot[j][t], d_flush_scaled(narrow[j][t], f[j].high));
      else dot[j][t] = i_add(dot[j][t], d_flush(narrow[j][t]));
    });
  }
  if constexpr (kScales == BlockScales::none && kKind != SumKind::whole) {
    if (terms.end_offset != 0) {
      each([&](int j, int t) {
        dot[j][t] = i_add(dot[j][t], i_start(x.pair_sums(RunPart::whole, t), terms.end_offset));
      });
    }
  }
  each([&](int j, int t) {
    const F scale = f_set1(x.scale(t));
    F sum = sums.get(j, t);
    if constexpr (kScales == BlockScales::e4m3_halves) {
      sum = f_fma(both[j][t], scale, sum);
    } else {
      if constexpr (kScales == BlockScales::i8) dot[j][t] = i_mul(dot[j][t], f[j].scale);
      if constexpr (kScales == BlockScales::u4_halves) {
        const I minima = i_mac_pairs(i_mac_pairs(i_zero(), f[j].min_low, x.pair_sums(RunPart::first, t)), f[j].min_high,
                                     x.pair_sums(RunPart::second, t));
        sum = f_fma(f_from_i(minima), f_mul(f[j].m, scale), sum);
      }
      sum = f_fma(f_from_i(dot[j][t]), f_mul(f[j].d, scale), sum);
      if constexpr (kScales == BlockScales::none || kScales == BlockScales::u8_min) {
        if (terms.has_minimum) sum = f_fma(f[j].m, f_set1(x.scaled_sum(t)), sum);
      }
    }
    sums.set(j, t, sum);
  });
}

// Calls body(factors of its group, block) for every block of kTiles tiles, in order; `block` is that of the first tile, and
// those of the others follow at `stride`.
template <IntCodes kCodes, BlockScales kScales, bool kOneToken, int kTiles, class Body>
inline void each_block(const IntTile& layout, const uint8_t* tile, int64_t stride, int64_t columns, Body body) {
  constexpr int kBytes = block_bytes(kCodes, kScales);
  const int64_t blocks = columns / kBlock;
  // Eight-bit codes of one token pass at the rate of memory: what the first cache can ask for at a time is too little for them.
  constexpr int kLocality = kOneToken && kCodes == IntCodes::s8 ? 2 : 3;
  const int header = header_bytes(layout);
  const uint8_t* const start = tile;
  for (int64_t first = 0; first < blocks; first += layout.group_blocks) {
    const int64_t end = blocks - first < layout.group_blocks ? blocks : first + layout.group_blocks;
    GroupFactors f[kTiles];
    for (int j = 0; j < kTiles; ++j) {
      prefetch<3, kCodesAhead>(tile + j * stride, header);
      f[j] = group_factors<kCodes, kScales>(layout, tile + j * stride);
    }
    tile += header;
    for (int64_t b = first; b < end; ++b, tile += kBytes) {
      const int64_t skip = past_neighbours<kTiles, kCodesAhead>(tile - start, stride);
      for (int j = 0; j < kTiles; ++j) prefetch<kLocality, kCodesAhead>(tile + j * stride + skip, kBytes);
      body(f, tile);
    }
  }
}

template <int... kTile>
struct TileList {};
template <int kTiles>
constexpr auto tile_list() {
  if constexpr (kTiles == 1) return TileList<0>();
  else return TileList<0, 1>();
}

// One block of kTiles tiles: its factors, and where its codes are.
template <IntCodes kCodes, BlockScales kScales, int kTiles>
struct PackedBlock {
  BlockFactors<kScales> factors[kTiles];
  PackedQuads<kCodes> quads[kTiles];

  PackedBlock(const GroupFactors (&f)[kTiles], const uint8_t* block, int64_t stride)
      : PackedBlock(f, block, stride, tile_list<kTiles>()) {}

 private:
  template <int... kTile>
  PackedBlock(const GroupFactors (&f)[kTiles], const uint8_t* block, int64_t stride, TileList<kTile...>)
      : factors{BlockFactors<kScales>(f[kTile], block + kTile * stride)...},
        quads{PackedQuads<kCodes>{block + kTile * stride + block_scale_bytes(kScales)}...} {}
};

// A few tokens: codes go from the packed block straight into the products, and the sums stay in registers.
template <IntCodes kCodes, BlockScales kScales, bool kCentred, int kTokens>
void int_tile_few(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, float* out) {
  const BlockTerms terms = block_terms<kCodes, kCentred>(layout);
  F sum[1][kTokens];
  for (int t = 0; t < kTokens; ++t) sum[0][t] = f_set1(0.0f);
  each_block<kCodes, kScales, kTokens == 1, 1>(
      layout, tile, 0, columns, [&](const GroupFactors(&f)[1], const uint8_t* at) {
        const PackedBlock<kCodes, kScales, 1> block(f, at, 0);
        add_block<sum_kind(kCodes, kScales, kCentred), kCentred, kScales>(terms, block.factors, block.quads,
                                                                          Run<kTokens>{x}, HeldSums<kTokens>{sum});
        x += kTokens * kTokenRecord;
      });
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, sum[0][t]);
}

// Runs: the same, but the sums wait in `out`. Each run unpacks the codes again. For one or two runs of four that costs
// less than storing what was unpacked; with the registers of AVX-512, for any number (kRunsOnly), and for two tiles at once,
// which share what is loaded of x: a core that multiplies twice a cycle loads no more often.
template <IntCodes kCodes, BlockScales kScales, bool kCentred, int kTiles>
void int_tile_runs(const IntTile& layout, const uint8_t* tile, int64_t stride, int64_t columns, const uint8_t* x,
                   int num_tokens, float* out) {
  constexpr SumKind kKind = sum_kind(kCodes, kScales, kCentred);
  const BlockTerms terms = block_terms<kCodes, kCentred>(layout);
  const int64_t sums_stride = num_tokens * kTileRows;
  for (int64_t i = 0; i < kTiles * num_tokens; ++i) f_store(out + i * kTileRows, f_set1(0.0f));
  each_block<kCodes, kScales, false, kTiles>(
      layout, tile, stride, columns, [&](const GroupFactors(&f)[kTiles], const uint8_t* at) {
        const PackedBlock<kCodes, kScales, kTiles> block(f, at, stride);
        const uint8_t* record = x;
        auto add_run = [&]<int kTokens>(int first) {
          add_block<kKind, kCentred, kScales>(terms, block.factors, block.quads, Run<kTokens>{record},
                                              StoredSums{out + first * kTileRows, sums_stride});
          record += kTokens * kTokenRecord;
        };
        if constexpr (kRunsOnly) {
          // Eight tokens share what is unpacked where their sums leave room in the registers. (With a minimum and no block
          // scales GCC 12 keeps what it unpacked on the stack.)
          constexpr bool kEight = kKind == SumKind::whole && (kCentred || kScales != BlockScales::none);
          in_groups<kEight ? 8 : 4>(num_tokens, add_run);
        } else {
          for (int t = 0; t < num_tokens; t += 4) add_run.template operator()<4>(t);
        }
        x = record;
      });
}

// The products of a block whose codes lie unpacked with all tokens. Not a part of int_tile_many(), which knows the
// codes: so codes that are summed alike share it.
template <SumKind kKind, bool kCentred, BlockScales kScales>
[[gnu::noinline]] void add_unpacked_block(BlockTerms terms, const BlockFactors<kScales> (&f)[1], const uint8_t* bytes,
                                          const uint8_t* x, int num_tokens, float* out) {
  const UnpackedQuads quads[1] = {{bytes}};
  in_groups<4>(num_tokens, [&]<int kTokens>(int first) {
    add_block<kKind, kCentred, kScales>(terms, f, quads, Run<kTokens>{x + first * kTokenRecord},
                                        StoredSums{out + first * kTileRows, 0});
  });
}

// Many: each block is unpacked once for all of them, and the sums wait in `out`. The same steps in
// the same order for each token.
template <IntCodes kCodes, BlockScales kScales, bool kCentred>
void int_tile_many(const IntTile& layout, const uint8_t* tile, int64_t columns, const uint8_t* x, int num_tokens,
                   float* out) {
  const BlockTerms terms = block_terms<kCodes, kCentred>(layout);
  for (int t = 0; t < num_tokens; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_block<kCodes, kScales, false, 1>(layout, tile, 0, columns, [&](const GroupFactors(&f)[1], const uint8_t* at) {
    const PackedBlock<kCodes, kScales, 1> block(f, at, 0);
    alignas(64) uint8_t bytes[8 * 64];
    auto unpack = [&]<int kQuad>() { b_store(bytes + kQuad * 64, block.quads[0].template quad<kQuad>()); };
    for_each_index<0, 8>(unpack);
    add_unpacked_block<sum_kind(kCodes, kScales, kCentred), kCentred, kScales>(terms, block.factors, bytes, x,
                                                                               num_tokens, out);
    x += num_tokens * kTokenRecord;
  });
}

template <IntCodes kCodes, BlockScales kScales, bool kCentred>
void int_tokens(const IntTiles& tiles, const uint8_t* x, int num_tokens, float* out) {
  const IntTile& layout = tiles.layout;
  if constexpr (kRunsOnly) {
    // A single tile counts for two: its products are made twice, to the same place.
    if (num_tokens > 2)
      return int_tile_runs<kCodes, kScales, kCentred, 2>(layout, tiles.data, tiles.stride, tiles.columns, x, num_tokens,
                                                         out);
  }
  for (int j = 0; j < tiles.count; ++j, out += num_tokens * kTileRows) {
    const uint8_t* tile = tiles.data + j * tiles.stride;
    if constexpr (kFewTokenKernels) {
      if (num_tokens == 1) int_tile_few<kCodes, kScales, kCentred, 1>(layout, tile, tiles.columns, x, out);
      else if (num_tokens == 2) int_tile_few<kCodes, kScales, kCentred, 2>(layout, tile, tiles.columns, x, out);
      else if constexpr (!kRunsOnly) {
        if (num_tokens == 4 || num_tokens == 8)
          int_tile_runs<kCodes, kScales, kCentred, 1>(layout, tile, 0, tiles.columns, x, num_tokens, out);
        else int_tile_many<kCodes, kScales, kCentred>(layout, tile, tiles.columns, x, num_tokens, out);
      }
    } else {
      int_tile_many<kCodes, kScales, kCentred>(layout, tile, tiles.columns, x, num_tokens, out);
    }
  }
}

void linear_int(const IntTiles& tiles, const uint8_t* x, int num_tokens, float* out) {
  with_int_codes(tiles.layout, [&]<IntCodes kCodes, BlockScales kScales>() {
    if constexpr (both_ways(kCodes, kScales)) {
      if (tiles.layout.offset == 0) return int_tokens<kCodes, kScales, false>(tiles, x, num_tokens, out);
    }
    int_tokens<kCodes, kScales, !never_centred(kCodes, kScales)>(tiles, x, num_tokens, out);
  });
}
