// Panels in BF16 (panel_kernels.h has the layouts and the contract). Included by isa_avx512_bf16.cpp and isa_amx.cpp inside
// their namespaces, behind tile_codes.inl, over simd_avx512.h and simd_bf16.h.

inline void round_run(const float* x, int64_t stride, int rows, int64_t columns, uint16_t* out) {
  const int64_t whole = columns / kStepColumns;
  for (int i = 0; i < rows; ++i) {
    uint16_t* to = out + i * kStepColumns;
    const float* from = x + i * stride;
    for (int64_t s = 0; s < whole; ++s, from += kStepColumns, to += kStepElements) {
      f_store_two_bf16(to, f_load(from), f_load(from + 16));
    }
    if (columns % kStepColumns != 0) {
      alignas(64) float last[kStepColumns] = {};
      memcpy(last, from, static_cast<size_t>(columns % kStepColumns) * sizeof(float));
      f_store_two_bf16(to, f_load(last), f_load(last + 16));
    }
  }
}

// --- Weights.

template <FloatCodes kCodes>
inline void float_steps(const FloatTile& layout, const uint8_t* tile, int64_t columns, int64_t first,
                        int64_t steps, uint16_t* out) {
  const bool scaled = layout.scale != TileScale::none;
  const int64_t size = layout.group_columns == 0 ? columns : layout.group_columns;
  const int64_t begin = first * kStepColumns, end = begin + steps * kStepColumns;
  const int64_t stored = columns < end ? columns : end;
  int64_t k = begin;
  while (k < stored) {
    const int64_t group = k / size * size, group_end = stored - group < size ? stored : group + size;
    const uint8_t* header = tile + column_start(layout, group) - kTileRows * scale_bytes(layout.scale);
    const F scales = load_scales(layout.scale, header);
    const uint8_t* p = tile + column_start(layout, k);
    if constexpr (kCodes == FloatCodes::e4m3) {   // every code is a BF16
      if (!scaled) {
        const int64_t fours = (group_end - k) / 4 * 4;
        pairs_from_e4m3(p, fours, out);
        k += fours;
        p += fours * kTileRows;
        out += fours * kTileRows;
      }
    }
    for (; k < group_end; k += 2, p += 2 * kTileRows * code_bytes(kCodes), out += 2 * kTileRows) {
      F even, odd;
      load_two<kCodes>(p, &even, &odd);
      if (scaled) {
        even = f_mul(even, scales);
        odd = f_mul(odd, scales);
      }
      f_store_pairs(out, even, odd);
    }
  }
  for (; k < end; k += 2, out += 2 * kTileRows) memset(out, 0, 2 * kTileRows * sizeof(uint16_t));
}

inline void float_panel(const FloatTile& layout, const uint8_t* tile, int64_t columns, int64_t first,
                        int64_t steps, uint16_t* out) {
  switch (layout.codes) {
    case FloatCodes::f32: return float_steps<FloatCodes::f32>(layout, tile, columns, first, steps, out);
    case FloatCodes::f16: return float_steps<FloatCodes::f16>(layout, tile, columns, first, steps, out);
    case FloatCodes::bf16: return float_steps<FloatCodes::bf16>(layout, tile, columns, first, steps, out);
    case FloatCodes::e4m3: return float_steps<FloatCodes::e4m3>(layout, tile, columns, first, steps, out);
  }
}

// Of 16 columns of a block: the weight is d times the code plus m.
template <BlockScales kScales, int kHalf>
inline GroupFactors half_factors(const IntTile& layout, GroupFactors f, const uint8_t* scales) {
  const uint8_t* half = scales + kHalf * kTileRows;
  if (layout.minimum == Minimum::none) f.m = f_set1(0.0f);
  if constexpr (kScales == BlockScales::u8_min) {
    f.d = f_mul(f.d, f_from_i(i_from_u8(scales)));
    f.m = f_mul(f.m, f_from_i(i_from_u8(scales + kTileRows)));
  } else if constexpr (kScales == BlockScales::i8) {
    f.d = f_mul(f.d, f_from_i(i_from_i8(scales)));
  } else if constexpr (kScales == BlockScales::i8_halves) {
    f.d = f_mul(f.d, f_from_i(i_from_i8(half)));
  } else if constexpr (kScales == BlockScales::u4_halves) {
    f.d = f_mul(f.d, f_from_i(i_low_nibbles(half)));
    f.m = f_mul(f.m, f_from_i(i_high_nibbles(half)));
  } else if constexpr (kScales == BlockScales::e4m3_halves) {
    f.d = f_mul(f.d, f_from_e4m3_256th(half));
  }
  if (layout.offset != 0) f.m = f_fma(f.d, f_set1(static_cast<float>(-layout.offset)), f.m);
  return f;
}

template <IntCodes kCodes, int kHalf>
inline void half_block_panel(const uint8_t* codes, GroupFactors f, uint16_t* out) {
  constexpr bool kSigned = is_signed(kCodes);
  auto quad = [&]<int kQuad>() {
    const B w = unpack_quad<kCodes, kQuad>(codes);
    uint16_t* to = out + kQuad * 4 * kTileRows;
    f_store_pairs(to, f_fma(f_from_byte<0, kSigned>(w), f.d, f.m), f_fma(f_from_byte<1, kSigned>(w), f.d, f.m));
    f_store_pairs(to + 2 * kTileRows, f_fma(f_from_byte<2, kSigned>(w), f.d, f.m),
                  f_fma(f_from_byte<3, kSigned>(w), f.d, f.m));
  };
  for_each_index<4 * kHalf, 4 * kHalf + 4>(quad);
}

// A block of 32 columns is a step.
template <IntCodes kCodes, BlockScales kScales>
inline void int_steps(const IntTile& layout, const uint8_t* tile, int64_t first, int64_t steps, uint16_t* out) {
  static_assert(kBlock == kStepColumns);
  GroupFactors f = {f_set1(0.0f), f_set1(0.0f)};
  for (int64_t b = first; b < first + steps; ++b, out += kStepElements) {
    if (b == first || b % layout.group_blocks == 0) {
      f = group_factors<kCodes, kScales>(layout, tile + header_start(layout, b));
    }
    const uint8_t* block = tile + block_start(layout, b);
    const uint8_t* codes = block + block_scale_bytes(kScales);
    const GroupFactors low = half_factors<kScales, 0>(layout, f, block);
    half_block_panel<kCodes, 0>(codes, low, out);
    if constexpr (has_halves(kScales)) half_block_panel<kCodes, 1>(codes, half_factors<kScales, 1>(layout, f, block), out);
    else half_block_panel<kCodes, 1>(codes, low, out);
  }
}

inline void int_panel(const IntTile& layout, const uint8_t* tile, int64_t, int64_t first, int64_t steps,
                      uint16_t* out) {
  with_int_codes(layout, [&]<IntCodes kCodes, BlockScales kScales>() {
    int_steps<kCodes, kScales>(layout, tile, first, steps, out);
  });
}

// Asks for part `part` of `parts` of what comes next of one tile, into the second cache.
inline void ask_ahead(const PanelProduct& p, int64_t tile, int64_t part, int64_t parts) {
  const uint8_t* from = p.ahead + tile * p.ahead_stride;
  const int64_t lines = (p.ahead_bytes + 63) / 64;
  for (int64_t i = lines * part / parts; i < lines * (part + 1) / parts; ++i) {
    __builtin_prefetch(from + 64 * i, 0, 2);
  }
}
