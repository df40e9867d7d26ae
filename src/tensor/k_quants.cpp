// GGUF's super-blocks of 256 elements. Layouts are drawn in docs/FORMATS.md; products and
// differences are float32, in ggml's order.
#include "tensor/block_decode.h"

namespace bise {
namespace {

// 6-bit scale and minimum of sub-block j (0..7) from the 12 bytes of Q4_K and Q5_K.
void scale_and_min(const uint8_t* q, int j, int* scale, int* min) {
  if (j < 4) {
    *scale = q[j] & 63;
    *min = q[j + 4] & 63;
  } else {
    *scale = (q[j + 4] & 15) | (q[j - 4] >> 6) << 4;
    *min = (q[j + 4] >> 4) | (q[j] >> 6) << 4;
  }
}

// 2-bit code of element e in the layout that Q2_K and Q3_K share.
int two_bits(const uint8_t* qs, int e) {
  int half = e / 128, k = e % 128 / 32, l = e % 32;
  return (qs[32 * half + l] >> (2 * k)) & 3;
}

}  // namespace

void decode_q2_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q2_k, row, first, out, [](const uint8_t* p, float* y) {
    const uint8_t *scales = p, *qs = p + 16;
    float d = f16_at(p + 80), dmin = f16_at(p + 82);
    for (int e = 0; e < 256; ++e) {
      int sc = scales[e / 16];
      float dl = d * static_cast<float>(sc & 15), ml = dmin * static_cast<float>(sc >> 4);
      y[e] = dl * static_cast<float>(two_bits(qs, e)) - ml;
    }
  });
}

void decode_q3_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q3_k, row, first, out, [](const uint8_t* p, float* y) {
    const uint8_t *hmask = p, *qs = p + 32, *scales = p + 96;
    float d = f16_at(p + 108);
    for (int e = 0; e < 256; ++e) {
      int j = e / 16;
      int low = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4;
      int high = (scales[8 + j % 4] >> (2 * (j / 4))) & 3;
      float dl = d * static_cast<float>((low | high << 4) - 32);
      int h = (hmask[e % 32] >> (e / 32)) & 1;
      y[e] = dl * static_cast<float>(two_bits(qs, e) + 4 * h - 4);
    }
  });
}

void decode_q4_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q4_k, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p), dmin = f16_at(p + 2);
    const uint8_t* qs = p + 16;
    for (int j = 0; j < 8; ++j) {
      int sc = 0, m = 0;
      scale_and_min(p + 4, j, &sc, &m);
      float dl = d * static_cast<float>(sc), ml = dmin * static_cast<float>(m);
      for (int l = 0; l < 32; ++l) {
        int byte = qs[32 * (j / 2) + l];
        int n = j % 2 == 0 ? byte & 15 : byte >> 4;
        y[32 * j + l] = dl * static_cast<float>(n) - ml;
      }
    }
  });
}

void decode_q5_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q5_k, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p), dmin = f16_at(p + 2);
    const uint8_t *qh = p + 16, *qs = p + 48;
    for (int j = 0; j < 8; ++j) {
      int sc = 0, m = 0;
      scale_and_min(p + 4, j, &sc, &m);
      float dl = d * static_cast<float>(sc), ml = dmin * static_cast<float>(m);
      for (int l = 0; l < 32; ++l) {
        int byte = qs[32 * (j / 2) + l];
        int n = (j % 2 == 0 ? byte & 15 : byte >> 4) | ((qh[l] >> j) & 1) << 4;
        y[32 * j + l] = dl * static_cast<float>(n) - ml;
      }
    }
  });
}

void decode_q6_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::q6_k, row, first, out, [](const uint8_t* p, float* y) {
    const uint8_t *ql = p, *qh = p + 128, *scales = p + 192;
    float d = f16_at(p + 208);
    for (int e = 0; e < 256; ++e) {
      int half = e / 128, part = e % 128 / 32, l = e % 32;
      int byte = ql[64 * half + 32 * (part % 2) + l];
      int low = part < 2 ? byte & 15 : byte >> 4;
      int high = (qh[32 * half + l] >> (2 * part)) & 3;
      float dl = d * static_cast<float>(static_cast<int8_t>(scales[e / 16]));
      y[e] = dl * static_cast<float>((low | high << 4) - 32);
    }
  });
}

void decode_iq4_xs(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  each_block(w, FormatId::iq4_xs, row, first, out, [](const uint8_t* p, float* y) {
    float d = f16_at(p);
    uint32_t scales_high = load_le<uint16_t>(p + 2);
    for (int j = 0; j < 8; ++j) {
      int low = (p[4 + j / 2] >> (4 * (j % 2))) & 15;
      int high = static_cast<int>(scales_high >> (2 * j)) & 3;
      float dl = d * static_cast<float>((low | high << 4) - 32);
      for (int l = 0; l < 16; ++l) {
        int byte = p[8 + 16 * j + l];
        y[32 * j + l] = dl * static_cast<float>(kIq4[byte & 15]);
        y[32 * j + 16 + l] = dl * static_cast<float>(kIq4[byte >> 4]);
      }
    }
  });
}

}  // namespace bise
