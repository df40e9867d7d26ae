// Attention over keys and values in BF16 or E4M3, which is BF16 exactly, by AVX512-BF16's dot product: queries and the
// weights of the values are rounded to BF16 once, sums are float32. Included by isa_avx512_bf16.cpp behind attention_steps.inl, and
// by isa_amx.cpp for what both have in common.
//
// Tiles have the order of pairs already (kv_layout.h). A block of which a query sees a part multiplies its values in float32:
// what stands beside them may be anything, and nothing times anything is not nothing.
//
// The heads of one token wait for memory, which likes one tile read from end to end. Where there are more queries, arithmetic is the
// limit, and two tiles are multiplied at once (attention_steps.inl). Both add a query's products in the same order.

// Few queries: sums[q] += all steps of a tile of pairs times x[q][step]. Memory has room for some twenty requests at a time: those for
// `ahead` go out between the products.
template <int kQueries>
inline void add_pair_steps(const uint16_t* tile, int32_t steps, const int16_t* x, int64_t stride, const uint8_t* ahead,
                           F* sums) {
  F s[kQueries];
  for (int q = 0; q < kQueries; ++q) s[q] = sums[q];
  for (int32_t k = 0; k < steps; k += 2) {
    prefetch_line(ahead + k * 32);
    for (int q = 0; q < kQueries; ++q)
      s[q] = f_dot_bf16(s[q], tile + k * kKvLanes, reinterpret_cast<const uint16_t*>(x + q * stride + k));
  }
  for (int q = 0; q < kQueries; ++q) sums[q] = s[q];
}
// The same from E4M3: decoding needs other units than products, and takes place beside them.
template <int kQueries>
inline void add_code_steps(const uint8_t* tile, int32_t steps, const int16_t* x, int64_t stride, const uint8_t* ahead, F* sums) {
  const PairsOfE4m3 pairs_of;
  F s[kQueries];
  for (int q = 0; q < kQueries; ++q) s[q] = sums[q];
  for (int32_t k = 0; k < steps; k += 4) {
    prefetch_line(ahead + k * kKvLanes);
    __m512i first, second;
    pairs_of(tile + k * kKvLanes, &first, &second);
    for (int q = 0; q < kQueries; ++q) s[q] = f_dot_bf16(s[q], first, reinterpret_cast<const uint16_t*>(x + q * stride + k));
    for (int q = 0; q < kQueries; ++q) s[q] = f_dot_bf16(s[q], second, reinterpret_cast<const uint16_t*>(x + q * stride + k + 2));
  }
  for (int q = 0; q < kQueries; ++q) sums[q] = s[q];
}
// For all queries, of which there are few: start(q) gives the sums of a query before, finish(q, sums) takes them. `next`: what comes next
// in the place of the tile.
template <class Start, class Finish>
inline void few_products(const AttendBlock& a, const uint8_t* tile, const uint8_t* next, int32_t steps,
                         const int16_t* x, Start start, Finish finish) {
  const bool from_codes = a.type == KernelKv::fp8;
  const uint16_t* pairs = from_codes ? nullptr : reinterpret_cast<const uint16_t*>(tile);
  in_query_groups<kQueriesAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
    F sums[kQueries];
    for (int i = 0; i < kQueries; ++i) sums[i] = start(q + i);
    const uint8_t* ahead = q == 0 ? next : tile;
    if (from_codes) add_code_steps<kQueries>(tile, steps, x + q * steps, steps, ahead, sums);
    else add_pair_steps<kQueries>(pairs, steps, x + q * steps, steps, ahead, sums);
    for (int i = 0; i < kQueries; ++i) finish(q + i, sums[i]);
  });
}

// The weights of the values in BF16.
inline void round_weights(const AttendBlock& a) {
  for (int32_t q = 0; q < a.num_queries; ++q) {
    const float* p = a.scores + q * kKvTokens;
    f_store_two_bf16(reinterpret_cast<uint16_t*>(a.p_codes + q * kKvTokens), f_load(p), f_load(p + 16));
  }
}
// scores := scores times the scales of the keys.
inline void scale_scores(const AttendBlock& a) {
  const F low = token_scales(a, a.k, 0), high = token_scales(a, a.k, kKvLanes);
  for (int32_t q = 0; q < a.num_queries; ++q) {
    float* p = a.scores + q * kKvTokens;
    f_store(p, f_mul(f_load(p), low));
    f_store(p + kKvLanes, f_mul(f_load(p + kKvLanes), high));
  }
}

inline void score_keys_for_few(const AttendBlock& a) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, padded);
  for (int32_t first = 0; first < kKvTokens; first += kKvLanes) {
    if (first >= a.end || first + kKvLanes <= a.first) continue;
    const int64_t at = first / kKvLanes * tile_bytes;
    const F scales = kv_has_scales(a.type) ? token_scales(a, a.k, first) : f_set1(1.0f);
    few_products(
        a, a.k + at, a.next_k + at, padded, a.q_codes, [](int32_t) { return f_set1(0.0f); },
        [&](int32_t q, F sum) {
          f_store(a.scores + q * kKvTokens + first, kv_has_scales(a.type) ? f_mul(sum, scales) : sum);
        });
  }
}
inline void add_values_for_few(const AttendBlock& a, bool grown) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, kKvTokens);
  for (int32_t d = 0; d < padded; d += kKvLanes) {
    const int64_t at = d / kKvLanes * tile_bytes;
    float* out = a.out + d;
    few_products(
        a, a.v + at, a.next_v + at, kKvTokens, a.p_codes,
        [&](int32_t q) { return corrected(out + q * padded, a.corrections[q], grown); },
        [&](int32_t q, F sum) { f_store(out + q * padded, sum); });
  }
}

