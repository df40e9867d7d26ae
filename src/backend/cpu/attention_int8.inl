// Attention over keys and values in INT8 by VNNI's products of bytes, twice as many an instruction as those of 16 bits: each
// query is in 8 bits with a scale, the weights of the values of a block are in 8 bits relative to their largest, and sums are
// exact. Included by isa_avx512_bf16.cpp and isa_amx.cpp behind attention_steps.inl.

inline int32_t four_bytes(const void* p) {
  int32_t value;
  memcpy(&value, p, sizeof(value));
  return value;
}

// A share of the lines from `from` on, at a time.
class AheadLines {
 public:
  AheadLines(const uint8_t* from, int64_t bytes, int64_t shares)
      : from_(from), end_(from + bytes), share_((bytes + shares - 1) / shares) {}
  void ask() {
    for (const uint8_t* stop = end_ - from_ < share_ ? end_ : from_ + share_; from_ < stop; from_ += 64)
      prefetch_line(from_);
  }

 private:
  const uint8_t* from_;
  const uint8_t* end_;
  int64_t share_;
};

// Values are asked for a pair of tiles early: the first ones during the softmax, when nothing else is asked of memory.
constexpr int32_t kEarlyElements = 2 * kKvLanes;
inline AheadLines early_values(const AttendBlock& a) {
  const int64_t elements = a.head_dim < kEarlyElements ? a.head_dim : kEarlyElements;
  return {a.next_v, elements / kKvLanes * kv_tile_bytes(a.type, kKvTokens), a.num_queries};
}

// What the scales of the values of a block come to. A weight p of a value with the scale s is a code in proportion to s p, so that
// the codes of a block belong to its largest s p: scores get log2(s), roughly, and `inverse` takes it from the sums again.
struct ValueScales {
  F log[2];      // about log2(s), at least -64
  F inverse[2];  // 2^-log; 0 outside
  F code[2];     // 240 s 2^-log, at most 255; 0 outside
  float finite;  // 0, or NaN where a scale is infinite or NaN
};
inline ValueScales scales_of_values(const AttendBlock& a) {
  ValueScales out;
  F scales[2];
  value_scales(a, &scales[0], &scales[1]);
  for (int i = 0; i < 2; ++i) {
    // The bits of a float are, as a number, its logarithm with a line between powers of two: 2^log <= s <= 1.0615 * 2^log.
    out.log[i] = f_max(f_fma(f_bits(scales[i]), f_set1(0x1p-23f), f_set1(-127.0f)), f_set1(-64.0f));
    out.inverse[i] = exp2_of(f_sub(f_set1(0.0f), out.log[i]));
    out.code[i] = f_mul(f_mul(scales[i], f_set1(240.0f)), out.inverse[i]);
  }
  if (a.first > 0 || a.end < kKvTokens) {
    float inverse[kKvTokens];
    for (int i = 0; i < 2; ++i) f_store(inverse + 16 * i, out.inverse[i]);
    set_outside(a, inverse, 0.0f);
    for (int i = 0; i < 2; ++i) out.inverse[i] = f_load(inverse + 16 * i);
  }
  out.finite = f_reduce_add(f_add(f_sub(scales[0], scales[0]), f_sub(scales[1], scales[1])));
  return out;
}

// Adds to the sums of codes, which are integers in the place of the scores, what the columns from `column` on give.
template <int kQueries, int kSteps>
[[gnu::noinline]] void score_columns_int8(const AttendBlock& a, int32_t q, int32_t column) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(KernelKv::int8, padded), at = column * kKvLanes;
  const uint8_t* tile = a.k + at;
  float* sums = a.scores + q * kKvTokens;
  multiply_tiles<I, 2, kQueries, kSteps>(
      reinterpret_cast<const int8_t*>(a.q_codes) + q * padded + column, padded, (q == 0 ? a.next_k : a.k) + 2 * at,
      [&](int j, int i) { return i_load(sums + i * kKvTokens + j * kKvLanes); },
      [&](int j, int step) { return b_signed(b_quads(tile + j * tile_bytes + step * 64)); },
      [](I sum, B keys, const uint8_t* x) { return i_mac_signed(sum, keys, four_bytes(x)); },
      [&](int j, int i, I sum) { i_store(sums + i * kKvTokens + j * kKvLanes, sum); });
}
inline void score_keys_int8(const AttendBlock& a) {
  for (int32_t q = 0; q < a.num_queries; ++q) {
    const I start = i_set1(-128 * a.q_sums[q]);  // keys are multiplied as unsigned bytes, 128 more than they are
    i_store(a.scores + q * kKvTokens, start);
    i_store(a.scores + q * kKvTokens + kKvLanes, start);
  }
  in_line_groups(a.num_queries, [&]<int kQueries>(int32_t q) {
    in_lines<4>(kv_padded(a.head_dim),
                [&]<int kSteps>(int32_t column) { score_columns_int8<kQueries, kSteps>(a, q, column); });
  });
}

