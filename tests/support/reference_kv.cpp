#include "support/reference_kv.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/kv_codes.h"
#include "base/float_types.h"

namespace bise::test {
namespace {

// Bytes of one code; int4 is told apart.
size_t code_bytes(KvDType type) { return type == KvDType::f32 ? 4 : type == KvDType::fp8 || type == KvDType::int8 ? 1 : 2; }

struct Head {
  KvDType type;
  bool is_key;
  size_t padded, groups;
  Head(KvDType t, bool key, size_t head_dim) : type(t), is_key(key), padded((head_dim + 15) / 16 * 16), groups((head_dim + 31) / 32) {}

  // The index of an element among all codes of the head: tiles of 16 lanes, steps in an order of their own.
  size_t index(size_t token, size_t d) const {
    const size_t steps = is_key ? padded : 32, step = is_key ? d : token, row = is_key ? token : d;
    size_t lane = row % 16;
    const size_t tile = row / 16 * steps * 16;
    if (type == KvDType::f32 || type == KvDType::f16) return tile + step * 16 + lane;
    if (type == KvDType::fp8) {
      constexpr size_t kAt[16] = {0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15};
      lane = kAt[lane];
    }
    return tile + step / 2 * 32 + lane * 2 + step % 2;
  }
  size_t codes_end() const { return type == KvDType::int4 ? 16 * padded : 32 * padded * code_bytes(type); }
  size_t scale_at(size_t token) const { return codes_end() + 2 * token; }
  size_t factor_at(size_t token, size_t group) const { return codes_end() + 64 + 32 * group + token; }
  // int4: index() counts pairs of steps; even pairs are low nibbles, odd ones the high nibbles beside.
  size_t nibble_byte(size_t index) const { return index / 64 * 32 + index % 32; }
  bool is_high(size_t index) const { return index / 32 % 2 == 1; }
};

uint16_t rounded_scale(double largest, double codes) {
  if (!std::isfinite(largest)) return 0x7FC0;
  return largest < 0x1p-100 ? uint16_t{0} : f32_to_bf16(static_cast<float>(largest) / static_cast<float>(codes));
}

void store_int4(const Head& h, std::span<const float> given, size_t token, uint8_t* head) {
  std::vector<float> x(given.begin(), given.end());
  rotate_head(x);  // its sums are held to the Hadamard matrix elsewhere
  double largest = 0.0;
  for (float v : x) largest = std::isfinite(v) && std::isfinite(largest) ? std::max(largest, std::fabs(double{v})) : NAN;
  const uint16_t bits = rounded_scale(largest, 8 * 127);
  std::memcpy(head + h.scale_at(token), &bits, 2);
  const float scale = bf16_to_f32(bits);
  for (size_t d = 0; d < h.padded; ++d) {
    const size_t group = d / 32;
    float top = 0.0f;
    for (size_t i = 32 * group; i < std::min(x.size(), 32 * group + 32); ++i) {
      if (std::fabs(x[i]) > std::fabs(top)) top = x[i];
    }
    const float factor = scale > 0.0f ? std::clamp(std::rint(top / -8.0f / scale), -127.0f, 127.0f) : 0.0f;
    if (d % 32 == 0 && group < h.groups) head[h.factor_at(token, group)] = static_cast<uint8_t>(static_cast<int8_t>(factor));
    const float code = d >= x.size() || factor == 0.0f ? 0.0f : std::clamp(std::rint(x[d] / (scale * factor)), -8.0f, 7.0f);
    const size_t at = h.index(token, d);
    uint8_t& byte = head[h.nibble_byte(at)];
    const uint32_t nibble = static_cast<uint32_t>(static_cast<int>(code) + 8);
    byte = static_cast<uint8_t>(h.is_high(at) ? (byte & 15u) | nibble << 4 : (byte & 240u) | nibble);
  }
}

}  // namespace

void reference_store_kv(KvDType type, bool is_key, std::span<const float> x, int32_t token_in_block, uint8_t* head) {
  const Head h(type, is_key, x.size());
  const size_t token = static_cast<size_t>(token_in_block);
  if (type == KvDType::int4) return store_int4(h, x, token, head);
  float scale = 1.0f;
  if (type == KvDType::fp8 || type == KvDType::int8) {
    double largest = 0.0;
    for (float v : x) largest = std::isfinite(v) && std::isfinite(largest) ? std::max(largest, std::fabs(double{v})) : NAN;
    const uint16_t bits = rounded_scale(largest, type == KvDType::fp8 ? 448 : 127);
    std::memcpy(head + h.scale_at(token), &bits, 2);
    scale = bf16_to_f32(bits);
  }
  for (size_t d = 0; d < h.padded; ++d) {
    const float value = d < x.size() ? x[d] : 0.0f, ratio = scale > 0.0f ? value / scale : 0.0f;
    uint32_t code = 0;
    switch (type) {
      case KvDType::bf16: code = f32_to_bf16(value); break;
      case KvDType::f16: code = f32_to_f16(value); break;
      case KvDType::f32: code = std::bit_cast<uint32_t>(value); break;
      case KvDType::fp8: code = f32_to_e4m3(ratio); break;
      case KvDType::int8:
      case KvDType::int4: code = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(std::rint(ratio), -127.0f, 127.0f))); break;
    }
    std::memcpy(head + h.index(token, d) * code_bytes(type), &code, code_bytes(type));
  }
}

std::vector<double> reference_load_kv(KvDType type, bool is_key, int32_t head_dim, int32_t token_in_block, const uint8_t* head) {
  const size_t n = static_cast<size_t>(head_dim), token = static_cast<size_t>(token_in_block);
  const Head h(type, is_key, n);
  double scale = 1.0;
  if (type != KvDType::f32 && type != KvDType::f16 && type != KvDType::bf16) {
    uint16_t bits;
    std::memcpy(&bits, head + h.scale_at(token), 2);
    scale = bf16_to_f32(bits);
  }
  std::vector<double> values(n);
  for (size_t d = 0; d < n; ++d) {
    const size_t at = h.index(token, d);
    uint32_t code = 0;
    if (type != KvDType::int4) std::memcpy(&code, head + at * code_bytes(type), code_bytes(type));
    switch (type) {
      case KvDType::bf16: values[d] = bf16_to_f32(static_cast<uint16_t>(code)); break;
      case KvDType::f16: values[d] = f16_to_f32(static_cast<uint16_t>(code)); break;
      case KvDType::f32: values[d] = std::bit_cast<float>(code); break;
      case KvDType::fp8: values[d] = scale * e4m3_to_f32(static_cast<uint8_t>(code)); break;
      case KvDType::int8: values[d] = scale * static_cast<int8_t>(code); break;
      case KvDType::int4: {
        const uint8_t byte = head[h.nibble_byte(at)];
        const int nibble = h.is_high(at) ? byte >> 4 : byte & 15;
        values[d] = scale * static_cast<int8_t>(head[h.factor_at(token, d / 32)]) * (nibble - 8);
      }
    }
  }
  if (type != KvDType::int4) return values;
  // Rotated back: H[i][j] = (-1)^(bits that i and j share) / sqrt(block).
  const size_t block = n & (~n + 1);
  std::vector<double> back(n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < block; ++j) {
      const double sign = std::popcount((i % block) & j) % 2 == 0 ? 1.0 : -1.0;
      back[i] += sign * values[i / block * block + j] / std::sqrt(static_cast<double>(block));
    }
  }
  return back;
}

}  // namespace bise::test
