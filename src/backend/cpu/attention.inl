// Attention over blocks of the KV cache; included by isa_*.cpp only, behind linear.inl and elementwise.inl.
//
// A tile of keys or values is widened once for all queries, to float32 or, of integer types, to pairs of
// int16, and stays in the nearest cache. Lanes are keys in q K and elements of the head in p V, so that no
// sum runs across lanes. Sums have one order (along the head, then along the keys of a block), which depends
// neither on the number of queries nor on how many of them are done at once.

// Queries whose sums stay in registers together, beside one step of a tile, or two steps and what it takes
// to widen them or to multiply pairs.
#if defined(__AVX512F__) || defined(BISE_EMULATED_AVX512)
constexpr int kQueriesAtOnce = 12, kPairsAtOnce = 12, kIntegersAtOnce = 12;
#elif defined(__AVX2__)
constexpr int kQueriesAtOnce = 6, kPairsAtOnce = 4, kIntegersAtOnce = 4;
#else
constexpr int kQueriesAtOnce = 2, kPairsAtOnce = 2, kIntegersAtOnce = 2;
#endif

// Calls run<kQueries>(first query) for all of them, as many at once as there can be.
template <int kQueries, class Run>
inline void rest_of_queries(int32_t first, int32_t count, Run& run) {
  if (count == kQueries) {
    run.template operator()<kQueries>(first);
  } else if constexpr (kQueries > 1) {
    rest_of_queries<kQueries - 1>(first, count, run);
  }
}
template <int kAtOnce, class Run>
inline void in_query_groups(int32_t num_queries, Run run) {
  int32_t q = 0;
  for (; q + kAtOnce <= num_queries; q += kAtOnce) run.template operator()<kAtOnce>(q);
  if (q < num_queries) rest_of_queries<kAtOnce - 1>(q, num_queries - q, run);
}

