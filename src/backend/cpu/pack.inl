// Packing of one or four rows; included by isa_pack_*.cpp only, inside their unnamed namespace.

// --- Reading: a source gives the blocks of 32 columns of one row: `codes` as bytes, eight to a word, column
// 0 lowest; `block_scales` are the block's own; `header` and `minimum` those of the group that a block starts.
// `begin` comes before every eighth block: where a super-block starts.

constexpr uint64_t kEach = 0x0101010101010101;  // times a byte: that byte in every byte
typedef uint64_t Codes __attribute__((vector_size(32)));
typedef uint64_t Long2 __attribute__((vector_size(16)));
typedef uint32_t Word4 __attribute__((vector_size(16)));
typedef uint16_t Half8 __attribute__((vector_size(16)));
typedef uint8_t Byte16 __attribute__((vector_size(16)));

inline uint32_t word32(const uint8_t* p) {
  uint32_t w;
  memcpy(&w, p, 4);
  return w;
}
inline uint64_t word64(const uint8_t* p) {
  uint64_t w;
  memcpy(&w, p, 8);
  return w;
}
inline void put32(uint8_t* p, uint32_t w) { memcpy(p, &w, 4); }
template <class Vector>
inline Vector load_vector(const void* p) {
  Vector v;
  memcpy(&v, p, 16);
  return v;
}
inline void store(uint8_t* p, Word4 v) { memcpy(p, &v, 16); }

inline Codes join(Long2 low, Long2 high) { return __builtin_shufflevector(low, high, 0, 1, 2, 3); }
// (byte >> shift) & mask of 32 bytes. What crosses into a byte from above is masked away.
inline Codes bits_of(const uint8_t* p, uint64_t shift, uint64_t mask) {
  return (join(load_vector<Long2>(p), load_vector<Long2>(p + 16)) >> shift) & (mask * kEach);
}
// 16 bytes: low nibbles are columns 0 to 15, high nibbles 16 to 31.
inline Codes nibbles(const uint8_t* p) {
  const Long2 both = load_vector<Long2>(p);
  return join(both & (15 * kEach), (both >> 4) & (15 * kEach));
}
// 16 bytes of two neighbouring columns each, the low nibble first.
inline Codes nibble_pairs(const uint8_t* p) {
  const Long2 both = load_vector<Long2>(p);
  const Byte16 even = reinterpret_cast<Byte16>(both & (15 * kEach)), odd = reinterpret_cast<Byte16>((both >> 4) & (15 * kEach));
  return join(reinterpret_cast<Long2>(__builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)),
              reinterpret_cast<Long2>(__builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)));
}
// Bit i of a byte to byte i: 0 or 1.
inline uint64_t spread_bits(uint64_t byte) {
#ifdef BISE_PACK_BMI2
  return _pdep_u64(byte, kEach);
#else
  const uint64_t each = (byte * kEach) & 0x8040201008040201;
  return ((each + 0x7F7F7F7F7F7F7F7F) >> 7) & kEach;
#endif
}

struct BlockSource {
  const uint8_t* row = nullptr;
  void begin(int64_t) {}
  void minimum(int64_t, int64_t, uint8_t*) const {}
  void block_scales(int64_t, uint8_t*) const {}
};

// Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL: d [· m] [· 32 fifth bits] · 16 bytes of nibbles.
template <bool kMin, bool kFive>
struct NibbleSource : BlockSource {
  static constexpr int kBytes = 2 + (kMin ? 2 : 0) + (kFive ? 4 : 0) + 16;
  const uint8_t* at(int64_t b) const { return row + b * kBytes; }
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b), 2); }
  void minimum(int64_t b, int64_t, uint8_t* out) const {
    if constexpr (kMin) memcpy(out, at(b) + 2, 2);
  }
  Codes codes(int64_t b) const {
    const uint8_t* p = at(b) + (kMin ? 4 : 2);
    Codes c = nibbles(p + (kFive ? 4 : 0));
    if constexpr (kFive) c |= Codes{spread_bits(p[0]), spread_bits(p[1]), spread_bits(p[2]), spread_bits(p[3])} << 4;
    return c;
  }
};
struct Q8_0Source : BlockSource {
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, row + b * 34, 2); }
  Codes codes(int64_t b) const { return bits_of(row + b * 34 + 2, 0, 255); }
};
struct Mxfp4Source : BlockSource {
  void header(int64_t b, int64_t, uint8_t* out) const { *out = row[b * 17]; }
  Codes codes(int64_t b) const { return nibbles(row + b * 17 + 1); }
};
// Blocks of 64 columns: 4 scales, then 8 bytes for each 16 columns, low nibbles first.
struct Nvfp4Source : BlockSource {
  void header(int64_t, int64_t, uint8_t*) const {}
  // ggml reads a scale without its sign, and 7F as zero.
  static uint8_t scale(uint8_t s) { return (s & 0x7F) == 0x7F ? 0 : s & 0x7F; }
  void block_scales(int64_t b, uint8_t* out) const {
    const uint8_t* s = row + b / 2 * 36 + b % 2 * 2;
    out[0] = scale(s[0]);
    out[kTileRows] = scale(s[1]);
  }
  Codes codes(int64_t b) const {
    const uint8_t* p = row + b / 2 * 36 + 4 + b % 2 * 16;
    const Long2 low = load_vector<Long2>(p) & (15 * kEach), high = (load_vector<Long2>(p) >> 4) & (15 * kEach);
    return __builtin_shufflevector(low, high, 0, 2, 1, 3);
  }
};

// Two bits of each code of block `b` of a super-block: Q2_K and Q3_K.
inline Codes two_bits(const uint8_t* qs, uint64_t b) { return bits_of(qs + 32 * (b / 4), 2 * (b % 4), 3); }
struct Q2KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 84; }
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b) + 80, 2); }
  void minimum(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b) + 82, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = at(b)[2 * (b % 8)];
    out[kTileRows] = at(b)[2 * (b % 8) + 1];
  }
  Codes codes(int64_t b) const { return two_bits(at(b) + 16, static_cast<uint64_t>(b % 8)); }
};
struct Q3KSource : BlockSource {
  uint8_t scales[16] = {};  // of 16 columns each
  const uint8_t* at(int64_t b) const { return row + b / 8 * 110; }
  void begin(int64_t b) {
    const uint32_t low = word32(at(b) + 96), mid = word32(at(b) + 100), high = word32(at(b) + 104);
    constexpr uint32_t kFour = 0x0F0F0F0F, kTwo = 0x03030303, kTop = 0x80808080;
    // Less 32 in every byte: bit 7 keeps borrows from crossing.
    auto put = [&](int i, uint32_t four, uint32_t two) {
      put32(scales + 4 * i, (((four & kFour) | (two & kTwo) << 4 | kTop) - 0x20202020) ^ kTop);
    };
    put(0, low, high);
    put(1, mid, high >> 2);
    put(2, low >> 4, high >> 4);
    put(3, mid >> 4, high >> 6);
  }
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b) + 108, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = scales[2 * (b % 8)];
    out[kTileRows] = scales[2 * (b % 8) + 1];
  }
  Codes codes(int64_t b) const {
    const uint64_t j = static_cast<uint64_t>(b % 8);
    return two_bits(at(b) + 32, j) | bits_of(at(b), j, 1) << 2;
  }
};
template <bool kFive>
struct Q45KSource : BlockSource {
  uint8_t scales[8] = {}, minima[8] = {};
  const uint8_t* at(int64_t b) const { return row + b / 8 * (kFive ? 176 : 144); }
  void begin(int64_t b) {
    const uint32_t s = word32(at(b) + 4), m = word32(at(b) + 8), rest = word32(at(b) + 12);
    constexpr uint32_t kSix = 0x3F3F3F3F, kFour = 0x0F0F0F0F, kTwo = 0x03030303;
    put32(scales, s & kSix);
    put32(minima, m & kSix);
    put32(scales + 4, (rest & kFour) | ((s >> 6) & kTwo) << 4);
    put32(minima + 4, ((rest >> 4) & kFour) | ((m >> 6) & kTwo) << 4);
  }
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b), 2); }
  void minimum(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b) + 2, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = scales[b % 8];
    out[kTileRows] = minima[b % 8];
  }
  Codes codes(int64_t b) const {
    const uint64_t j = static_cast<uint64_t>(b % 8);
    Codes c = bits_of(at(b) + (kFive ? 48 : 16) + j / 2 * 32, j % 2 * 4, 15);
    if constexpr (kFive) c |= bits_of(at(b) + 16, j, 1) << 4;
    return c;
  }
};
struct Q6KSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 210; }
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b) + 208, 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    out[0] = at(b)[192 + 2 * (b % 8)];
    out[kTileRows] = at(b)[193 + 2 * (b % 8)];
  }
  Codes codes(int64_t b) const {
    const uint64_t half = static_cast<uint64_t>(b % 8 / 4), part = static_cast<uint64_t>(b % 4);
    return bits_of(at(b) + 64 * half + 32 * (part % 2), part / 2 * 4, 15) |
           bits_of(at(b) + 128 + 32 * half, 2 * part, 3) << 4;
  }
};
struct Iq4XsSource : BlockSource {
  const uint8_t* at(int64_t b) const { return row + b / 8 * 136; }
  void header(int64_t b, int64_t, uint8_t* out) const { memcpy(out, at(b), 2); }
  void block_scales(int64_t b, uint8_t* out) const {
    const int64_t j = b % 8;
    const int low = (at(b)[4 + j / 2] >> (4 * (j % 2))) & 15;
    const int high = ((at(b)[2] | at(b)[3] << 8) >> (2 * j)) & 3;
    *out = static_cast<uint8_t>((low | high << 4) - 32);
  }
  Codes codes(int64_t b) const { return nibbles(at(b) + 8 + b % 8 * 16); }
};

