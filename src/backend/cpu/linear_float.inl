// Products of one float tile of 16 rows, a few tokens at a time. Even and odd columns have sums of their
// own, joined at the end of a group. Included by isa_*.cpp behind tile_codes.inl.

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
