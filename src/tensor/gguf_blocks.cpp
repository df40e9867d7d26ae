// GGUF's simple blocks of 32. In all of them byte j of the nibbles holds element j (low) and
// element j + 16 (high). Sums and products are float32, in ggml's order.
#include "tensor/block_decode.h"

namespace bise {
namespace {

// E2M1 doubled, so that it is an integer; the scale below is halved in turn.
constexpr int8_t kFp4Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Bit 4 of element j is bit j of qh.
int five_bits(const uint8_t* codes, uint32_t high, int j) {
  int nibble = j < 16 ? codes[j] & 15 : codes[j - 16] >> 4;
  return nibble | static_cast<int>((high >> j) & 1u) << 4;
}

}  // namespace

void decode_q4_0(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q4_0, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p);
    for (int j = 0; j < 16; ++j) {
      y[j] = static_cast<float>((p[2 + j] & 15) - 8) * d;
      y[j + 16] = static_cast<float>((p[2 + j] >> 4) - 8) * d;
    }
  });
}

void decode_q4_1(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q4_1, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p), m = f16_at(p + 2);
    for (int j = 0; j < 16; ++j) {
      y[j] = static_cast<float>(p[4 + j] & 15) * d + m;
      y[j + 16] = static_cast<float>(p[4 + j] >> 4) * d + m;
    }
  });
}

void decode_q5_0(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q5_0, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p);
    uint32_t high = load_le<uint32_t>(p + 2);
    for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(five_bits(p + 6, high, j) - 16) * d;
  });
}

void decode_q5_1(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q5_1, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p), m = f16_at(p + 2);
    uint32_t high = load_le<uint32_t>(p + 4);
    for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(five_bits(p + 8, high, j)) * d + m;
  });
}

void decode_q8_0(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q8_0, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p);
    for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(static_cast<int8_t>(p[2 + j])) * d;
  });
}

void decode_iq4_nl(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::iq4_nl, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p);
    for (int j = 0; j < 16; ++j) {
      y[j] = d * static_cast<float>(kIq4[p[2 + j] & 15]);
      y[j + 16] = d * static_cast<float>(kIq4[p[2 + j] >> 4]);
    }
  });
}

void decode_mxfp4_gguf(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::mxfp4_gguf, row, first, out, [](const uint8_t* p, float* y) {
    // 2^(e - 128): half of E8M0, exact also among the subnormals.
    uint32_t e = p[0];
    float d = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    for (int j = 0; j < 16; ++j) {
      y[j] = static_cast<float>(kFp4Doubled[p[1 + j] & 15]) * d;
      y[j + 16] = static_cast<float>(kFp4Doubled[p[1 + j] >> 4]) * d;
    }
  });
}

}  // namespace bise
