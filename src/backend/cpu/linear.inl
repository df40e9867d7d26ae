// Products of one tile of 16 rows with up to four tokens at a time. Written over the vector
// vocabulary; included by isa_*.cpp only, inside their namespace.

constexpr int kTokensAtOnce = 4;

template <FloatCodes kCodes>
inline F load_column(const uint8_t* p) {
  if constexpr (kCodes == FloatCodes::f32) return f_load(reinterpret_cast<const float*>(p));
  else if constexpr (kCodes == FloatCodes::f16) return f_from_f16(reinterpret_cast<const uint16_t*>(p));
  else if constexpr (kCodes == FloatCodes::bf16) return f_from_bf16(reinterpret_cast<const uint16_t*>(p));
  else return f_from_e4m3(p);
}

// Even and odd columns have sums of their own, so that two chains of FMA run side by side.
template <FloatCodes kCodes, int kTokens>
void float_tile(const uint8_t* tile, int64_t columns, const float* x, int64_t stride, float* out) {
  constexpr int64_t kBytes = kTileRows * (kCodes == FloatCodes::f32    ? 4
                                          : kCodes == FloatCodes::e4m3 ? 1
                                                                       : 2);
  F even[kTokens], odd[kTokens];
  for (int t = 0; t < kTokens; ++t) even[t] = odd[t] = f_set1(0.0f);
  int64_t k = 0;
  for (; k + 2 <= columns; k += 2) {
    F a = load_column<kCodes>(tile + k * kBytes), b = load_column<kCodes>(tile + (k + 1) * kBytes);
    for (int t = 0; t < kTokens; ++t) {
      even[t] = f_fma(a, f_set1(x[t * stride + k]), even[t]);
      odd[t] = f_fma(b, f_set1(x[t * stride + k + 1]), odd[t]);
    }
  }
  if (k < columns) {
    F a = load_column<kCodes>(tile + k * kBytes);
    for (int t = 0; t < kTokens; ++t) even[t] = f_fma(a, f_set1(x[t * stride + k]), even[t]);
  }
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, f_add(even[t], odd[t]));
}

// How the columns of one block become codes, and where its parts lie.
template <IntCodes kCodes>
struct IntLayout {
  static constexpr bool is_super =
      kCodes == IntCodes::q4_k || kCodes == IntCodes::q5_k || kCodes == IntCodes::q6_k;
  static constexpr bool has_min = kCodes == IntCodes::q4_1 || kCodes == IntCodes::q5_1 ||
                                  kCodes == IntCodes::q4_k || kCodes == IntCodes::q5_k;
  static constexpr bool is_signed = kCodes == IntCodes::q8_0;
  static constexpr int bits = kCodes == IntCodes::q6_k ? 6
                              : kCodes == IntCodes::q5_0 || kCodes == IntCodes::q5_1 || kCodes == IntCodes::q5_k
                                  ? 5
                                  : 4;
  static constexpr int offset = kCodes == IntCodes::q4_0 ? 8 : kCodes == IntCodes::q5_0 ? 16
                                : kCodes == IntCodes::q6_k ? 32 : 0;
  static constexpr int scale_bytes =
      kCodes == IntCodes::q6_k || kCodes == IntCodes::q4_k || kCodes == IntCodes::q5_k
          ? 32
          : (has_min ? 64 : 32);
  static constexpr int high_bytes = is_signed ? 0 : bits == 6 ? 128 : bits == 5 ? 64 : 0;
  static constexpr int code_bytes = is_signed ? 512 : 256;
  static constexpr int block_bytes = scale_bytes + high_bytes + code_bytes;
  static constexpr int super_bytes = !is_super ? 0 : has_min ? 64 : 32;
};

inline int32_t load_quad(const int8_t* p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return quad;
}

