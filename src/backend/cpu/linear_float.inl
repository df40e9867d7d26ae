// Products of one float tile of 16 rows, a few tokens at a time. Even and odd columns have sums of their
// own, joined at the end of a group. Included by isa_*.cpp behind tile_codes.inl.

// Calls body(column, floats of the column, floats of the next) for every two of `columns` columns of a tile; an odd
// last one is paired with zeros. kAhead: what comes later is asked for.
template <FloatCodes kCodes, bool kAhead, class Body>
inline void each_two_columns(const uint8_t* tile, int64_t columns, Body body) {
  constexpr int64_t kBytes = kTileRows * code_bytes(kCodes);  // of one column
  F a, b;
  int64_t k = 0;
  if constexpr (kCodes == FloatCodes::e4m3) {
    // Half of what E4M3 costs are its subnormals, and few weights are: eight columns without one take a
    // shorter way to the same floats.
    for (; k + 8 <= columns; k += 8) {
      const uint8_t* p = tile + k * kBytes;
      if constexpr (kAhead) prefetch(p, 8 * kBytes);
      if (e4m3_are_normal(p)) {
        for (int j = 0; j < 8; j += 2) {
          f_two_from_normal_e4m3(p + j * kBytes, &a, &b);
          body(k + j, a, b);
        }
      } else {
        for (int j = 0; j < 8; j += 2) {
          load_two<kCodes>(p + j * kBytes, &a, &b);
          body(k + j, a, b);
        }
      }
    }
  }
  for (; k < columns; k += 2) {
    if constexpr (kAhead) prefetch(tile + k * kBytes, 2 * kBytes);
    load_two<kCodes>(tile + k * kBytes, &a, &b);
    body(k, a, b);
  }
}

// The sums of `columns` columns of a tile for one or two tokens: x[t] are their inputs.
template <FloatCodes kCodes, int kTokens>
inline void group_sums_few(const uint8_t* tile, int64_t columns, const float* const* x, F* sums) {
  F even[kTokens], odd[kTokens];
  for (int t = 0; t < kTokens; ++t) even[t] = odd[t] = f_set1(0.0f);
  const int64_t pairs = columns & ~int64_t{1};
  each_two_columns<kCodes, true>(tile, pairs, [&](int64_t k, F a, F b) {
    for (int t = 0; t < kTokens; ++t) {
      even[t] = f_fma(a, f_set1(x[t][k]), even[t]);
      odd[t] = f_fma(b, f_set1(x[t][k + 1]), odd[t]);
    }
  });
  if (pairs < columns) {
    F a, b;
    load_two<kCodes>(tile + pairs * kTileRows * code_bytes(kCodes), &a, &b);
    for (int t = 0; t < kTokens; ++t) even[t] = f_fma(a, f_set1(x[t][pairs]), even[t]);
  }
  for (int t = 0; t < kTokens; ++t) sums[t] = f_add(even[t], odd[t]);
}

// Calls run<kTokens>(first token) for groups of six, four, two and one. Six keep both units busy through the latency
// of a product; what is left of eight is better done by fours.
template <class Run>
inline void in_float_groups(int num_tokens, Run run) {
  int t = 0;
  for (; num_tokens - t >= 6 && num_tokens - t != 8; t += 6) run.template operator()<6>(t);
  for (; num_tokens - t >= 4; t += 4) run.template operator()<4>(t);
  if (num_tokens - t >= 2) {
    run.template operator()<2>(t);
    t += 2;
  }
  if (t < num_tokens) run.template operator()<1>(t);
}

// sums[t] += every second of `columns` float columns from `first` on, times kTokens tokens that stand side by side
// in the columns of x, num_tokens apart. Meanwhile the bytes of these columns are asked for at `ahead`.
template <int kTokens, int kBytes>
inline void add_columns(const float* w, int64_t first, int64_t columns, const float* x, int num_tokens,
                        const uint8_t* ahead, float* sums) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_load(sums + 2 * t * kTileRows);
  const float* inputs = x + first * num_tokens;
  for (int64_t k = first; k < columns; k += 2, inputs += 2 * num_tokens) {
    F a = f_load(w + k * kTileRows);
    __builtin_prefetch(ahead + k * kBytes);
    for (int t = 0; t < kTokens; ++t) sum[t] = f_fma(a, f_set1(inputs[t]), sum[t]);
  }
  for (int t = 0; t < kTokens; ++t) f_store(sums + 2 * t * kTileRows, sum[t]);
}