// One block of AttendBlocks.
struct AttendBlock : AttendBlocks {
  const uint8_t* next_k;  // of the block that comes next, to be asked of memory meanwhile
  const uint8_t* next_v;
};
// Asks for a line that the next block has in this place. Into the second cache: the first one has few requests under way at a
// time, and where they are all taken, products wait (1.4 times the time with BF16 on Zen 4).
inline void prefetch_line(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }
// Into the first cache, for tiles that are widened at once before they are multiplied.
inline void prefetch_next(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

template <class Attend>
inline void each_block(const AttendBlocks& blocks, Attend attend) {
  const int64_t scales = kv_scales_at(blocks.type, blocks.head_dim), end = kv_head_bytes(blocks.type, blocks.head_dim);
  for (int32_t i = 0; i < blocks.num_blocks; ++i) {
    AttendBlock a{blocks, blocks.k + blocks.places[i + 1], blocks.v + blocks.places[i + 1]};
    a.k += blocks.places[i];
    a.v += blocks.places[i];
    for (int64_t at = scales; at < end; at += 64) {  // tiles are asked for between products
      prefetch_line(a.next_k + at);
      prefetch_line(a.next_v + at);
    }
    attend(a);
  }
}

// Steps of a tile as the float products read them.
struct FloatSteps {
  const uint8_t* tile;
  KernelKv type;  // f32, f16 or bf16
};

// Steps [first, end) of a tile: as they are for few queries, which widen them in registers; for many as
// float32; E4M3 as BF16, which is exact.
constexpr int32_t kFewQueries = 3;
template <FloatCodes kCodes>
inline void widen_floats(const uint8_t* tile, int32_t first, int32_t end, float* to) {
  for (int32_t k = first; k < end; k += 2) {
    F even, odd;
    load_two<kCodes>(tile + k * kKvLanes * code_bytes(kCodes), &even, &odd);
    f_store(to + k * kKvLanes, even);
    f_store(to + (k + 1) * kKvLanes, odd);
  }
}
inline FloatSteps float_steps(const AttendBlock& a, const uint8_t* tile, int32_t first, int32_t end) {
  first -= first % 2;
  end += end % 2;
  KernelKv type = a.type;
  if (type == KernelKv::fp8) {
    for (int32_t k = first; k < end; k += 2) words_from_e4m3(tile + k * kKvLanes, a.wide + k * kKvLanes);
    tile = reinterpret_cast<const uint8_t*>(a.wide);
    type = KernelKv::bf16;
  }
  if (type == KernelKv::f32 || a.num_queries <= kFewQueries) return {tile, type};
  if (type == KernelKv::bf16) widen_floats<FloatCodes::bf16>(tile, first, end, a.tile);
  else widen_floats<FloatCodes::f16>(tile, first, end, a.tile);
  return {reinterpret_cast<const uint8_t*>(a.tile), KernelKv::f32};
}

// All `steps` of a tile as pairs of int16. Of int4, factors(k) gives the factors of steps k and k + 1.
template <class Factors>
inline void widen_integers(KernelKv type, const uint8_t* tile, int32_t steps, Factors factors, int16_t* to) {
  if (type == KernelKv::int8) {
    for (int32_t k = 0; k < steps; k += 2) {
      h_store(to + k * kKvLanes, h_from_i8(tile + k * kKvLanes));
    }
    return;
  }
  for (int32_t k = 0; k < steps; k += 4) {
    H low, high;
    h_two_from_u4(tile + k * kKvLanes / 2, &low, &high);
    h_store(to + k * kKvLanes, h_mul(low, factors(k)));
    h_store(to + (k + 2) * kKvLanes, h_mul(high, factors(k + 2)));
  }
}

// sums[q] += steps [first, end) of a tile times x[q][step].
template <FloatCodes kCodes, int kQueries>
inline void add_float_steps(const uint8_t* tile, int32_t first, int32_t end, const float* x, int64_t stride, F* sums) {
  constexpr int64_t kBytes = kKvLanes * code_bytes(kCodes);
  F s[kQueries], even, odd;
  for (int q = 0; q < kQueries; ++q) s[q] = sums[q];
  int32_t k = first;
  if constexpr (kCodes == FloatCodes::f32) {  // one step needs fewer registers
    for (; k < end; ++k) {
      even = f_load(reinterpret_cast<const float*>(tile + k * kBytes));
      for (int q = 0; q < kQueries; ++q) s[q] = f_fma(even, f_set1(x[q * stride + k]), s[q]);
    }
    for (int q = 0; q < kQueries; ++q) sums[q] = s[q];
    return;
  }
  if (k % 2 == 1) {
    load_two<kCodes>(tile + (k - 1) * kBytes, &even, &odd);
    for (int q = 0; q < kQueries; ++q) s[q] = f_fma(odd, f_set1(x[q * stride + k]), s[q]);
    ++k;
  }
  for (; k + 2 <= end; k += 2) {
    load_two<kCodes>(tile + k * kBytes, &even, &odd);
    for (int q = 0; q < kQueries; ++q) s[q] = f_fma(even, f_set1(x[q * stride + k]), s[q]);
    for (int q = 0; q < kQueries; ++q) s[q] = f_fma(odd, f_set1(x[q * stride + k + 1]), s[q]);
  }
  if (k < end) {
    load_two<kCodes>(tile + k * kBytes, &even, &odd);
    for (int q = 0; q < kQueries; ++q) s[q] = f_fma(even, f_set1(x[q * stride + k]), s[q]);
  }
  for (int q = 0; q < kQueries; ++q) sums[q] = s[q];
}
// For all queries: start(q) gives the sums of a query before, finish(q, sums) takes them.
template <FloatCodes kCodes, int kAtOnce, class Start, class Finish>
inline void float_products(const uint8_t* tile, int32_t first, int32_t end, const float* x, int64_t stride,
                           int32_t num_queries, Start start, Finish finish) {
  in_query_groups<kAtOnce>(num_queries, [&]<int kQueries>(int32_t q) {
    F sums[kQueries];
    for (int i = 0; i < kQueries; ++i) sums[i] = start(q + i);
    add_float_steps<kCodes, kQueries>(tile, first, end, x + q * stride, stride, sums);
    for (int i = 0; i < kQueries; ++i) finish(q + i, sums[i]);
  });
}
template <class Start, class Finish>
inline void float_products(FloatSteps steps, int32_t first, int32_t end, const float* x, int64_t stride,
                           int32_t num_queries, Start start, Finish finish) {
  auto run = [&]<FloatCodes kCodes, int kAtOnce>() {
    float_products<kCodes, kAtOnce>(steps.tile, first, end, x, stride, num_queries, start, finish);
  };
  if (steps.type == KernelKv::f32) run.template operator()<FloatCodes::f32, kQueriesAtOnce>();
  else if (steps.type == KernelKv::bf16) run.template operator()<FloatCodes::bf16, kPairsAtOnce>();
  else run.template operator()<FloatCodes::f16, kPairsAtOnce>();
}
template <int kQueries>
inline void add_integer_steps(const int16_t* tile, int32_t steps, const int16_t* x, int64_t stride, I* sums) {
  I s[kQueries];
  for (int q = 0; q < kQueries; ++q) s[q] = i_zero();
  constexpr int kUnrolled = 4;  // pairs: the loop costs as much as a product otherwise; steps are 16 n
  for (int32_t k = 0; k < steps; k += 2 * kUnrolled) {
    for (int j = 0; j < kUnrolled; ++j) {
      const H w = h_load(tile + (k + 2 * j) * kKvLanes);
      for (int q = 0; q < kQueries; ++q) {
        int32_t pair;
        memcpy(&pair, x + q * stride + k + 2 * j, 4);
        s[q] = i_mac_pairs(s[q], w, pair);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) sums[q] = s[q];
}

// 16 scales of the tokens from `token` on.
inline F token_scales(const AttendBlock& a, const uint8_t* head, int32_t token) {
  return f_from_bf16(reinterpret_cast<const uint16_t*>(head + kv_scales_at(a.type, a.head_dim)) + token);
}

// scores[q][t] of all tokens; those outside of [first, end) are any numbers.
inline void score_keys(const AttendBlock& a) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, padded);
  const uint8_t* factors = a.k + kv_factors_at(a.type, a.head_dim);
  for (int32_t first = 0; first < kKvTokens; first += kKvLanes) {
    if (first >= a.end || first + kKvLanes <= a.first) continue;
    const uint8_t* tile = a.k + first / kKvLanes * tile_bytes;
    prefetch_next(a.next_k + first / kKvLanes * tile_bytes, tile_bytes);
    const F scales = kv_has_scales(a.type) ? token_scales(a, a.k, first) : f_set1(1.0f);
    if (kv_is_integer(a.type)) {
      widen_integers(a.type, tile, padded,
                     [&](int32_t k) { return h_pairs_from_i8(factors + k / kKvGroup * kKvTokens + first); }, a.wide);
      in_query_groups<kIntegersAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
        I sums[kQueries];
        add_integer_steps<kQueries>(a.wide, padded, a.q_codes + q * padded, padded, sums);
        for (int i = 0; i < kQueries; ++i) {
          const F score = f_mul(f_mul(f_from_i(sums[i]), f_set1(a.q_scales[q + i])), scales);
          f_store(a.scores + (q + i) * kKvTokens + first, score);
        }
      });
      continue;
    }
    float_products(
        float_steps(a, tile, 0, padded), 0, padded, a.q, padded, a.num_queries,
        [](int32_t) { return f_set1(0.0f); },
        [&](int32_t q, F sum) {
          f_store(a.scores + q * kKvTokens + first, kv_has_scales(a.type) ? f_mul(sum, scales) : sum);
        });
  }
}

