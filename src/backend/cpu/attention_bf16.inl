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

// sums[q] += all steps of a tile times x[q][step]. Memory has room for some twenty requests at a time: those for `ahead`, of as
// many bytes a step as the tile has in the cache, go out between the products.
template <int kQueries>
inline void add_pair_steps(const uint16_t* tile, int32_t steps, const int16_t* x, int64_t stride, const uint8_t* ahead,
                           int64_t step_bytes, F* sums) {
  F s[kQueries];
  for (int q = 0; q < kQueries; ++q) s[q] = sums[q];
  for (int32_t k = 0; k < steps; k += 2) {
    if (step_bytes == 2 * kKvLanes) prefetch_line(ahead + k * step_bytes);
    else prefetch_next(ahead + k * step_bytes, 2 * step_bytes);
    for (int q = 0; q < kQueries; ++q) {
      s[q] = f_dot_bf16(s[q], tile + k * kKvLanes, reinterpret_cast<const uint16_t*>(x + q * stride + k));
    }
  }
  for (int q = 0; q < kQueries; ++q) sums[q] = s[q];
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
    const uint8_t* tile = a.k + first / kKvLanes * tile_bytes;
    const uint8_t* next = a.next_k + first / kKvLanes * tile_bytes;
    const F scales = kv_has_scales(a.type) ? token_scales(a, a.k, first) : f_set1(1.0f);
    const uint16_t* steps = pair_steps(a, tile, padded);
    in_query_groups<kQueriesAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
      F sums[kQueries];
      for (int i = 0; i < kQueries; ++i) sums[i] = f_set1(0.0f);
      add_pair_steps<kQueries>(steps, padded, a.q_codes + q * padded, padded, q == 0 ? next : tile, tile_bytes / padded, sums);
      for (int i = 0; i < kQueries; ++i) {
        f_store(a.scores + (q + i) * kKvTokens + first, kv_has_scales(a.type) ? f_mul(sums[i], scales) : sums[i]);
      }
    });
  }
}

inline void add_values_bf16(const AttendBlock& a, bool grown) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, kKvTokens);
  round_weights(a);
  for (int32_t at = 0; at < padded; at += kKvLanes) {
    const uint8_t* tile = a.v + at / kKvLanes * tile_bytes;
    const uint8_t* next = a.next_v + at / kKvLanes * tile_bytes;
    const uint16_t* steps = pair_steps(a, tile, kKvTokens);
    float* out = a.out + at;
    in_query_groups<kQueriesAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
      F sums[kQueries];
      for (int i = 0; i < kQueries; ++i) sums[i] = corrected(out + (q + i) * padded, a.corrections[q + i], grown);
      add_pair_steps<kQueries>(steps, kKvTokens, a.p_codes + q * kKvTokens, kKvTokens, q == 0 ? next : tile,
                               tile_bytes / kKvTokens, sums);
      for (int i = 0; i < kQueries; ++i) f_store(out + (q + i) * padded, sums[i]);
    });
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
