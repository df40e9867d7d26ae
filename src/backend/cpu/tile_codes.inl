// What the bytes of a packed tile stand for (tile_layout.h draws them), for products and for panels. Written
// over the vector vocabulary; included by isa_*.cpp only, inside their namespace.

// Calls run<kTokens>(first token) for groups of four, two and one, and of eight where kMost is 8.
template <int kMost, class Run>
inline void in_groups(int num_tokens, Run run) {
  int t = 0;
  if constexpr (kMost == 8) {
    for (; t + 8 <= num_tokens; t += 8) run.template operator()<8>(t);
  }
  for (; t + 4 <= num_tokens; t += 4) run.template operator()<4>(t);
  if (t + 2 <= num_tokens) {
    run.template operator()<2>(t);
    t += 2;
  }
  if (t < num_tokens) run.template operator()<1>(t);
}

// How far ahead of a product its weights are asked for. They come from memory once per step, in one
// long run; the hardware's own prefetch is not enough for the full rate (10 % less of it on Zen 3). kCodesAhead, of the instruction
// set: where codes of 4 to 8 bits are multiplied.
constexpr int64_t kPrefetchBytes = 2048;
template <int kLocality = 3, int64_t kAhead = kPrefetchBytes>  // 3: into the first cache, 2: into the second
inline void prefetch(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + kAhead + i, 0, kLocality);
}

// What to add to the place of a line that is asked for from byte `at` of one of kTiles tiles that are read side by side, `stride`
// bytes each: behind the end of a tile come its neighbours, which are being read, and then the one that is read next.
template <int kTiles, int64_t kAhead = kPrefetchBytes>
inline int64_t past_neighbours(int64_t at, int64_t stride) {
  return kTiles > 1 && at + kAhead >= stride ? (kTiles - 1) * stride : 0;
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

constexpr bool is_signed(IntCodes codes) { return codes == IntCodes::s8 || codes == IntCodes::iq4; }

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

// Calls body<first>() … body<last - 1>(): shifts must be constants.
template <int kFirst, int kLast, class Body>
inline void for_each_index(Body& body) {
  if constexpr (kFirst < kLast) {
    body.template operator()<kFirst>();
    for_each_index<kFirst + 1, kLast>(body);
  }
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

// Calls run<codes, block scales>() for those of a layout, out of all that occur together.
template <class Run>
inline void with_int_codes(const IntTile& layout, Run run) {
  using enum BlockScales;
  switch (layout.codes) {
    case IntCodes::u2:
      if (layout.block_scales == u4_halves) return run.template operator()<IntCodes::u2, u4_halves>();
      return run.template operator()<IntCodes::u2, none>();
    case IntCodes::u3:
      if (layout.block_scales == i8_halves) return run.template operator()<IntCodes::u3, i8_halves>();
      return run.template operator()<IntCodes::u3, none>();
    case IntCodes::u4:
      if (layout.block_scales == u8_min) return run.template operator()<IntCodes::u4, u8_min>();
      return run.template operator()<IntCodes::u4, none>();
    case IntCodes::u5:
      if (layout.block_scales == u8_min) return run.template operator()<IntCodes::u5, u8_min>();
      return run.template operator()<IntCodes::u5, none>();
    case IntCodes::u6:
      if (layout.block_scales == i8_halves) return run.template operator()<IntCodes::u6, i8_halves>();
      return run.template operator()<IntCodes::u6, none>();
    case IntCodes::s8: return run.template operator()<IntCodes::s8, none>();
    case IntCodes::e2m1:
      if (layout.block_scales == e4m3_halves) return run.template operator()<IntCodes::e2m1, e4m3_halves>();
      return run.template operator()<IntCodes::e2m1, none>();
    case IntCodes::iq4:
      if (layout.block_scales == i8) return run.template operator()<IntCodes::iq4, i8>();
      return run.template operator()<IntCodes::iq4, none>();
  }
}