// p[t] of tokens outside of [first, end) := value.
inline void set_outside(const AttendBlock& a, float* p, float value) {
  for (int32_t t = 0; t < a.first; ++t) p[t] = value;
  for (int32_t t = a.end; t < kKvTokens; ++t) p[t] = value;
}

constexpr float kExp2[5] = {0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b752p-5f, 0x1.3cea88p-7f, 0x1.5bba08p-10f};

// 2^x for x <= 0, 2^-126 below that, with a relative error of about 1e-7: the power of two of the nearest
// integer times a polynomial of the rest (minimax over [-1/2, 1/2], 2^0 exact). A NaN stays one: the
// second operand of f_max is what it gives then.
inline F exp2_of(F x) {
  x = f_max(f_set1(-126.0f), x);
  const F n = f_round(x), r = f_sub(x, n);
  F p = f_set1(kExp2[4]);
  for (int i = 3; i >= 0; --i) p = f_fma(p, r, f_set1(kExp2[i]));
  p = f_fma(p, r, f_set1(1.0f));
  return f_mul(p, f_exp2i(i_from_f(n)));
}

// 32 scales of the values; outside of [first, end), where they may be anything, zero.
inline void value_scales(const AttendBlock& a, F* low, F* high) {
  float scales[kKvTokens];
  f_store(scales, token_scales(a, a.v, 0));
  f_store(scales + 16, token_scales(a, a.v, 16));
  set_outside(a, scales, 0.0f);
  *low = f_load(scales);
  *high = f_load(scales + 16);
}

