// Row-wise operations over the vector vocabulary; included by isa_*.cpp only.

// Runs body(index, values, lanes) over n floats of `from`; the tail is padded with zeros.
inline F load_tail(const float* p, int64_t lanes) {
  float padded[16] = {};
  for (int64_t i = 0; i < lanes; ++i) padded[i] = p[i];
  return f_load(padded);
}
inline void store_tail(float* p, F a, int64_t lanes) {
  float padded[16];
  f_store(padded, a);
  for (int64_t i = 0; i < lanes; ++i) p[i] = padded[i];
}
inline F load_some(const float* p, int64_t lanes) { return lanes >= 16 ? f_load(p) : load_tail(p, lanes); }
inline void store_some(float* p, F a, int64_t lanes) {
  if (lanes >= 16) f_store(p, a);
  else store_tail(p, a, lanes);
}

// e^x with a relative error of about 1e-7: x = n ln 2 + r, |r| <= ln 2 / 2, and the Taylor series of
// e^r to the seventh power (its rest is below 1e-9 there). Results outside the normal floats become
// the smallest or largest power of two; a NaN becomes one of them.
inline F f_exp(F x) {
  x = f_min(f_max(x, f_set1(-87.0f)), f_set1(88.0f));
  F n = f_round(f_mul(x, f_set1(1.44269504088896341f)));
  F r = f_fma(n, f_set1(-0.693359375f), x);              // ln 2 in two parts (Cody and Waite)
  r = f_fma(n, f_set1(2.12194440054690583e-4f), r);
  F p = f_set1(1.0f / 5040.0f);
  p = f_fma(p, r, f_set1(1.0f / 720.0f));
  p = f_fma(p, r, f_set1(1.0f / 120.0f));
  p = f_fma(p, r, f_set1(1.0f / 24.0f));
  p = f_fma(p, r, f_set1(1.0f / 6.0f));
  p = f_fma(p, r, f_set1(0.5f));
  p = f_fma(p, r, f_set1(1.0f));
  p = f_fma(p, r, f_set1(1.0f));
  return f_mul(p, f_exp2i(i_from_f(n)));
}

inline F f_sigmoid(F x) {
  F one = f_set1(1.0f);
  return f_div(one, f_add(one, f_exp(f_sub(f_set1(0.0f), x))));
}

inline F f_gelu_erf(F x) {
  float lanes[16];
  f_store(lanes, x);
  for (int i = 0; i < 16; ++i) {
    lanes[i] = 0.5f * lanes[i] * (1.0f + __builtin_erff(lanes[i] * 0.70710678118654752f));
  }
  return f_load(lanes);
}

// 0.5 x (1 + tanh(u)) is x sigmoid(2 u).
inline F f_gelu_tanh(F x) {
  F u = f_mul(f_mul(x, f_set1(1.5957691216057308f)),
              f_fma(f_mul(x, x), f_set1(0.044715f), f_set1(1.0f)));
  return f_mul(x, f_sigmoid(u));
}

inline F activate(KernelActivation act, F x) {
  switch (act) {
    case KernelActivation::silu: return f_mul(x, f_sigmoid(x));
    case KernelActivation::gelu_erf: return f_gelu_erf(x);
    case KernelActivation::gelu_tanh: break;
  }
  return f_gelu_tanh(x);
}

// `up` may be null: the activation alone.
void gated_activation(KernelActivation act, const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    F a = activate(act, load_some(gate + i, n - i));
    if (up != nullptr) a = f_mul(a, load_some(up + i, n - i));
    store_some(out + i, a, n - i);
  }
}

float dot(const float* a, const float* b, int64_t n) {
  F sums[4];
  for (F& sum : sums) sum = f_set1(0.0f);
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int j = 0; j < 4; ++j) sums[j] = f_fma(f_load(a + i + 16 * j), f_load(b + i + 16 * j), sums[j]);
  }
  for (; i < n; i += 16) sums[0] = f_fma(load_some(a + i, n - i), load_some(b + i, n - i), sums[0]);
  return f_reduce_add(f_add(f_add(sums[0], sums[1]), f_add(sums[2], sums[3])));
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  float mean = dot(x, x, n) / static_cast<float>(n);
  F factor = f_set1(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < n; i += 16) {
    F scaled = f_mul(load_some(x + i, n - i), factor);
    store_some(out + i, f_mul(scaled, load_some(weight + i, n - i)), n - i);
  }
}

