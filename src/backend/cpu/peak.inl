// How fast this instruction set multiplies and adds, from registers alone, and how fast its loads read memory: the limits that
// products are measured against. Included by isa_*.cpp inside their namespace, over the vocabulary of simd_*.h.

// Sums that are alive at once, of floats and of bytes: enough to hide the latency of one operation, few enough for the
// registers (one F is one register of AVX-512, two of AVX2, four of SSE; bytes have sums of both kinds).
#if defined(__AVX512F__) || defined(BISE_EMULATED_AVX512)
constexpr int kPeakSums = 12, kByteSums = 12;
#elif defined(__AVX2__)
constexpr int kPeakSums = 6, kByteSums = 3;
#else
constexpr int kPeakSums = 2, kByteSums = 1;
#endif

inline double peak_float(int64_t steps, float* sink) {
  F sums[kPeakSums];
  for (int i = 0; i < kPeakSums; ++i) sums[i] = f_set1(sink[i]);
  const F a = f_set1(sink[0]), b = f_set1(sink[1]);
  for (int64_t step = 0; step < steps; ++step) {
    for (int i = 0; i < kPeakSums; ++i) sums[i] = f_fma(a, b, sums[i]);
  }
  for (int i = 0; i < kPeakSums; ++i) sink[i] = f_reduce_add(sums[i]);
  return static_cast<double>(steps) * kPeakSums * 16 * 2;
}

// As a product with 4-bit codes does it: so many products as 16 bits hold, then into the sums of 32.
inline double peak_int8(int64_t steps, float* sink) {
  constexpr int kRun = 8, kCodes = (kByteSums + 1) / 2;
  // Every sum has numbers of its own, out of few: a product must not need a load of its own.
  B codes[kCodes];
  for (int c = 0; c < kCodes; ++c) {
    uint8_t bytes[64];
    for (int i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>(static_cast<int>(sink[i % 16]) + c) & 15;
    codes[c] = b_load(bytes);
  }
  int32_t quads[kRun][2];
  for (int r = 0; r < kRun; ++r) {
    for (int i = 0; i < 2; ++i) quads[r][i] = (static_cast<int32_t>(sink[r]) + i) * 0x01010101;
  }
  I sums[kByteSums];
  for (int i = 0; i < kByteSums; ++i) sums[i] = i_zero();
  for (int64_t step = 0; step < steps; ++step) {
    // The compiler may not know that every step multiplies the same numbers.
    __asm__ volatile("" : "+m"(quads));
    D run[kByteSums];
    for (int i = 0; i < kByteSums; ++i) run[i] = d_mul(codes[i / 2], quads[0][i % 2]);
    for (int r = 1; r < kRun; ++r) {
      for (int i = 0; i < kByteSums; ++i) run[i] = d_mac(run[i], codes[i / 2], quads[r][i % 2]);
    }
    for (int i = 0; i < kByteSums; ++i) sums[i] = i_add(sums[i], d_flush(run[i]));
  }
  for (int i = 0; i < kByteSums; ++i) sink[i] = static_cast<float>(i_reduce_add(sums[i]) & 1);
  return static_cast<double>(steps) * kRun * kByteSums * 64 * 2;
}

// Two lines at a time as wide as the registers are: narrower loads fill the window of the processor with instructions
// before they have filled the ways to memory (0.6 of the rate on Zen 5).
inline uint8_t read_lines(const uint8_t* data, int64_t bytes, int64_t ahead) {
  B seen[2] = {b_load(data), b_load(data)};
  for (int64_t i = 0; i < bytes; i += 128) {
    for (int64_t j = 0; j < 2; ++j) {
      if (ahead > 0) __builtin_prefetch(data + i + 64 * j + ahead);
      seen[j] = b_or(seen[j], b_load(data + i + 64 * j));
    }
  }
  uint8_t bits[64], all = 0;
  b_store(bits, b_or(seen[0], seen[1]));
  for (uint8_t byte : bits) all |= byte;
  return all;
}

inline double peak(PeakUnit unit, int64_t steps, float* sink) {
  return unit == PeakUnit::float_fma ? peak_float(steps, sink) : peak_int8(steps, sink);
}