// The same for many: columns become floats once for all tokens. The same sums in the same order for
// each token. x: [columns][num_tokens]. sums: [num_tokens][2][16] floats, even and odd columns.
template <FloatCodes kCodes>
inline void group_sums_many(const uint8_t* tile, int64_t columns, const float* x, int num_tokens, float* sums) {
  constexpr int kBytes = kTileRows * code_bytes(kCodes);
  constexpr int64_t kColumns = 64;  // even, so that a column's parity is that in the chunk
  alignas(64) float w[kColumns * kTileRows];
  for (int i = 0; i < 2 * num_tokens; ++i) f_store(sums + i * kTileRows, f_set1(0.0f));
  for (int64_t first = 0; first < columns; first += kColumns, x += kColumns * num_tokens) {
    const int64_t count = columns - first < kColumns ? columns - first : kColumns;
    // Memory has room for some twenty requests at a time: they go out between the products.
    each_two_columns<kCodes, false>(tile + first * kBytes, count, [&](int64_t k, F a, F b) {
      f_store(w + k * kTileRows, a);
      f_store(w + (k + 1) * kTileRows, b);
    });
    in_float_groups(num_tokens, [&]<int kTokens>(int t) {
      const uint8_t* ahead = tile + first * kBytes + (t == 0 ? kPrefetchBytes : 0);
      add_columns<kTokens, kBytes>(w, 0, count, x + t, num_tokens, ahead, sums + 2 * t * kTileRows);
      add_columns<kTokens, kBytes>(w, 1, count, x + t, num_tokens, ahead, sums + (2 * t + 1) * kTileRows);
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
void float_tile_few(const FloatTile& layout, const uint8_t* tile, int64_t columns, FloatInputs x, float* out) {
  const bool scaled = layout.scale != TileScale::none;
  F total[kTokens];
  for (int t = 0; t < kTokens; ++t) total[t] = f_set1(0.0f);
  each_float_group<kCodes>(layout, tile, columns, [&](const uint8_t* p, int64_t first, int64_t count, F scales) {
    const float* inputs[kTokens];
    F sums[kTokens];
    for (int t = 0; t < kTokens; ++t) inputs[t] = x.x + t * x.stride + first;
    group_sums_few<kCodes, kTokens>(p, count, inputs, sums);
    for (int t = 0; t < kTokens; ++t) total[t] = scaled ? f_fma(sums[t], scales, total[t]) : sums[t];
  });
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, total[t]);
}

template <FloatCodes kCodes>
void float_tile_many(const FloatTile& layout, const uint8_t* tile, int64_t columns, FloatInputs x, float* out) {
  const bool scaled = layout.scale != TileScale::none;
  float sums[kMaxTokens * 2 * kTileRows];
  for (int t = 0; t < x.num_tokens; ++t) f_store(out + t * kTileRows, f_set1(0.0f));
  each_float_group<kCodes>(layout, tile, columns, [&](const uint8_t* p, int64_t first, int64_t count, F scales) {
    group_sums_many<kCodes>(p, count, x.x + first * x.num_tokens, x.num_tokens, sums);
    for (int t = 0; t < x.num_tokens; ++t) {
      const float* s = sums + 2 * t * kTileRows;
      const F sum = f_add(f_load(s), f_load(s + kTileRows));
      f_store(out + t * kTileRows, scaled ? f_fma(sum, scales, f_load(out + t * kTileRows)) : sum);
    }
  });
}

template <FloatCodes kCodes>
void float_tokens(const FloatTile& layout, const uint8_t* tile, int64_t columns, FloatInputs x, float* out) {
  static_assert(kFewTokens == 2);
  switch (x.num_tokens) {
    case 1: return float_tile_few<kCodes, 1>(layout, tile, columns, x, out);
    case 2: return float_tile_few<kCodes, 2>(layout, tile, columns, x, out);
    default: return float_tile_many<kCodes>(layout, tile, columns, x, out);
  }
}

void linear_float(const FloatTile& layout, const uint8_t* tile, int64_t columns, FloatInputs x, float* out) {
  switch (layout.codes) {
    case FloatCodes::f32: return float_tokens<FloatCodes::f32>(layout, tile, columns, x, out);
    case FloatCodes::f16: return float_tokens<FloatCodes::f16>(layout, tile, columns, x, out);
    case FloatCodes::bf16: return float_tokens<FloatCodes::bf16>(layout, tile, columns, x, out);
    case FloatCodes::e4m3: return float_tokens<FloatCodes::e4m3>(layout, tile, columns, x, out);
  }
}