// 32 codes in kBits words.
template <int kBits>
inline Codes dense_codes(const uint8_t* words) {
  if constexpr (kBits == 4) return nibble_pairs(words);
  if constexpr (kBits == 8) return bits_of(words, 0, 255);
  Codes c{};
#ifdef BISE_PACK_BMI2
  for (int i = 0; i < 4; ++i) {  // eight codes are kBits bytes; none beyond the words is read
    const int at = i * kBits, last = 4 * kBits - 8;
    const uint64_t x = kBits == 1 ? words[i] : at <= last ? word64(words + at) : word64(words + last) >> (8 * (at - last));
    c[i] = _pdep_u64(x, ((1u << kBits) - 1) * kEach);
  }
#else
  uint32_t w[kBits + 1];
  memcpy(w, words, 4 * kBits);
  w[kBits] = 0;
  for (int i = 0; i < kBlock; ++i) {
    const int at = i * kBits / 32, shift = i * kBits % 32;
    const uint64_t two = w[at] | static_cast<uint64_t>(w[at + 1]) << 32;
    c[i / 8] |= ((two >> shift) & ((1u << kBits) - 1)) << (8 * (i % 8));
  }
#endif
  return c;
}

inline void copy_scale(uint8_t* out, const uint8_t* from, int width) {
  if (width == 2) memcpy(out, from, 2);
  else if (width == 4) memcpy(out, from, 4);
  else if (width == 1) *out = *from;
}

// Scales and minima that stand in tensors of their own. kBits: of a code; 0: a byte each.
template <int kBits, BlockScales kScales>
struct GroupSource {
  const PackJob* job = nullptr;
  PackRow row{};
  int scale_width = 0;
  int64_t first_group = 0;

  void begin(int64_t) {}
  void header(int64_t, int64_t group, uint8_t* out) const { copy_scale(out, row.scales + group * job->scale_step, scale_width); }
  void minimum(int64_t, int64_t group, uint8_t* out) const {
    if (job->ints.minimum == Minimum::zero_point) *out = row.minima[group - first_group];
    if (job->ints.minimum == Minimum::value) copy_scale(out, row.minima + group * job->scale_step, scale_width);
  }
  void block_scales(int64_t b, uint8_t* out) const {
    if constexpr (kScales == BlockScales::e4m3_halves) {
      out[0] = row.scales[2 * b * job->scale_step];
      out[kTileRows] = row.scales[(2 * b + 1) * job->scale_step];
    }
  }
  Codes codes(int64_t b) const {
    Codes c;
    if constexpr (kBits == 0) {
      c = bits_of(row.codes + b * kBlock - job->first, 0, 255);
    } else if (job->word_step == 4) {
      c = dense_codes<kBits>(row.codes + b * kBits * 4);
    } else {
      uint8_t words[4 * kBits];
      for (int i = 0; i < kBits; ++i) memcpy(words + 4 * i, row.codes + (b * kBits + i) * job->word_step, 4);
      c = dense_codes<kBits>(words);
    }
    if (job->offset == 0) return c;
    const uint64_t top = 128 * kEach;  // bit 7 keeps borrows from crossing
    return ((c | top) - job->offset * kEach) ^ (~c & top);
  }
};