// scores := 2^(scores - max), times the scales of the values; corrections := 2^(old max - new max). Calls meanwhile() for every query.
// Whether any correction is not 1: in a long text few blocks have a larger score than those before.
template <class Meanwhile>
inline bool soften_scores(const AttendBlock& a, Meanwhile meanwhile) {
  const bool ragged = a.first > 0 || a.end < kKvTokens;
  bool grown = false;
  for (int32_t q = 0; q < a.num_queries; ++q) {
    float* p = a.scores + q * kKvTokens;
    if (ragged) set_outside(a, p, -3.0e38f);
    const F largest = f_max(f_load(p), f_load(p + 16));
    a.corrections[q] = 0.0f;
    if (!f_any_above(largest, f_set1(a.max[q]))) continue;
    const float top = f_reduce_max(largest), old = a.max[q];
    a.max[q] = top > old ? top : old;
    a.corrections[q] = old - a.max[q];
    grown = true;
  }
  for (int32_t q = 0; q < a.num_queries; q += 16) {
    f_store(a.corrections + q, grown ? exp2_of(f_load(a.corrections + q)) : f_set1(1.0f));
  }
  const bool scaled = kv_has_scales(a.type);
  F low_scales = f_set1(1.0f), high_scales = low_scales;
  if (scaled) value_scales(a, &low_scales, &high_scales);
  for (int32_t q = 0; q < a.num_queries; ++q) {
    float* p = a.scores + q * kKvTokens;
    float* sums = a.sums + q * kKvLanes;
    const F shift = f_set1(a.max[q]);
    meanwhile();
    F low = exp2_of(f_sub(f_load(p), shift)), high = exp2_of(f_sub(f_load(p + 16), shift));
    if (ragged) {
      f_store(p, low);
      f_store(p + 16, high);
      set_outside(a, p, 0.0f);
      low = f_load(p);
      high = f_load(p + 16);
    }
    f_store(sums, f_fma(f_load(sums), f_set1(a.corrections[q]), f_add(low, high)));
    f_store(p, scaled ? f_mul(low, low_scales) : low);
    f_store(p + 16, scaled ? f_mul(high, high_scales) : high);
  }
  return grown;
}

// The weights of the values as integers up to kLargest, which stands for the largest of the block.
inline void quantize_weights(const AttendBlock& a) {
  constexpr float kLargest = 32767;
  F low_scales, high_scales;
  value_scales(a, &low_scales, &high_scales);
  // x - x is NaN for infinities and NaN: these must reach the results. (Those of scores do by the sums of the weights.)
  const float finite = f_reduce_add(f_add(f_sub(low_scales, low_scales), f_sub(high_scales, high_scales)));
  for (int32_t q = 0; q < a.num_queries; ++q) {
    const F low = f_load(a.scores + q * kKvTokens), high = f_load(a.scores + q * kKvTokens + 16);
    const float top = f_reduce_max(f_max(low, high));
    // Below it the quotient may overflow, and such weights add nothing.
    const F inverse = f_set1(top >= 0x1p-110f ? kLargest / top : 0.0f);
    i_store_i16(a.p_codes + q * kKvTokens, i_from_f(f_round(f_mul(low, inverse))));
    i_store_i16(a.p_codes + q * kKvTokens + 16, i_from_f(f_round(f_mul(high, inverse))));
    a.p_scales[q] = top / kLargest + finite;
  }
}

// What is known of the results before a block: as it is, where no maximum has grown.
inline F corrected(const float* out, float correction, bool grown) { return grown ? f_mul(f_load(out), f_set1(correction)) : f_load(out); }

// out := out * correction + sum of p[t] v[t].
inline void add_values(const AttendBlock& a, bool grown) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(a.type, kKvTokens);
  for (int32_t at = 0; at < padded; at += kKvLanes) {
    const uint8_t* tile = a.v + at / kKvLanes * tile_bytes;
    prefetch_next(a.next_v + at / kKvLanes * tile_bytes, tile_bytes);
    float* out = a.out + at;
    if (kv_is_integer(a.type)) {
      const uint8_t* factors = a.v + kv_factors_at(a.type, a.head_dim) + at / kKvGroup * kKvTokens;
      widen_integers(a.type, tile, kKvTokens,
                     [&](int32_t t) {
                       const int16_t pair[2] = {static_cast<int8_t>(factors[t]), static_cast<int8_t>(factors[t + 1])};
                       int32_t both;
                       memcpy(&both, pair, 4);
                       return h_set1(both);
                     },
                     a.wide);
      in_query_groups<kIntegersAtOnce>(a.num_queries, [&]<int kQueries>(int32_t q) {
        I sums[kQueries];
        add_integer_steps<kQueries>(a.wide, kKvTokens, a.p_codes + q * kKvTokens, kKvTokens, sums);
        for (int i = 0; i < kQueries; ++i) {
          float* to = out + (q + i) * padded;
          const F before = corrected(to, a.corrections[q + i], grown);
          f_store(to, f_fma(f_from_i(sums[i]), f_set1(a.p_scales[q + i]), before));
        }
      });
      continue;
    }
    float_products(
        float_steps(a, tile, a.first, a.end), a.first, a.end, a.scores, kKvTokens, a.num_queries,
        [&](int32_t q) { return corrected(out + q * padded, a.corrections[q], grown); },
        [&](int32_t q, F sum) { f_store(out + q * padded, sum); });
  }
}

void attend(const AttendBlocks& blocks) {
  each_block(blocks, [](const AttendBlock& a) {
    score_keys(a);
    const bool grown = soften_scores(a, [] {});
    if (kv_is_integer(a.type)) quantize_weights(a);
    add_values(a, grown);
  });
}
