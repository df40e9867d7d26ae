// Panels in BF16 and their products on AMX (panel_kernels.h has the layouts and the contract). Included by
// isa_amx.cpp inside its namespace, behind tile_codes.inl, over simd_avx512.h and simd_amx.h.

inline void round_run(const float* x, int64_t stride, int rows, int64_t columns, uint16_t* out) {
  const int64_t whole = columns / kStepColumns;
  for (int i = 0; i < kTileRows; ++i) {
    uint16_t* to = out + i * kStepColumns;
    if (i >= rows) {
      for (int64_t s = 0; s < steps_of(columns); ++s) memset(to + s * kStepElements, 0, 2 * kStepColumns);
      continue;
    }
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

// --- Products. Four tiles hold sums: a step loads two runs of x and two tiles of weights for four
// multiplications, which take as long as the loads at 64 bytes a cycle.

// Sums in tile registers 0 to 3: run 0 with tiles 0 and 1, run 1 with tiles 0 and 1.
template <int kRuns, int kTiles>
inline void multiply_block(const PanelProduct& p, int64_t run, int64_t tile) {
  const uint16_t* x0 = p.x + run * p.x_stride;
  const uint16_t* x1 = x0 + (kRuns - 1) * p.x_stride;
  const uint16_t* w0 = p.weights + tile * p.weights_stride;
  const uint16_t* w1 = w0 + (kTiles - 1) * p.weights_stride;
  float* sums = p.sums + tile * p.sums_stride + run * kTileSums;
  if (p.add) {
    _tile_loadd(0, sums, 64);
    if constexpr (kTiles == 2) _tile_loadd(1, sums + p.sums_stride, 64);
    if constexpr (kRuns == 2) _tile_loadd(2, sums + kTileSums, 64);
    if constexpr (kRuns == 2 && kTiles == 2) _tile_loadd(3, sums + p.sums_stride + kTileSums, 64);
  } else {
    _tile_zero(0);
    if constexpr (kTiles == 2) _tile_zero(1);
    if constexpr (kRuns == 2) _tile_zero(2);
    if constexpr (kRuns == 2 && kTiles == 2) _tile_zero(3);
  }
  for (int64_t s = 0; s < p.steps; ++s) {
    _tile_loadd(4, x0 + s * kStepElements, 64);
    _tile_loadd(6, w0 + s * kStepElements, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTiles == 2) {
      _tile_loadd(7, w1 + s * kStepElements, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRuns == 2) {
      _tile_loadd(5, x1 + s * kStepElements, 64);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kTiles == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 64);
  if constexpr (kTiles == 2) _tile_stored(1, sums + p.sums_stride, 64);
  if constexpr (kRuns == 2) _tile_stored(2, sums + kTileSums, 64);
  if constexpr (kRuns == 2 && kTiles == 2) _tile_stored(3, sums + p.sums_stride + kTileSums, 64);
}

// Asks for part `part` of `parts` of what comes next of one tile, into the second cache.
inline void ask_ahead(const PanelProduct& p, int64_t tile, int64_t part, int64_t parts) {
  const uint8_t* from = p.ahead + tile * p.ahead_stride;
  const int64_t lines = (p.ahead_bytes + 63) / 64;
  for (int64_t i = lines * part / parts; i < lines * (part + 1) / parts; ++i) {
    __builtin_prefetch(from + 64 * i, 0, 2);
  }
}

template <int kTiles>
inline void multiply_tiles(const PanelProduct& p, int64_t tile) {
  const int64_t parts = (p.runs + 1) / 2;
  for (int64_t part = 0; part < parts; ++part) {
    if (p.ahead_bytes > 0) {
      for (int i = 0; i < kTiles; ++i) ask_ahead(p, tile + i, part, parts);
    }
    if (2 * part + 2 <= p.runs) multiply_block<2, kTiles>(p, 2 * part, tile);
    else multiply_block<1, kTiles>(p, 2 * part, tile);
  }
}

// Two tiles of weights stay in the nearest cache while the runs of x pass by.
inline void multiply(const PanelProduct& p) {
  TileScope scope;
  int64_t tile = 0;
  for (; tile + 2 <= p.tiles; tile += 2) multiply_tiles<2>(p, tile);
  if (tile < p.tiles) multiply_tiles<1>(p, tile);
}

// --- The limit: four products of the same tiles over and over.

struct PeakTiles {
  alignas(64) uint8_t x[1024], weights[1024];
  alignas(64) int32_t sums[256];
};
template <class Step>
inline void peak_of_tiles(PeakTiles& t, int64_t steps, Step step) {
  TileScope scope;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, t.x, 64);
  _tile_loadd(5, t.x, 64);
  _tile_loadd(6, t.weights, 64);
  _tile_loadd(7, t.weights, 64);
  for (int64_t i = 0; i < steps; ++i) step();
  _tile_stored(0, t.sums, 64);
}
inline double peak_bf16(int64_t steps, float* sink) {
  PeakTiles t = {};
  const F numbers = f_mul(f_load(sink), f_set1(0x1p-10f));
  for (int i = 0; i < 1024; i += 64) {
    f_store_pairs(reinterpret_cast<uint16_t*>(t.x + i), numbers, numbers);
    f_store_pairs(reinterpret_cast<uint16_t*>(t.weights + i), numbers, numbers);
  }
  peak_of_tiles(t, steps, [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  });
  memcpy(sink, t.sums, 64);
  return static_cast<double>(steps) * 4 * kTileSums * kStepColumns * 2;
}
inline double peak_matrix_int8(int64_t steps, float* sink) {
  PeakTiles t = {};
  for (int i = 0; i < 1024; ++i) t.x[i] = t.weights[i] = static_cast<uint8_t>(sink[i % 16]) & 15;
  peak_of_tiles(t, steps, [] {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  });
  for (int i = 0; i < 16; ++i) sink[i] = static_cast<float>(t.sums[i]);
  return static_cast<double>(steps) * 4 * kTileSums * 2 * kStepColumns * 2;
}