// --- Writing. Every word of four bytes of a tile belongs to one row. Four rows that lie side by side are stored as
// vectors; of a row alone, the other three words of a vector are left out.

template <int kLanes>
inline void put(uint8_t* p, Word4 words) {
  if constexpr (kLanes == 4) store(p, words);
  else put32(p, words[0]);
}

struct Transposed {
  Word4 words[4];  // word i of all four rows
};
inline Transposed transpose(const Long2* rows) {
  const Word4 a = reinterpret_cast<Word4>(rows[0]), b = reinterpret_cast<Word4>(rows[1]);
  const Word4 c = reinterpret_cast<Word4>(rows[2]), d = reinterpret_cast<Word4>(rows[3]);
  const Word4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Word4 ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return {{__builtin_shufflevector(ab, cd, 0, 1, 4, 5), __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
           __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5), __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7)}};
}
inline Long2 low_half(Codes c) { return __builtin_shufflevector(c, c, 0, 1); }
inline Long2 high_half(Codes c) { return __builtin_shufflevector(c, c, 2, 3); }

// 32 codes of each of four rows into a block (behind its scales). A word of Codes holds quads 2 i and 2 i + 1.
template <IntCodes kCodes, int kLanes>
inline void squeeze(const Codes* c, int lane, uint8_t* block) {
  uint8_t* high = block + 4 * lane;
  uint8_t* low = high + high_bytes(kCodes);
  Long2 x[4], y[4];
  if constexpr (low_bits(kCodes) == 8) {
    for (int r = 0; r < 4; ++r) {
      x[r] = low_half(c[r]);
      y[r] = high_half(c[r]);
    }
    const Transposed first = transpose(x), second = transpose(y);
    for (int i = 0; i < 4; ++i) put<kLanes>(low + 64 * i, first.words[i]);
    for (int i = 0; i < 4; ++i) put<kLanes>(low + 256 + 64 * i, second.words[i]);
  } else {
    constexpr uint64_t kLow = ((1u << low_bits(kCodes)) - 1) * kEach;
    for (int r = 0; r < 4; ++r) x[r] = (low_half(c[r]) & kLow) | (high_half(c[r]) & kLow) << 4;
    const Transposed t = transpose(x);
    if constexpr (low_bits(kCodes) == 4) {
      for (int i = 0; i < 4; ++i) put<kLanes>(low + 64 * i, t.words[i]);
    } else {
      put<kLanes>(low, t.words[0] | t.words[2] << 2);
      put<kLanes>(low + 64, t.words[1] | t.words[3] << 2);
    }
  }
  constexpr int kShift = low_bits(kCodes);
  if constexpr (high_bits(kCodes) == 1) {
    for (int r = 0; r < 4; ++r) {
      const Codes bits = ((c[r] >> kShift) & kEach) << Codes{0, 2, 4, 6};
      x[r] = low_half(bits) | high_half(bits);
    }
    const Transposed t = transpose(x);  // even quads in words 0 and 2, odd ones in 1 and 3
    put<kLanes>(high, t.words[0] | t.words[2] | (t.words[1] | t.words[3]) << 1);
  }
  if constexpr (high_bits(kCodes) == 2) {
    for (int r = 0; r < 4; ++r) {
      const Codes bits = ((c[r] >> kShift) & (3 * kEach)) << Codes{0, 4, 0, 4};
      x[r] = low_half(bits);
      y[r] = high_half(bits);
    }
    const Transposed first = transpose(x), second = transpose(y);
    put<kLanes>(high, first.words[0] | first.words[2] | (first.words[1] | first.words[3]) << 2);
    put<kLanes>(high + 64, second.words[0] | second.words[2] | (second.words[1] | second.words[3]) << 2);
  }
}

