// Attention over keys and values in BF16 or E4M3 on AMX, for heads of whole steps of 32 elements: a product takes 16 queries and a tile of
// 16 keys, or of 16 elements of the head, at once. Roundings as in attention_bf16.inl, behind which it is included and which does the rest.
//
// A block of 12 queries and 128 elements takes 16 products of 16 cycles and a softmax of some 700, where a core that has its half of
// two channels reads its 16 KiB in some 3000: memory is the limit, if it is asked all the time.

// The lines of the next block, a share of them at a time.
class Ahead {
 public:
  Ahead(const AttendBlock& a, int shares)
      : k_(a.next_k), v_(a.next_v), bytes_(kv_head_bytes(a.type, a.head_dim)), share_((2 * bytes_ / shares + 63) / 64 * 64) {}
  void ask() {
    for (const int64_t end = at_ + share_; at_ < end && at_ < 2 * bytes_; at_ += 64) {
      prefetch_line(at_ < bytes_ ? k_ + at_ : v_ + (at_ - bytes_));
    }
  }

 private:
  const uint8_t* k_;
  const uint8_t* v_;
  int64_t bytes_, share_, at_ = 0;
};

// scores[q][t] of all tokens.
inline void score_keys_amx(const AttendBlock& a, Ahead& ahead) {
  const int32_t padded = kv_padded(a.head_dim);
  const uint16_t* low = pair_steps(a, a.k, 2 * padded, a.next_k);  // both tiles
  const uint16_t* high = low + padded * kKvLanes;
  for (int32_t q = 0; q < a.num_queries; q += kKvLanes) {
    const int16_t* x = a.q_codes + q * padded;
    _tile_zero(0);
    _tile_zero(1);
    for (int32_t d = 0; d < padded; d += kStepColumns) {
      _tile_loadd(2, x + d, 2 * padded);
      _tile_loadd(3, low + d * kKvLanes, 64);
      _tile_dpbf16ps(0, 2, 3);
      _tile_loadd(4, high + d * kKvLanes, 64);
      _tile_dpbf16ps(1, 2, 4);
      if (q == 0) ahead.ask();
    }
    _tile_stored(0, a.scores + q * kKvTokens, kKvTokens * sizeof(float));
    _tile_stored(1, a.scores + q * kKvTokens + kKvLanes, kKvTokens * sizeof(float));
  }
  if (kv_has_scales(a.type)) scale_scores(a);
}

// out := out * correction + sum of p[t] v[t].
inline void add_values_amx(const AttendBlock& a, Ahead& ahead) {
  static_assert(kKvTokens == kStepColumns);
  const int32_t padded = kv_padded(a.head_dim);
  round_weights(a);
  const uint16_t* values = pair_steps(a, a.v, 2 * padded, a.next_v);  // all tiles: 32 steps for 16 elements
  for (int32_t first = 0; first < a.num_queries; first += kKvLanes) {
    _tile_loadd(2, a.p_codes + first * kKvTokens, 64);
    for (int32_t at = 0; at < padded; at += kKvLanes) {
      _tile_loadd(3, values + at * kKvTokens, 64);
      _tile_zero(0);
      _tile_dpbf16ps(0, 2, 3);
      _tile_stored(0, a.tile + at * kKvLanes, 64);
      if (first == 0) ahead.ask();
    }
    const int32_t count = a.num_queries - first < kKvLanes ? a.num_queries - first : kKvLanes;
    for (int32_t i = 0; i < count; ++i) {
      float* out = a.out + (first + i) * padded;
      const F correction = f_set1(a.corrections[first + i]);
      for (int32_t at = 0; at < padded; at += kKvLanes) {
        f_store(out + at, f_fma(f_load(out + at), correction, f_load(a.tile + at * kKvLanes + i * kKvLanes)));
      }
    }
  }
}

void attend_amx(const AttendBlocks& blocks) {
  const int32_t padded = kv_padded(blocks.head_dim);
  if (!kv_is_bf16(blocks.type) || padded % kStepColumns != 0) return attend_bf16(blocks);
  TileScope scope;
  each_block(blocks, [&](const AttendBlock& a) {
    Ahead ahead(a, padded / kStepColumns + a.num_queries + padded / kKvLanes);
    score_keys_amx(a, ahead);
    const bool grown = soften_scores(a, [&] { ahead.ask(); });
    // What stands beside the keys that are seen may be anything (attention_bf16.inl).
    if (a.first > 0 || a.end < kKvTokens) add_values(a, grown);
    else add_values_amx(a, ahead);
  });
}