// Many queries. All `steps` of tiles as pairs; of E4M3 in `wide`. `next`, what comes in their place, is asked for where codes are read
// already.
inline const uint16_t* pair_steps(const AttendBlock& a, const uint8_t* tiles, int32_t steps, const uint8_t* next) {
  if (a.type == KernelKv::bf16) return reinterpret_cast<const uint16_t*>(tiles);
  for (int32_t k = 0; k < steps; k += 4) {
    prefetch_line(next + k * kKvLanes);
    pairs_from_e4m3(tiles + k * kKvLanes, 4, a.wide + k * kKvLanes);
  }
  return reinterpret_cast<const uint16_t*>(a.wide);
}
// What is asked for while `tiles` are multiplied: once, what comes in their place; where that is asked for already, what is there.
inline const uint8_t* asked_with(const AttendBlock& a, const uint16_t* tiles, const uint8_t* next, int32_t q) {
  return a.type == KernelKv::bf16 && q == 0 ? next : reinterpret_cast<const uint8_t*>(tiles);
}
inline F multiply_pairs(F sum, __m512i pairs, const uint8_t* x) {
  return f_dot_bf16(sum, pairs, reinterpret_cast<const uint16_t*>(x));
}

// Adds to the scores what the columns from `column` on give.
template <int kQueries, int kSteps>
[[gnu::noinline]] void score_columns_bf16(const AttendBlock& a, const uint16_t* tiles, int32_t q, int32_t column) {
  const int32_t padded = kv_padded(a.head_dim);
  const uint8_t* ahead = asked_with(a, tiles, a.next_k, q) + column * 64;
  float* scores = a.scores + q * kKvTokens;
  tiles += column * kKvLanes;
  multiply_tiles<F, 2, kQueries, kSteps>(
      a.q_codes + q * padded + column, 2 * padded, ahead,
      [&](int j, int i) { return f_load(scores + i * kKvTokens + j * kKvLanes); },
      [&](int j, int step) { return _mm512_loadu_si512(tiles + j * padded * kKvLanes + step * 32); }, multiply_pairs,
      [&](int j, int i, F sum) { f_store(scores + i * kKvTokens + j * kKvLanes, sum); });
}
inline void score_keys_for_many(const AttendBlock& a) {
  const int32_t padded = kv_padded(a.head_dim);
  const uint16_t* tiles = pair_steps(a, a.k, 2 * padded, a.next_k);
  for (int32_t i = 0; i < a.num_queries * kKvTokens; i += kKvLanes) f_store(a.scores + i, f_set1(0.0f));
  in_line_groups(a.num_queries, [&]<int kQueries>(int32_t q) {
    in_lines<2>(padded, [&]<int kSteps>(int32_t column) { score_columns_bf16<kQueries, kSteps>(a, tiles, q, column); });
  });
  if (kv_has_scales(a.type)) scale_scores(a);
}

template <int kQueries, int kTiles>
[[gnu::noinline]] void add_tiles_bf16(const AttendBlock& a, const uint16_t* tiles, int32_t q, int32_t at) {
  const int32_t padded = kv_padded(a.head_dim);
  const uint8_t* ahead = asked_with(a, tiles, a.next_v, q) + at * 64;
  float* out = a.out + q * padded + at;
  tiles += at * kKvTokens;
  multiply_tiles<F, kTiles, kQueries, kKvTokens / 2>(
      a.p_codes + q * kKvTokens, 2 * kKvTokens, ahead,
      [&](int j, int i) { return f_load(out + i * padded + j * kKvLanes); },
      [&](int j, int step) { return _mm512_loadu_si512(tiles + j * kKvTokens * kKvLanes + step * 32); }, multiply_pairs,
      [&](int j, int i, F sum) { f_store(out + i * padded + j * kKvLanes, sum); });
}
inline void add_values_for_many(const AttendBlock& a, bool grown) {
  if (grown) correct_sums(a);
  const uint16_t* tiles = pair_steps(a, a.v, 2 * kv_padded(a.head_dim), a.next_v);
  each_value_tile(
      a, [&]<int kQueries, int kTiles>(int32_t q, int32_t at) { add_tiles_bf16<kQueries, kTiles>(a, tiles, q, at); });
}

template <bool kFew>
inline void attend_pairs(const AttendBlocks& blocks) {
  each_block(blocks, [](const AttendBlock& a) {
    if constexpr (kFew) score_keys_for_few(a);
    else score_keys_for_many(a);
    const bool grown = soften_scores(a, [] {});
    if (a.first > 0 || a.end < kKvTokens) return add_values(a, grown);
    round_weights(a);
    if constexpr (kFew) add_values_for_few(a, grown);
    else add_values_for_many(a, grown);
  });
}
void attend_bf16(const AttendBlocks& blocks) {
  if (blocks.type == KernelKv::int8) return attend_int8(blocks);
  if (!kv_is_bf16(blocks.type)) return attend(blocks);
  if (blocks.num_queries <= kQueriesAtOnce) return attend_pairs<true>(blocks);
  attend_pairs<false>(blocks);
}