// Blocks of kLanes rows, the first in lane `lane`.
template <IntCodes kCodes, int kLanes, class Source>
inline void pack_blocks(Source* sources, const PackJob& job, int lane) {
  const IntTile& t = job.ints;
  const int64_t first = job.first / kBlock, end = job.end / kBlock;
  const int scale = scale_bytes(t.scale), minimum = t.minimum == Minimum::zero_point ? 1 : scale;
  const int scales = block_scale_bytes(t.block_scales), bytes = block_bytes(kCodes, t.block_scales);
  int64_t in_group = first % t.group_blocks, group = first / t.group_blocks;
  uint8_t* p = job.tile + block_start(t, first) - (in_group == 0 ? header_bytes(t) : 0);
  for (int64_t b = first; b < end; ++b, p += bytes) {
    if (b % 8 == 0) {
      for (int r = 0; r < kLanes; ++r) sources[r].begin(b);
    }
    if (in_group == 0) {
      for (int r = 0; r < kLanes; ++r) {
        sources[r].header(b, group, p + (lane + r) * scale);
        sources[r].minimum(b, group, p + kTileRows * scale + (lane + r) * minimum);
      }
      p += header_bytes(t);
    }
    if (++in_group == t.group_blocks) {
      in_group = 0;
      ++group;
    }
    Codes codes[4] = {};
    for (int r = 0; r < kLanes; ++r) {
      sources[r].block_scales(b, p + lane + r);
      codes[r] = sources[r].codes(b);
    }
    squeeze<kCodes, kLanes>(codes, lane, p + scales);
  }
}

template <IntCodes kCodes, class Source, int kLanes>
void pack_stored_blocks(const PackJob& job, const PackRow* rows, int lane) {
  Source sources[kLanes];
  for (int r = 0; r < kLanes; ++r) sources[r].row = rows[r].codes;
  pack_blocks<kCodes, kLanes>(sources, job, lane);
}

template <IntCodes kCodes, int kBits, BlockScales kScales, int kLanes>
void pack_groups(const PackJob& job, const PackRow* rows, int lane) {
  GroupSource<kBits, kScales> sources[kLanes];
  for (int r = 0; r < kLanes; ++r) {
    sources[r].job = &job;
    sources[r].row = rows[r];
    sources[r].scale_width = scale_bytes(job.ints.scale);
    sources[r].first_group = job.first / kBlock / job.ints.group_blocks;
  }
  pack_blocks<kCodes, kLanes>(sources, job, lane);
}

// --- Float columns: elements, or pairs of them, change places; a unit of kUnit bytes of lane `lane` stands at
// kUnit * place in a run of 16 of them.

template <int kUnit>
inline void put_unit(uint8_t* run, int place, const uint8_t* from) {
  memcpy(run + kUnit * place, from, kUnit);
}

// kLanes rows, `count` units of each; the runs of 16 units follow one another.
template <int kUnit, int kLanes>
inline void put_units(const uint8_t* const* from, int64_t count, int place, uint8_t* run) {
  int64_t i = 0;
  if constexpr (kLanes == 4 && kUnit == 4) {
    for (; i + 4 <= count; i += 4, run += 4 * 64) {
      Long2 four[4];
      for (int r = 0; r < 4; ++r) four[r] = load_vector<Long2>(from[r] + 4 * i);
      const Transposed t = transpose(four);
      for (int j = 0; j < 4; ++j) store(run + 64 * j + 4 * place, t.words[j]);
    }
  }
  if constexpr (kLanes == 4 && kUnit == 2) {
    for (; i + 8 <= count; i += 8, run += 8 * 32) {
      const Half8 a = load_vector<Half8>(from[0] + 2 * i), b = load_vector<Half8>(from[1] + 2 * i);
      const Half8 c = load_vector<Half8>(from[2] + 2 * i), d = load_vector<Half8>(from[3] + 2 * i);
      const Half8 ab = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11), cd = __builtin_shufflevector(c, d, 0, 8, 1, 9, 2, 10, 3, 11);
      const Half8 ab2 = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15), cd2 = __builtin_shufflevector(c, d, 4, 12, 5, 13, 6, 14, 7, 15);
      const Half8 four[4] = {__builtin_shufflevector(ab, cd, 0, 1, 8, 9, 2, 3, 10, 11), __builtin_shufflevector(ab, cd, 4, 5, 12, 13, 6, 7, 14, 15),
                             __builtin_shufflevector(ab2, cd2, 0, 1, 8, 9, 2, 3, 10, 11), __builtin_shufflevector(ab2, cd2, 4, 5, 12, 13, 6, 7, 14, 15)};
      for (int j = 0; j < 8; ++j) memcpy(run + 32 * j + 2 * place, reinterpret_cast<const uint8_t*>(&four[j / 2]) + 8 * (j % 2), 8);
    }
  }
  for (; i < count; ++i, run += kUnit * kTileRows) {
    for (int r = 0; r < kLanes; ++r) put_unit<kUnit>(run, place + r, from[r] + kUnit * i);
  }
}