// The codes of quads kGroup and kGroup + 4.
template <IntCodes kCodes, int kGroup>
inline void load_quads(const uint8_t* codes, const uint8_t* high, B* first, B* second) {
  using L = IntLayout<kCodes>;
  B packed = b_load(codes + kGroup * 64);
  *first = b_low_nibbles(packed);
  *second = b_high_nibbles(packed);
  if constexpr (L::bits == 5) {
    B plane = b_load(high);
    *first = b_or(*first, b_bits_to_4<kGroup, 1>(plane));
    *second = b_or(*second, b_bits_to_4<kGroup + 4, 1>(plane));
  } else if constexpr (L::bits == 6) {
    *first = b_or(*first, b_bits_to_4<2 * kGroup, 3>(b_load(high)));
    *second = b_or(*second, b_bits_to_4<2 * kGroup, 3>(b_load(high + 64)));
  }
}

// Integer sums of both half blocks (quads 0-3: low, 4-7: high) for each token.
template <IntCodes kCodes, int kTokens>
inline void block_sums(const uint8_t* block, const int8_t* const* x, I* low, I* high) {
  using L = IntLayout<kCodes>;
  const uint8_t* planes = block + L::scale_bytes;
  const uint8_t* codes = planes + L::high_bytes;
  for (int t = 0; t < kTokens; ++t) low[t] = high[t] = i_zero();
  if constexpr (L::is_signed) {
    for (int g = 0; g < 8; ++g) {
      B w = b_load(codes + g * 64);
      for (int t = 0; t < kTokens; ++t) low[t] = i_mac_signed(low[t], w, load_quad(x[t] + 4 * g));
    }
  } else {
    D d_low[kTokens], d_high[kTokens];
    for (int t = 0; t < kTokens; ++t) d_low[t] = d_high[t] = d_zero();
    auto group = [&]<int kGroup>() {
      B first, second;
      load_quads<kCodes, kGroup>(codes, planes, &first, &second);
      for (int t = 0; t < kTokens; ++t) {
        d_low[t] = d_mac(d_low[t], first, load_quad(x[t] + 4 * kGroup));
        if constexpr (kSafe<L::bits> == 8 && L::bits != 6) {
          d_low[t] = d_mac(d_low[t], second, load_quad(x[t] + 4 * kGroup + 16));
        } else {
          d_high[t] = d_mac(d_high[t], second, load_quad(x[t] + 4 * kGroup + 16));
        }
      }
      if constexpr (kSafe<L::bits> == 2 && kGroup == 1) {
        for (int t = 0; t < kTokens; ++t) {
          low[t] = d_flush(d_low[t]);
          high[t] = d_flush(d_high[t]);
          d_low[t] = d_high[t] = d_zero();
        }
      }
    };
    group.template operator()<0>();
    group.template operator()<1>();
    group.template operator()<2>();
    group.template operator()<3>();
    for (int t = 0; t < kTokens; ++t) {
      low[t] = i_add(low[t], d_flush(d_low[t]));
      high[t] = i_add(high[t], d_flush(d_high[t]));
    }
  }
}

template <IntCodes kCodes, int kTokens>
void int_tile(const uint8_t* tile, int64_t columns, const QuantizedRow* x, float* out) {
  using L = IntLayout<kCodes>;
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = f_set1(0.0f);
  const uint8_t* p = tile;
  for (int64_t b = 0; b < columns / kBlock; ++b) {
    F d = f_set1(0.0f), m = d;
    if constexpr (L::is_super) {
      if (b % 8 == 0) p += L::super_bytes;
      const uint8_t* super = p - (b % 8) * L::block_bytes - L::super_bytes;
      d = f_from_f16(reinterpret_cast<const uint16_t*>(super));
      if constexpr (L::has_min) {
        d = f_mul(d, f_from_i(i_from_u8(p)));
        m = f_mul(f_from_f16(reinterpret_cast<const uint16_t*>(super + 32)), f_from_i(i_from_u8(p + 16)));
        m = f_sub(f_set1(0.0f), m);
      }
    } else {
      d = f_from_f16(reinterpret_cast<const uint16_t*>(p));
      if constexpr (L::has_min) m = f_from_f16(reinterpret_cast<const uint16_t*>(p + 32));
    }
    const int8_t* codes[kTokens];
    for (int t = 0; t < kTokens; ++t) codes[t] = x[t].codes + b * kBlock;
    I low[kTokens], high[kTokens];
    block_sums<kCodes, kTokens>(p, codes, low, high);
    for (int t = 0; t < kTokens; ++t) {
      const int32_t* sums = x[t].sums + 2 * b;
      const float scale = x[t].scales[b];
      I dot = low[t];
      if constexpr (kCodes == IntCodes::q6_k) {
        // Each half block has its own scale.
        I a = i_sub(low[t], i_set1(L::offset * sums[0])), c = i_sub(high[t], i_set1(L::offset * sums[1]));
        dot = i_add(i_mul(a, i_from_i8(p)), i_mul(c, i_from_i8(p + 16)));
      } else {
        dot = i_add(low[t], high[t]);
        if constexpr (L::offset != 0) dot = i_sub(dot, i_set1(L::offset * (sums[0] + sums[1])));
      }
      sum[t] = f_fma(f_from_i(dot), f_mul(d, f_set1(scale)), sum[t]);
      if constexpr (L::has_min) {
        sum[t] = f_fma(m, f_set1(scale * static_cast<float>(sums[0] + sums[1])), sum[t]);
      }
    }
    p += L::block_bytes;
  }
  for (int t = 0; t < kTokens; ++t) f_store(out + t * kTileRows, sum[t]);
}

