// Attention over keys and values in INT8 by VNNI's products of bytes, twice as many an instruction as those of 16 bits: each
// query is in 8 bits with a scale, the weights of the values of a block are in 8 bits relative to their largest, and sums are
// exact. Included by isa_avx512_bf16.cpp and isa_amx.cpp behind attention.inl.
//
// The loops over steps are to be unrolled: from round to round GCC 12 copies all twelve sums, has no registers for that, and
// waits for the one that went to memory.

inline int32_t four_bytes(const void* p) {
  int32_t value;
  memcpy(&value, p, sizeof(value));
  return value;
}

inline void score_keys_int8(const AttendBlock& a) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, padded);
  const auto* codes = reinterpret_cast<const int8_t*>(a.q_codes);
  for (int32_t first = 0; first < kKvTokens; first += kKvLanes) {
    if (first >= a.end || first + kKvLanes <= a.first) continue;
    const uint8_t* tile = a.k + first / kKvLanes * tile_bytes;
    const uint8_t* next = a.next_k + first / kKvLanes * tile_bytes;
    const F scales = token_scales(a, a.k, first);
    in_query_groups<kIntegersAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
      I sums[kQueries];
      for (int i = 0; i < kQueries; ++i) sums[i] = i_set1(-128 * a.q_sums[q + i]);
#pragma GCC unroll 4
      for (int32_t k = 0; k < padded; k += 4) {
        prefetch_line((q == 0 ? next : tile) + k * kKvLanes);
        const B keys = b_signed(b_quads(tile + k * kKvLanes));
        for (int i = 0; i < kQueries; ++i) sums[i] = i_mac_signed(sums[i], keys, four_bytes(codes + (q + i) * padded + k));
      }
      for (int i = 0; i < kQueries; ++i) {
        f_store(a.scores + (q + i) * kKvTokens + first, f_mul(f_mul(f_from_i(sums[i]), f_set1(a.q_scales[q + i])), scales));
      }
    });
  }
}

inline void add_values_int8(const AttendBlock& a, bool grown) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, kKvTokens);
  const auto* weights = reinterpret_cast<const uint8_t*>(a.p_codes);
  for (int32_t at = 0; at < padded; at += kKvLanes) {
    const uint8_t* tile = a.v + at / kKvLanes * tile_bytes;
    const uint8_t* next = a.next_v + at / kKvLanes * tile_bytes;
    float* out = a.out + at;
    in_query_groups<kIntegersAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
      I sums[kQueries];
      for (int i = 0; i < kQueries; ++i) sums[i] = i_zero();
#pragma GCC unroll 8
      for (int32_t t = 0; t < kKvTokens; t += 4) {
        prefetch_line((q == 0 ? next : tile) + t * kKvLanes);
        const B values = b_quads(tile + t * kKvLanes);
        for (int i = 0; i < kQueries; ++i) sums[i] = i_mac_weights(sums[i], values, four_bytes(weights + (q + i) * kKvTokens + t));
      }
      for (int i = 0; i < kQueries; ++i) {
        float* to = out + (q + i) * padded;
        f_store(to, f_fma(f_from_i(sums[i]), f_set1(a.p_scales[q + i]), corrected(to, a.corrections[q + i], grown)));
      }
    });
  }
}

void attend_int8(const AttendBlocks& blocks) {
  each_block(blocks, [](const AttendBlock& a) {
    score_keys_int8(a);
    const bool grown = soften_scores(a, [] {});
    quantize_weights<255>(a, [&](int64_t at, I codes) { i_store_i8(reinterpret_cast<int8_t*>(a.p_codes) + at, codes); });
    add_values_int8(a, grown);
  });
}