template <FloatCodes kCodes, int kLanes>
void pack_columns(const PackJob& job, const PackRow* rows, int lane) {
  constexpr int kWidth = code_bytes(kCodes);
  constexpr int kPer = element_of(kCodes, 0, 1) == 1 ? 2 : 1;  // columns in a unit
  const FloatTile& t = job.floats;
  const int place = element_of(kCodes, lane, 0) / kPer;
  const int64_t group = t.group_columns == 0 ? job.end : t.group_columns;
  const int scale = scale_bytes(t.scale);
  for (int64_t k = job.first; k < job.end;) {
    const int64_t next = (k / group + 1) * group, stop = next < job.end ? next : job.end;
    uint8_t* out = job.tile + column_start(t, k);
    if (t.group_columns != 0 && k % group == 0) {
      for (int r = 0; r < kLanes; ++r) {
        copy_scale(out - (kTileRows - lane - r) * scale, rows[r].scales + k / group * job.scale_step, scale);
      }
    }
    const int64_t units = (stop - k) / kPer;
    const uint8_t* from[kLanes];
    for (int r = 0; r < kLanes; ++r) from[r] = rows[r].codes + k * kWidth;
    put_units<kWidth * kPer, kLanes>(from, units, place, out);
    if ((stop - k) % kPer != 0) {  // an odd last column: half a unit
      uint8_t* last = out + units * kPer * kWidth * kTileRows;
      for (int r = 0; r < kLanes; ++r) memcpy(last + (place + r) * kPer * kWidth, from[r] + units * kPer * kWidth, kWidth);
    }
    k = stop;
  }
}

template <int kLanes>
void pack_float_rows(const PackJob& job, const PackRow* rows, int lane) {
  switch (job.floats.codes) {
    case FloatCodes::f32: return pack_columns<FloatCodes::f32, kLanes>(job, rows, lane);
    case FloatCodes::f16: return pack_columns<FloatCodes::f16, kLanes>(job, rows, lane);
    case FloatCodes::bf16: return pack_columns<FloatCodes::bf16, kLanes>(job, rows, lane);
    case FloatCodes::e4m3: return pack_columns<FloatCodes::e4m3, kLanes>(job, rows, lane);
  }
}

template <int kLanes>
void pack_bytes(const PackJob& job, const PackRow* rows, int lane) {
  constexpr BlockScales kNone = BlockScales::none;
  switch (job.ints.codes) {
    case IntCodes::u2: return pack_groups<IntCodes::u2, 0, kNone, kLanes>(job, rows, lane);
    case IntCodes::u3: return pack_groups<IntCodes::u3, 0, kNone, kLanes>(job, rows, lane);
    case IntCodes::u4: return pack_groups<IntCodes::u4, 0, kNone, kLanes>(job, rows, lane);
    case IntCodes::u5: return pack_groups<IntCodes::u5, 0, kNone, kLanes>(job, rows, lane);
    case IntCodes::u6: return pack_groups<IntCodes::u6, 0, kNone, kLanes>(job, rows, lane);
    default: return pack_groups<IntCodes::s8, 0, kNone, kLanes>(job, rows, lane);
  }
}

