#include "tensor/random_weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "base/float_types.h"
#include "base/random.h"

namespace bise {
namespace {

constexpr double kE2m1Deviation = 2.926;  // of E2M1 codes, all equally often
constexpr double kFp8Range = 4.5;  // deviations that reach the largest code, 448
constexpr int kQuantiles = 1 << 16;

// quantile[i]: the standard normal value below which (i + 1/2) / 65536 of all values lie. Newton's steps
// from the neighbour's value.
std::vector<float> make_quantiles() {
  std::vector<float> quantiles(kQuantiles);
  double x = 0.0;
  for (int i = kQuantiles / 2; i < kQuantiles; ++i) {
    const double target = (i + 0.5) / kQuantiles;
    for (int step = 0; step < 4; ++step) {
      const double below = 0.5 * std::erfc(-x / std::sqrt(2.0));
      const double density = std::exp(-x * x / 2) / std::sqrt(2.0 * M_PI);
      x += (target - below) / density;
    }
    quantiles[static_cast<size_t>(i)] = static_cast<float>(x);
    quantiles[static_cast<size_t>(kQuantiles - 1 - i)] = static_cast<float>(-x);
  }
  return quantiles;
}
const std::vector<float>& quantiles() {
  static const std::vector<float> table = make_quantiles();
  return table;
}

// Draws 4 elements from each 64 random bits; `encode` makes an element of a normal value.
template <class T, class Encode>
void fill_plain(uint64_t seed, uint64_t stream, uint64_t first, std::span<std::byte> out, Encode encode) {
  // One encoded value per quantile: cheaper than encoding, as soon as there is a row.
  const std::vector<float>& normal = quantiles();
  std::vector<T> table(kQuantiles);
  for (size_t i = 0; i < table.size(); ++i) table[i] = encode(normal[i]);
  const uint64_t end = first + out.size() / sizeof(T);
  for (uint64_t n = first; n < end;) {
    uint64_t bits = random_bits(seed, stream, n / 4) >> (16 * (n % 4));
    do {
      std::memcpy(&out[(n - first) * sizeof(T)], &table[bits & 0xFFFF], sizeof(T));
      bits >>= 16;
      ++n;
    } while (n % 4 != 0 && n < end);
  }
}

// Where the scales of a block of random codes lie, and what the codes do to them.
struct BlockScales {
  FormatId format;
  int scale;         // byte of the float16 d
  int minimum;       // byte of the float16 m (values d q + m, or d s q - m t), or -1
  double centre;     // m / d that brings the mean to 0
  double deviation;  // of the values at d = 1
};
constexpr BlockScales kBlockScales[] = {
    {FormatId::q4_0, 0, -1, 0, 4.637},      {FormatId::q4_1, 0, 2, -7.5, 4.610},
    {FormatId::q5_0, 0, -1, 0, 9.247},      {FormatId::q5_1, 0, 2, -15.5, 9.233},
    {FormatId::q8_0, 0, -1, 0, 73.90},      {FormatId::q2_k, 80, 82, 1.5, 13.88},
    {FormatId::q3_k, 108, -1, 0, 43.34},    {FormatId::q4_k, 0, 2, 7.5, 258.3},
    {FormatId::q5_k, 0, 2, 15.5, 526.9},    {FormatId::q6_k, 208, -1, 0, 1365.7},
    {FormatId::iq4_nl, 0, -1, 0, 67.44},    {FormatId::iq4_xs, 0, -1, 0, 1246.3},
};

const BlockScales* scales_of(FormatId format) {
  const auto* found = std::find_if(std::begin(kBlockScales), std::end(kBlockScales),
                                   [&](const BlockScales& b) { return b.format == format; });
  return found == std::end(kBlockScales) ? nullptr : found;
}

// One of two neighbouring codes, the upper one so often that the mean square is `target` squared.
struct ScaleCode {
  uint8_t low = 0;
  double up = 0;  // share of low + 1
  std::byte draw(double uniform) const { return static_cast<std::byte>(low + (uniform < up ? 1 : 0)); }
};
template <class Value>
ScaleCode scale_between(double target, uint8_t first, uint8_t last, Value value) {
  uint8_t low = first;
  while (low < last && value(static_cast<uint8_t>(low + 1)) <= target) ++low;
  const double a = value(low), b = value(static_cast<uint8_t>(low + 1));
  return {low, std::clamp((target * target - a * a) / (b * b - a * a), 0.0, 1.0)};
}

ScaleCode e8m0_scale(double target) {
  return scale_between(target, 1, 253, [](uint8_t code) { return e8m0_to_f32(code); });
}

// 0.75 to 1.25, so that scales differ from block to block, brought to the mean square 1.
double spread_of(uint64_t bits) {
  return (0.75 + 0.5 * static_cast<double>(bits >> 11) * 0x1p-53) / std::sqrt(1.0208333);
}

void put_f16(std::byte* at, double value) {
  const uint16_t bits = f32_to_f16(static_cast<float>(value));
  std::memcpy(at, &bits, sizeof bits);
}

void set_scales(const BlockScales& b, double d, std::byte* block) {
  put_f16(block + b.scale, d);
  if (b.minimum >= 0) put_f16(block + b.minimum, d * b.centre);
}

void fill_blocks(const WeightFormat& format, double deviation, uint64_t seed, uint64_t stream,
                 uint64_t first, std::span<std::byte> out) {
  const size_t block_bytes = static_cast<size_t>(format.block_bytes), words = (block_bytes + 7) / 8;
  const BlockScales* scales = scales_of(format.id);
  const bool mxfp4 = format.id == FormatId::mxfp4_gguf, nvfp4 = format.id == FormatId::nvfp4_gguf;
  CHECK(mxfp4 || nvfp4 || scales != nullptr);  // has_random_weight
  // MXFP4 has one scale in front of its codes, NVFP4 four.
  const ScaleCode e8m0 = e8m0_scale(deviation / kE2m1Deviation);
  const ScaleCode e4m3 = scale_between(deviation / kE2m1Deviation, 0, 125, [](uint8_t code) { return e4m3_to_f32(code); });
  for (size_t at = 0, n = 0; at < out.size(); at += block_bytes, ++n) {
    std::byte* block = &out[at];
    const uint64_t counter = (first + n) * (words + 1);
    for (size_t w = 0; w < words; ++w) {
      const uint64_t bits = random_bits(seed, stream, counter + w);
      std::memcpy(block + 8 * w, &bits, std::min<size_t>(8, block_bytes - 8 * w));
    }
    const uint64_t bits = random_bits(seed, stream, counter + words);
    if (mxfp4 || nvfp4) {
      for (int i = 0; i < (nvfp4 ? 4 : 1); ++i) {
        block[i] = (nvfp4 ? e4m3 : e8m0).draw(static_cast<double>((bits >> (16 * i)) & 0xFFFF) * 0x1p-16);
      }
      continue;
    }
    // Both signs: that centres codes that are not symmetrical.
    const double d = deviation / scales->deviation * spread_of(bits);
    set_scales(*scales, (bits & 1) != 0 ? d : -d, block);
    if (format.id == FormatId::q8_0) {  // quantizers never write -128
      std::replace(block + 2, block + block_bytes, std::byte{0x80}, std::byte{0x7F});
    }
  }
}

}  // namespace

float random_fp8_scale(double deviation) {
  return static_cast<float>(deviation * kFp8Range / 448.0);
}

bool has_random_weight(FormatId id) {
  switch (id) {
    case FormatId::f32:
    case FormatId::f16:
    case FormatId::bf16:
    case FormatId::fp8_e4m3:
    case FormatId::mxfp4_gguf:
    case FormatId::nvfp4_gguf: return true;
    default: return scales_of(id) != nullptr;
  }
}

void fill_random_weight(FormatId id, double deviation, uint64_t seed, uint64_t stream,
                        uint64_t first_block, std::span<std::byte> out) {
  const WeightFormat& format = weight_format(id);
  CHECK(out.size() % static_cast<size_t>(format.block_bytes) == 0);
  const float scale = static_cast<float>(deviation);
  switch (id) {
    case FormatId::f32:
      return fill_plain<float>(seed, stream, first_block, out, [&](float x) { return x * scale; });
    case FormatId::f16:
      return fill_plain<uint16_t>(seed, stream, first_block, out, [&](float x) { return f32_to_f16(x * scale); });
    case FormatId::bf16:
      return fill_plain<uint16_t>(seed, stream, first_block, out, [&](float x) { return f32_to_bf16(x * scale); });
    case FormatId::fp8_e4m3:
      return fill_plain<uint8_t>(seed, stream, first_block, out, [](float x) {
        return f32_to_e4m3(x * static_cast<float>(448.0 / kFp8Range));
      });
    default: return fill_blocks(format, deviation, seed, stream, first_block, out);
  }
}

void fill_random_codes(uint64_t seed, uint64_t stream, uint64_t first_byte, std::span<std::byte> out) {
  CHECK(first_byte % 8 == 0);
  for (size_t at = 0; at < out.size(); at += 8) {
    const uint64_t bits = random_bits(seed, stream, (first_byte + at) / 8);
    std::memcpy(&out[at], &bits, std::min<size_t>(8, out.size() - at));
  }
}

void fill_random_scales(DType type, double size, double factor, uint64_t seed, uint64_t stream,
                        uint64_t first, std::span<std::byte> out) {
  const bool e8m0 = type == DType::f8_e8m0 || type == DType::u8;
  CHECK(!e8m0 || factor == 1.0);
  const ScaleCode powers = e8m0 ? e8m0_scale(size) : ScaleCode{};
  const size_t width = dtype_bytes(type);
  for (size_t at = 0; at < out.size(); at += width) {
    const uint64_t bits = random_bits(seed, stream, first + at / width);
    const float x = static_cast<float>(size * spread_of(bits) * factor * ((bits & 1) != 0 ? 1 : -1));
    switch (type) {
      case DType::f32: std::memcpy(&out[at], &x, sizeof x); break;
      case DType::f16: put_f16(&out[at], x); break;
      case DType::bf16: {
        const uint16_t b = f32_to_bf16(x);
        std::memcpy(&out[at], &b, sizeof b);
        break;
      }
      case DType::f8_e4m3: out[at] = static_cast<std::byte>(f32_to_e4m3(std::fabs(x))); break;
      case DType::f8_e8m0:
      case DType::u8: out[at] = powers.draw(static_cast<double>(bits >> 11) * 0x1p-53); break;
      default: CHECK(false);
    }
  }
}

}  // namespace bise