template <int kQueries, int kTiles>
[[gnu::noinline]] void add_tiles_int8(const AttendBlock& a, int32_t q, int32_t column) {
  const int32_t padded = kv_padded(a.head_dim);
  const int64_t tile_bytes = kv_tile_bytes(KernelKv::int8, kKvTokens), at = column / kKvLanes * tile_bytes;
  const uint8_t* tile = a.v + at;
  float* out = a.out + q * padded + column;
  const float* scales = a.p_scales + q;
  multiply_tiles<I, kTiles, kQueries, kKvTokens / 4>(
      reinterpret_cast<const uint8_t*>(a.p_codes) + q * kKvTokens, kKvTokens,
      (q == 0 && column + kEarlyElements < padded ? a.next_v + kEarlyElements / kKvLanes * tile_bytes : a.v) + at,
      [](int, int) { return i_zero(); }, [&](int j, int step) { return b_quads(tile + j * tile_bytes + step * 64); },
      [](I sum, B values, const uint8_t* x) { return i_mac_weights(sum, values, four_bytes(x)); },
      [&](int j, int i, I sum) {
        float* to = out + i * padded + j * kKvLanes;
        f_store(to, f_fma(f_from_i(sum), f_set1(scales[i]), f_load(to)));
      });
}

// The codes of the weights from the sums of codes; corrections and sums as soften_scores has them.
inline bool soften_scores_int8(const AttendBlock& a) {
  AheadLines ahead = early_values(a);
  const ValueScales values = scales_of_values(a);
  const F scales[2] = {token_scales(a, a.k, 0), token_scales(a, a.k, kKvLanes)};
  const bool ragged = a.first > 0 || a.end < kKvTokens;
  for (int32_t q = 0; q < a.num_queries; ++q) {
    float* p = a.scores + q * kKvTokens;
    for (int j = 0; j < 2; ++j) {
      f_store(p + j * kKvLanes,
              f_fma(f_mul(f_from_i(i_load(p + j * kKvLanes)), f_set1(a.q_scales[q])), scales[j], values.log[j]));
    }
    if (ragged) set_outside(a, p, -3.0e38f);
  }
  bool grown = false;
  auto* codes = reinterpret_cast<int8_t*>(a.p_codes);
  for (int32_t group = 0; group < a.num_queries; group += kKvLanes) {
    const int count = a.num_queries - group < kKvLanes ? a.num_queries - group : kKvLanes;
    float peaks[kKvLanes], factors[kKvLanes];
    const F peak = f_row_peaks(a.scores + group * kKvTokens, count), old = f_load(a.max + group),
            top = f_max(peak, old);
    const F factor = exp2_of(f_sub(peak, top));
    grown = grown || f_any_above(top, old);
    f_store(peaks, peak);
    f_store(factors, factor);
    f_store(a.max + group, top);
    f_store(a.corrections + group, exp2_of(f_sub(old, top)));
    f_store(a.p_scales + group, f_fma(factor, f_set1(1.0f / 240.0f), f_set1(values.finite)));
    for (int i = 0; i < count; ++i) {
      const float* p = a.scores + (group + i) * kKvTokens;
      float* sums = a.sums + (group + i) * kKvLanes;
      F weight[2];
      ahead.ask();
      for (int j = 0; j < 2; ++j) {
        weight[j] = f_exp2_rough(f_max(f_set1(-126.0f), f_sub(f_load(p + 16 * j), f_set1(peaks[i]))));
        i_store_i8(codes + (group + i) * kKvTokens + 16 * j, i_from_f(f_round(f_mul(weight[j], values.code[j]))));
      }
      const F sum = f_fma(weight[1], values.inverse[1], f_mul(weight[0], values.inverse[0]));
      f_store(sums, f_fma(sum, f_set1(factors[i]), f_mul(f_load(sums), f_set1(a.corrections[group + i]))));
    }
  }
  return grown;
}

void attend_int8(const AttendBlocks& blocks) {
  each_block(blocks, [](const AttendBlock& a) {
    score_keys_int8(a);
    if (soften_scores_int8(a)) correct_sums(a);
    each_value_tile(
        a, [&]<int kQueries, int kTiles>(int32_t q, int32_t at) { add_tiles_int8<kQueries, kTiles>(a, q, at); });
  });
}
