#include "backend/cpu/kv_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/float_types.h"

namespace bise {
namespace {

constexpr float kInt8Largest = 127.0f, kE4m3Largest = 448.0f, kFactorLargest = 127.0f;
constexpr float kSmallest = 0x1p-100f;  // a token below it is zero: its scale would be subnormal
constexpr uint16_t kNanScale = 0x7FC0;

// Where element d of a token is.
struct Places {
  KernelKv type;
  bool is_key;
  int32_t token;
  int64_t tile_elements;

  Places(KernelKv t, bool key, int32_t head_dim, int32_t at)
      : type(t), is_key(key), token(at),
        tile_elements(int64_t{kKvLanes} * (key ? kv_padded(head_dim) : kKvTokens)) {}
  int64_t operator()(int32_t d) const {
    const int32_t tile = is_key ? token / kKvLanes : d / kKvLanes;
    return tile * tile_elements +
           (is_key ? kv_element(type, d, token % kKvLanes) : kv_element(type, token, d % kKvLanes));
  }
};

void set_nibble(uint8_t* head, int64_t at, int32_t value) {
  uint8_t& byte = head[at / 2];
  byte = static_cast<uint8_t>(at % 2 == 0 ? (byte & 0xF0) | value : (byte & 0x0F) | value << 4);
}

float largest_of(std::span<const float> x) {
  float largest = 0.0f;
  for (float value : x) {
    if (!std::isfinite(value)) return value;
    largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

// The scale of a token whose largest magnitude is `largest`, as the cache keeps it.
uint16_t scale_of(float largest, float largest_code) {
  if (!std::isfinite(largest)) return kNanScale;
  return largest < kSmallest ? uint16_t{0} : f32_to_bf16(largest / largest_code);
}

int32_t rounded(float x, int32_t low, int32_t high) {
  return std::clamp(static_cast<int32_t>(std::lrint(x)), low, high);
}

void store_int4(bool is_key, std::span<const float> given, int32_t token, uint8_t* head) {
  const int32_t head_dim = static_cast<int32_t>(given.size()), groups = kv_groups(head_dim);
  std::vector<float> x(given.begin(), given.end());
  rotate_head(x);
  // The element of largest magnitude of each group, with its sign: it becomes the code -8.
  std::vector<float> tops(static_cast<size_t>(groups), 0.0f);
  float largest = 0.0f;
  for (int32_t d = 0; d < head_dim; ++d) {
    const float value = x[static_cast<size_t>(d)];
    float& top = tops[static_cast<size_t>(d / kKvGroup)];
    if (!std::isfinite(value)) largest = value;
    if (std::fabs(value) > std::fabs(top)) top = value;
  }
  for (float top : tops) {
    if (std::isfinite(largest)) largest = std::max(largest, std::fabs(top));
  }
  const uint16_t scale_bits = scale_of(largest, 8.0f * kFactorLargest);
  const float scale = bf16_to_f32(scale_bits);
  std::memcpy(head + kv_scales_at(KernelKv::int4, head_dim) + 2 * token, &scale_bits, 2);
  const Places place(KernelKv::int4, is_key, head_dim, token);
  uint8_t* factors = head + kv_factors_at(KernelKv::int4, head_dim);
  for (int32_t g = 0; g < groups; ++g) {
    const int32_t factor = scale > 0.0f ? rounded(tops[static_cast<size_t>(g)] / -8.0f / scale, -127, 127) : 0;
    factors[g * kKvTokens + token] = static_cast<uint8_t>(factor);
    const float step = scale * static_cast<float>(factor);
    const int32_t end = std::min((g + 1) * kKvGroup, kv_padded(head_dim));
    for (int32_t d = g * kKvGroup; d < end; ++d) {
      const bool is_zero = d >= head_dim || factor == 0;
      set_nibble(head, place(d), 8 + (is_zero ? 0 : rounded(x[static_cast<size_t>(d)] / step, -8, 7)));
    }
  }
}

// Of the types that are stored most, places in a tile go in even strides: two steps of a key from its first
// pair to the next, lanes of a value from one to the next.
constexpr bool has_even_strides(KernelKv type) {
  const int64_t odd = kv_element(type, 1, 0), lane = kv_element(type, 0, 1);
  for (int32_t k = 0; k < 64; ++k) {
    for (int32_t r = 0; r < kKvLanes; ++r) {
      if (kv_element(type, k, r) != 16 * (k - k % 2) + odd * (k % 2) + lane * r) return false;
    }
  }
  return true;
}
static_assert(has_even_strides(KernelKv::bf16) && has_even_strides(KernelKv::f16) && has_even_strides(KernelKv::f32) &&
              has_even_strides(KernelKv::int8));

// code(value) for every element, and for the zeros behind them.
template <class Code, class Convert>
void store_codes(const Places& place, std::span<const float> x, uint8_t* head, Convert code) {
  const int32_t head_dim = static_cast<int32_t>(x.size());
  auto store = [&](int64_t at, int32_t d) {
    const Code value = d < head_dim ? static_cast<Code>(code(x[static_cast<size_t>(d)])) : Code{};
    std::memcpy(head + at * static_cast<int64_t>(sizeof(Code)), &value, sizeof(Code));
  };
  const int32_t padded = kv_padded(head_dim);
  if (place.type == KernelKv::fp8) {  // its lanes are exchanged
    for (int32_t d = 0; d < padded; ++d) store(place(d), d);
  } else if (place.is_key) {
    const int64_t odd = kv_element(place.type, 1, 0);
    int64_t at = place(0);
    for (int32_t d = 0; d < padded; d += 2, at += 32) {
      store(at, d);
      store(at + odd, d + 1);
    }
  } else {
    const int64_t lane = kv_element(place.type, 0, 1);
    for (int32_t first = 0; first < padded; first += kKvLanes) {
      int64_t at = place(first);
      for (int32_t r = 0; r < kKvLanes; ++r, at += lane) store(at, first + r);
    }
  }
}

}  // namespace

void rotate_head(std::span<float> x) {
  const size_t block = x.size() & (~x.size() + 1);  // the lowest bit that is set
  const float factor = 1.0f / std::sqrt(static_cast<float>(block));
  for (size_t half = 1; half < block; half *= 2) {
    for (size_t i = 0; i < x.size(); i += 2 * half) {
      for (size_t j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  for (float& value : x) value *= factor;
}

int32_t kv_largest_code(KernelKv type) {
  CHECK(kv_is_integer(type));
  return type == KernelKv::int8 ? 127 : 8 * 127;
}

void store_kv_head(KernelKv type, bool is_key, std::span<const float> x, int32_t token, uint8_t* head) {
  const int32_t head_dim = static_cast<int32_t>(x.size());
  const Places place(type, is_key, head_dim, token);
  switch (type) {
    case KernelKv::f32: store_codes<float>(place, x, head, [](float v) { return v; }); return;
    case KernelKv::f16: store_codes<uint16_t>(place, x, head, [](float v) { return f32_to_f16(v); }); return;
    case KernelKv::bf16: store_codes<uint16_t>(place, x, head, [](float v) { return f32_to_bf16(v); }); return;
    case KernelKv::int4: store_int4(is_key, x, token, head); return;
    case KernelKv::fp8:
    case KernelKv::int8: break;
  }
  const bool is_int8 = type == KernelKv::int8;
  const uint16_t bits = scale_of(largest_of(x), is_int8 ? kInt8Largest : kE4m3Largest);
  const float scale = bf16_to_f32(bits);
  std::memcpy(head + kv_scales_at(type, head_dim) + 2 * token, &bits, 2);
  if (!(scale > 0.0f)) {  // all zero, or not finite: the scale says which
    store_codes<uint8_t>(place, x, head, [](float) { return 0; });
  } else if (is_int8) {
    store_codes<uint8_t>(place, x, head, [&](float v) { return static_cast<uint8_t>(rounded(v / scale, -127, 127)); });
  } else {
    store_codes<uint8_t>(place, x, head, [&](float v) { return f32_to_e4m3(v / scale); });
  }
}

}  // namespace bise
