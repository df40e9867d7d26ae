// Products of one float tile of 16 rows, a few tokens at a time. Even and odd columns have sums of their
// own, joined at the end of a group. Included by isa_*.cpp behind tile_codes.inl.

// The sums of `columns` columns of a tile for one or two tokens: x[t] are their inputs. (An odd last
// column is paired with zeros.)
template <FloatCodes kCodes, int kTokens>
inline void group_sums_few(const uint8_t* tile, int64_t columns, const float* const* x, F* sums) {
  constexpr int64_t kBytes = kTileRows * code_bytes(kCodes);  // of one column
  F even[kTokens], odd[kTokens], a, b;
  for (int t = 0; t < kTokens; ++t) even[t] = odd[t] = f_set1(0.0f);
  auto add = [&](int64_t k) {
    for (int t = 0; t < kTokens; ++t) {
      even[t] = f_fma(a, f_set1(x[t][k]), even[t]);
      odd[t] = f_fma(b, f_set1(x[t][k + 1]), odd[t]);
    }
  };
  int64_t k = 0;
  if constexpr (kCodes == FloatCodes::e4m3) {
    // Half of what E4M3 costs are its subnormals, and few weights are: eight columns without one take a
    // shorter way to the same floats.
    for (; k + 8 <= columns; k += 8) {
      const uint8_t* p = tile + k * kBytes;
      prefetch(p, 8 * kBytes);
      if (e4m3_are_normal(p)) {
        for (int j = 0; j < 8; j += 2) {
          f_two_from_normal_e4m3(p + j * kBytes, &a, &b);
          add(k + j);
        }
      } else {
        for (int j = 0; j < 8; j += 2) {
          load_two<kCodes>(p + j * kBytes, &a, &b);
          add(k + j);
        }
      }
    }
  }
  for (; k + 2 <= columns; k += 2) {
    prefetch(tile + k * kBytes, 2 * kBytes);
    load_two<kCodes>(tile + k * kBytes, &a, &b);
    add(k);
  }
  if (k < columns) {
    load_two<kCodes>(tile + k * kBytes, &a, &b);
    for (int t = 0; t < kTokens; ++t) even[t] = f_fma(a, f_set1(x[t][k]), even[t]);
  }
  for (int t = 0; t < kTokens; ++t) sums[t] = f_add(even[t], odd[t]);
}

// Columns of a tile as many tokens read them, kParity of columns k and k + 1, k even: BF16 as it is, E4M3 turned into
// it, the others turned into floats.
constexpr int64_t kChunkColumns = 128;  // even, so that a column's parity is that in the chunk
struct WordColumns {
  const uint8_t* words;
  template <int kParity>
  F column(int64_t k) const {
    F a, b;
    f_two_from_bf16(words + k * 2 * kTileRows, &a, &b);
    return kParity == 0 ? a : b;
  }
};
struct FloatColumns {
  const float* floats;
  template <int kParity>
  F column(int64_t k) const {
    return f_load(floats + (k + kParity) * kTileRows);
  }
};
struct ChunkBuffer {
  alignas(64) uint8_t bytes[kChunkColumns * kTileRows * sizeof(float)];
};
template <FloatCodes kCodes>
inline auto read_columns(const uint8_t* tile, int64_t columns, ChunkBuffer& buffer) {
  constexpr int64_t kBytes = kTileRows * code_bytes(kCodes);
  if constexpr (kCodes == FloatCodes::bf16) {
    return WordColumns{tile};
  } else if constexpr (kCodes == FloatCodes::e4m3) {
    auto* words = reinterpret_cast<int16_t*>(buffer.bytes);
    int64_t k = 0;
    for (; k + 8 <= columns; k += 8) {
      const uint8_t* p = tile + k * kBytes;
      if (e4m3_are_normal(p)) {
        for (int j = 0; j < 8; j += 2) words_from_normal_e4m3(p + j * kBytes, words + (k + j) * kTileRows);
      } else {
        for (int j = 0; j < 8; j += 2) words_from_e4m3(p + j * kBytes, words + (k + j) * kTileRows);
      }
    }
    for (; k < columns; k += 2) words_from_e4m3(tile + k * kBytes, words + k * kTileRows);
    return WordColumns{buffer.bytes};
  } else {
    auto* floats = reinterpret_cast<float*>(buffer.bytes);
    for (int64_t k = 0; k < columns; k += 2) {
      F a, b;
      load_two<kCodes>(tile + k * kBytes, &a, &b);
      f_store(floats + k * kTileRows, a);
      f_store(floats + (k + 1) * kTileRows, b);
    }
    return FloatColumns{floats};
  }
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

// sums[t] += every second of `count` columns, the even or the odd ones, times kTokens tokens that stand side by side in
// the columns of x, num_tokens apart. Memory has room for some twenty requests at a time: those for what comes later
// go out between the products, kBytes per column at `ahead`.
template <int kTokens, int kParity, int kBytes, class Columns>
inline void add_columns(Columns w, int64_t count, const float* x, int num_tokens, const uint8_t* ahead, float* sums) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_load(sums + 2 * t * kTileRows);
  x += kParity * num_tokens;
  for (int64_t k = 0; k + kParity < count; k += 2, x += 2 * num_tokens) {
    const F a = w.template column<kParity>(k);
    __builtin_prefetch(ahead + (k + kParity) * kBytes);
    for (int t = 0; t < kTokens; ++t) sum[t] = f_fma(a, f_set1(x[t]), sum[t]);
  }
  for (int t = 0; t < kTokens; ++t) f_store(sums + 2 * t * kTileRows, sum[t]);
}

// The same for many: columns are decoded once for all tokens. The same sums in the same order for
// each token. x: [columns][num_tokens]. sums: [num_tokens][2][16] floats, even and odd columns.
template <FloatCodes kCodes>
inline void group_sums_many(const uint8_t* tile, int64_t columns, const float* x, int num_tokens, float* sums) {
  constexpr int kBytes = kTileRows * code_bytes(kCodes);
  ChunkBuffer buffer;
  for (int i = 0; i < 2 * num_tokens; ++i) f_store(sums + i * kTileRows, f_set1(0.0f));
  for (int64_t first = 0; first < columns; first += kChunkColumns, x += kChunkColumns * num_tokens) {
    const int64_t count = columns - first < kChunkColumns ? columns - first : kChunkColumns;
    const uint8_t* chunk = tile + first * kBytes;
    const auto w = read_columns<kCodes>(chunk, count, buffer);
    in_float_groups(num_tokens, [&]<int kTokens>(int t) {
      const uint8_t* ahead = chunk + (t == 0 ? kChunkColumns * kBytes : 0);
      add_columns<kTokens, 0, kBytes>(w, count, x + t, num_tokens, ahead, sums + 2 * t * kTileRows);
      add_columns<kTokens, 1, kBytes>(w, count, x + t, num_tokens, ahead, sums + (2 * t + 1) * kTileRows);
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