void rope(float* x, const float* cosine, const float* sine, int32_t half, float factor) {
  F scale = f_set1(factor);
  for (int32_t i = 0; i < half; i += 16) {
    F c = load_some(cosine + i, half - i), s = load_some(sine + i, half - i);
    F u = load_some(x + i, half - i), v = load_some(x + half + i, half - i);
    F first = f_sub(f_mul(u, c), f_mul(v, s)), second = f_add(f_mul(v, c), f_mul(u, s));
    store_some(x + i, f_mul(first, scale), half - i);
    store_some(x + half + i, f_mul(second, scale), half - i);
  }
}

// --- logits: backend/logit_math.h --------------------------------------------------------------------

// 16 logits; those behind the end are -infinity.
inline F load_logits(const float* p, int64_t lanes) {
  if (lanes >= 16) return f_load(p);
  float padded[16];
  for (int64_t i = 0; i < 16; ++i) padded[i] = i < lanes ? p[i] : -__builtin_inff();
  return f_load(padded);
}

bool logit_peaks(const float* x, int64_t n, float* peaks) {
  F faults = f_set1(0.0f);
  for (int64_t begin = 0; begin < n; begin += kLogitGroup) {
    const int64_t end = begin + kLogitGroup < n ? begin + kLogitGroup : n;
    F top = load_logits(x + begin, end - begin);
    for (int64_t i = begin; i < end; i += 16) {
      const F logits = load_logits(x + i, end - i);
      top = f_max(top, logits);
      // x - x is NaN for infinities and NaN; -infinity is none here. f_max gives its second operand for NaN.
      const F positive = f_max(f_set1(0.0f), logits);
      faults = f_add(faults, f_sub(positive, positive));
    }
    *peaks++ = f_reduce_max(top);
  }
  return f_reduce_add(faults) == 0.0f;
}

void logit_exp_sums(const float* x, int64_t n, float top, float factor, float* sums) {
  const F shift = f_set1(top), scale = f_set1(factor), one = f_set1(1.0f), zero = f_set1(0.0f);
  for (int64_t begin = 0; begin < n; begin += kLogitGroup) {
    const int64_t end = begin + kLogitGroup < n ? begin + kLogitGroup : n;
    F sum = zero;
    for (int64_t i = begin; i < end; i += 16) {
      const F e = f_mul(f_sub(load_logits(x + i, end - i), shift), scale);
      // 0 from -87 on, where f_exp stands still, and 1 above.
      const F counts = f_min(one, f_max(zero, f_mul(f_add(e, f_set1(87.0f)), f_set1(1e30f))));
      sum = f_fma(counts, f_exp(e), sum);
    }
    *sums++ = f_reduce_add(sum);
  }
}

void quantize_run(const float* x, int64_t columns, int first, int num_tokens, uint8_t* batch) {
  const int n = run_tokens(first, num_tokens);
  const int64_t blocks = columns / kBlock, stride = num_tokens * kTokenRecord;
  uint8_t* const records = batch + first * kTokenRecord;
  if (n == 4) {
    for (int64_t b = 0; b < blocks; ++b) {
      const float* const at = x + b * kBlock;
      const float* const four[4] = {at, at + columns, at + 2 * columns, at + 3 * columns};
      quantize_four(four, records + b * stride);
    }
    return;
  }
  for (int t = 0; t < n; ++t, x += columns) {
    for (int64_t b = 0; b < blocks; b += 4) {
      const int64_t count = blocks - b < 4 ? blocks - b : 4;
      const float* four[4];
      for (int64_t i = 0; i < 4; ++i) four[i] = x + (i < count ? b + i : b) * kBlock;
      uint8_t made[4 * kTokenRecord];
      quantize_four(four, made);
      for (int64_t i = 0; i < count; ++i) {
        for (int word = 0; word < kTokenRecord / 4; ++word)
          memcpy(records + (b + i) * stride + 4 * (word * n + t), made + 4 * (word * 4 + i), 4);
      }
    }
  }
}