// A width between those of the tiles goes into the next wider codes.
template <int kLanes>
void pack_words(const PackJob& job, const PackRow* rows, int lane) {
  constexpr BlockScales kNone = BlockScales::none;
  if (job.ints.codes == IntCodes::e2m1) {
    if (job.ints.block_scales == kNone) return pack_groups<IntCodes::e2m1, 4, kNone, kLanes>(job, rows, lane);
    return pack_groups<IntCodes::e2m1, 4, BlockScales::e4m3_halves, kLanes>(job, rows, lane);
  }
  switch (job.bits) {
    case 1: return pack_groups<IntCodes::u2, 1, kNone, kLanes>(job, rows, lane);
    case 2: return pack_groups<IntCodes::u2, 2, kNone, kLanes>(job, rows, lane);
    case 3: return pack_groups<IntCodes::u3, 3, kNone, kLanes>(job, rows, lane);
    case 4: return pack_groups<IntCodes::u4, 4, kNone, kLanes>(job, rows, lane);
    case 5: return pack_groups<IntCodes::u5, 5, kNone, kLanes>(job, rows, lane);
    case 6: return pack_groups<IntCodes::u6, 6, kNone, kLanes>(job, rows, lane);
    case 7: return pack_groups<IntCodes::s8, 7, kNone, kLanes>(job, rows, lane);
    default: return pack_groups<IntCodes::s8, 8, kNone, kLanes>(job, rows, lane);
  }
}

template <int kLanes>
void pack_lanes(const PackJob& job, const PackRow* rows, int lane) {
  switch (job.source) {
    case PackSource::columns: return pack_float_rows<kLanes>(job, rows, lane);
    case PackSource::q4_0:  // and IQ4_NL, whose codes mean something else
      if (job.ints.codes == IntCodes::iq4) return pack_stored_blocks<IntCodes::iq4, NibbleSource<false, false>, kLanes>(job, rows, lane);
      return pack_stored_blocks<IntCodes::u4, NibbleSource<false, false>, kLanes>(job, rows, lane);
    case PackSource::q4_1: return pack_stored_blocks<IntCodes::u4, NibbleSource<true, false>, kLanes>(job, rows, lane);
    case PackSource::q5_0: return pack_stored_blocks<IntCodes::u5, NibbleSource<false, true>, kLanes>(job, rows, lane);
    case PackSource::q5_1: return pack_stored_blocks<IntCodes::u5, NibbleSource<true, true>, kLanes>(job, rows, lane);
    case PackSource::q8_0: return pack_stored_blocks<IntCodes::s8, Q8_0Source, kLanes>(job, rows, lane);
    case PackSource::q2_k: return pack_stored_blocks<IntCodes::u2, Q2KSource, kLanes>(job, rows, lane);
    case PackSource::q3_k: return pack_stored_blocks<IntCodes::u3, Q3KSource, kLanes>(job, rows, lane);
    case PackSource::q4_k: return pack_stored_blocks<IntCodes::u4, Q45KSource<false>, kLanes>(job, rows, lane);
    case PackSource::q5_k: return pack_stored_blocks<IntCodes::u5, Q45KSource<true>, kLanes>(job, rows, lane);
    case PackSource::q6_k: return pack_stored_blocks<IntCodes::u6, Q6KSource, kLanes>(job, rows, lane);
    case PackSource::iq4_xs: return pack_stored_blocks<IntCodes::iq4, Iq4XsSource, kLanes>(job, rows, lane);
    case PackSource::mxfp4: return pack_stored_blocks<IntCodes::e2m1, Mxfp4Source, kLanes>(job, rows, lane);
    case PackSource::nvfp4: return pack_stored_blocks<IntCodes::e2m1, Nvfp4Source, kLanes>(job, rows, lane);
    case PackSource::words: return pack_words<kLanes>(job, rows, lane);
    case PackSource::bytes: return pack_bytes<kLanes>(job, rows, lane);
  }
}

inline void pack(const PackJob& job, const PackRow* rows, int lane, int count) {
  if (count == 4) pack_lanes<4>(job, rows, lane);
  else pack_lanes<1>(job, rows, lane);
}
