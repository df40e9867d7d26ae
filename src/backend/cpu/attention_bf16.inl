// Attention over keys and values in BF16 or E4M3, which is BF16 exactly, by AVX512-BF16's dot product: queries and the
// weights of the values are rounded to BF16 once, sums are float32. Included by isa_avx512_bf16.cpp behind attention.inl, and
// by isa_amx.cpp for what both have in common.
//
// Tiles have the order of pairs already (kv_layout.h). A block of which a query sees a part multiplies its values in float32:
// what stands beside them may be anything, and nothing times anything is not nothing.

// All `steps` of a tile as pairs.
inline const uint16_t* pair_steps(const AttendBlock& a, const uint8_t* tile, int32_t steps) {
  if (a.type == KernelKv::bf16) return reinterpret_cast<const uint16_t*>(tile);
  pairs_from_e4m3(tile, steps, a.wide);
  return reinterpret_cast<const uint16_t*>(a.wide);
}

// sums[q] += all steps of a tile of pairs times x[q][step]. Memory has room for some twenty requests at a time: those for `ahead`, of
// as many bytes a step as the tile has in the cache, go out between the products.
template <int kQueries>
inline void add_pair_steps(const uint16_t* tile, int32_t steps, const int16_t* x, int64_t stride, const uint8_t* ahead,
                           int64_t step_bytes, F* sums) {
  F s[kQueries];
  for (int q = 0; q < kQueries; ++q) s[q] = sums[q];
  for (int32_t k = 0; k < steps; k += 2) {
    prefetch_line(ahead + k * step_bytes);
    for (int q = 0; q < kQueries; ++q) {
      s[q] = f_dot_bf16(s[q], tile + k * kKvLanes, reinterpret_cast<const uint16_t*>(x + q * stride + k));
    }
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
// For all queries: start(q) gives the sums of a query before, finish(q, sums) takes them. `next`: what comes next in the place of the tile.
template <class Start, class Finish>
inline void pair_products(const AttendBlock& a, const uint8_t* tile, const uint8_t* next, int32_t steps, const int16_t* x,
                          Start start, Finish finish) {
  const bool from_codes = a.type == KernelKv::fp8 && a.num_queries <= kQueriesAtOnce;  // decoded once in either way
  const uint16_t* pairs = from_codes ? nullptr : pair_steps(a, tile, steps);
  in_query_groups<kQueriesAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
    F sums[kQueries];
    for (int i = 0; i < kQueries; ++i) sums[i] = start(q + i);
    const uint8_t* ahead = q == 0 ? next : tile;
    if (from_codes) add_code_steps<kQueries>(tile, steps, x + q * steps, steps, ahead, sums);
    else add_pair_steps<kQueries>(pairs, steps, x + q * steps, steps, ahead, kv_tile_bytes(a.type, 1), sums);
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

inline void score_keys_bf16(const AttendBlock& a) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, padded);
  for (int32_t first = 0; first < kKvTokens; first += kKvLanes) {
    if (first >= a.end || first + kKvLanes <= a.first) continue;
    const int64_t at = first / kKvLanes * tile_bytes;
    const F scales = kv_has_scales(a.type) ? token_scales(a, a.k, first) : f_set1(1.0f);
    pair_products(
        a, a.k + at, a.next_k + at, padded, a.q_codes, [](int32_t) { return f_set1(0.0f); },
        [&](int32_t q, F sum) { f_store(a.scores + q * kKvTokens + first, kv_has_scales(a.type) ? f_mul(sum, scales) : sum); });
  }
}

inline void add_values_bf16(const AttendBlock& a, bool grown) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, kKvTokens);
  round_weights(a);
  for (int32_t d = 0; d < padded; d += kKvLanes) {
    const int64_t at = d / kKvLanes * tile_bytes;
    float* out = a.out + d;
    pair_products(
        a, a.v + at, a.next_v + at, kKvTokens, a.p_codes, [&](int32_t q) { return corrected(out + q * padded, a.corrections[q], grown); },
        [&](int32_t q, F sum) { f_store(out + q * padded, sum); });
  }
}

void attend_bf16(const AttendBlocks& blocks) {
  if (blocks.type == KernelKv::int8) return attend_int8(blocks);
  if (!kv_is_bf16(blocks.type)) return attend(blocks);
  each_block(blocks, [](const AttendBlock& a) {
    score_keys_bf16(a);
    const bool grown = soften_scores(a, [] {});
    if (a.first > 0 || a.end < kKvTokens) add_values(a, grown);
    else add_values_bf16(a, grown);
  });
}