// Calls run<kTokens>(first token) for groups of four and the rest.
template <class Run>
inline void in_groups(int num_tokens, Run run) {
  int t = 0;
  for (; t + kTokensAtOnce <= num_tokens; t += kTokensAtOnce) run.template operator()<4>(t);
  switch (num_tokens - t) {
    case 3: run.template operator()<3>(t); break;
    case 2: run.template operator()<2>(t); break;
    case 1: run.template operator()<1>(t); break;
    default: break;
  }
}

template <FloatCodes kCodes>
void float_tokens(const uint8_t* tile, int64_t columns, const float* x, int64_t stride,
                  int num_tokens, float* out) {
  in_groups(num_tokens, [&]<int kTokens>(int t) {
    float_tile<kCodes, kTokens>(tile, columns, x + t * stride, stride, out + t * kTileRows);
  });
}

template <IntCodes kCodes>
void int_tokens(const uint8_t* tile, int64_t columns, const QuantizedRow* x, int num_tokens, float* out) {
  in_groups(num_tokens, [&]<int kTokens>(int t) {
    int_tile<kCodes, kTokens>(tile, columns, x + t, out + t * kTileRows);
  });
}

void linear_float(FloatCodes codes, const uint8_t* tile, int64_t columns, const float* x,
                  int64_t stride, int num_tokens, float* out) {
  switch (codes) {
    case FloatCodes::f32: return float_tokens<FloatCodes::f32>(tile, columns, x, stride, num_tokens, out);
    case FloatCodes::f16: return float_tokens<FloatCodes::f16>(tile, columns, x, stride, num_tokens, out);
    case FloatCodes::bf16: return float_tokens<FloatCodes::bf16>(tile, columns, x, stride, num_tokens, out);
    case FloatCodes::e4m3: return float_tokens<FloatCodes::e4m3>(tile, columns, x, stride, num_tokens, out);
  }
}

void linear_int(IntCodes codes, const uint8_t* tile, int64_t columns, const QuantizedRow* x,
                int num_tokens, float* out) {
  switch (codes) {
    case IntCodes::q4_0: return int_tokens<IntCodes::q4_0>(tile, columns, x, num_tokens, out);
    case IntCodes::q4_1: return int_tokens<IntCodes::q4_1>(tile, columns, x, num_tokens, out);
    case IntCodes::q5_0: return int_tokens<IntCodes::q5_0>(tile, columns, x, num_tokens, out);
    case IntCodes::q5_1: return int_tokens<IntCodes::q5_1>(tile, columns, x, num_tokens, out);
    case IntCodes::q8_0: return int_tokens<IntCodes::q8_0>(tile, columns, x, num_tokens, out);
    case IntCodes::q4_k: return int_tokens<IntCodes::q4_k>(tile, columns, x, num_tokens, out);
    case IntCodes::q5_k: return int_tokens<IntCodes::q5_k>(tile, columns, x, num_tokens, out);
    case IntCodes::q6_k: return int_tokens<IntCodes::q6_k>(tile, columns, x, num_tokens, out);
  }
}
