// What attention reads: keys and values in the cache, bit for bit as kv_codes.cpp writes them, and queries.
#include <cmath>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"
#include "base/float_types.h"

namespace bise::gpu {
namespace {

// x[0, count) in shared memory, rotated as rotate_head() does; the threads of one warp.
BISE_DEVICE void rotate_shared(float* x, int count) {
  const int block = count & -count;
  const float factor = 1.0f / sqrtf(static_cast<float>(block));
  for (int half = 1; half < block; half *= 2) {
    sync_block();
    for (int pair = thread_index(); pair < count / 2; pair += num_threads()) {
      const int i = pair / half * 2 * half + pair % half;
      const float a = x[i], b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
  }
  sync_block();
  for (int i = thread_index(); i < count; i += num_threads()) x[i] *= factor;
  sync_block();
}

BISE_DEVICE float largest_of_warp(float value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}
BISE_DEVICE int rounded(float x, float low, float high) { return static_cast<int>(fminf(fmaxf(rintf(x), low), high)); }

constexpr float kSmallest = 0x1p-100f;
constexpr uint16_t kNanScale = 0x7FC0;

BISE_DEVICE int64_t place_of(KernelKv type, bool is_key, int32_t head_dim, int32_t token, int32_t d) {
  const int64_t tile_elements = int64_t{kKvLanes} * (is_key ? kv_padded(head_dim) : kKvTokens);
  const int32_t tile = is_key ? token / kKvLanes : d / kKvLanes;
  return tile * tile_elements +
         (is_key ? kv_element(type, d, token % kKvLanes) : kv_element(type, token, d % kKvLanes));
}

// Tokens of a block share the bytes of INT4: each changes its own four bits alone.
BISE_DEVICE void set_nibble(uint8_t* head, int64_t at, int value) {
  const uint64_t address = reinterpret_cast<uint64_t>(head) + static_cast<uint64_t>(at / 2);
  auto* word = reinterpret_cast<uint32_t*>(address & ~uint64_t{3});
  const int shift = static_cast<int>(8 * (address & 3) + 4 * (at % 2));
  atomic_and(word, ~(0xFu << shift));
  atomic_or(word, static_cast<uint32_t>(value) << shift);
}

// One warp stores K or V of one token and head.
BISE_KERNEL(kWarp) store_kv(const StoreKvArgs a) {
  begin_kernel();
  const int64_t token = block_x() / a.num_kv_heads;
  const int32_t head_index = block_x() % a.num_kv_heads, dim = a.head_dim, padded = kv_padded(dim);
  const bool is_key = block_y() == 0;
  const int32_t slot = a.slots[token], in_block = slot % kKvTokens;
  uint8_t* head =
      (is_key ? a.k : a.v) + KvPlaces(a.type, a.num_blocks, a.num_kv_heads, dim).at(slot / kKvTokens, head_index);
  const float* from = a.qkv + token * a.columns + (is_key ? a.first_key : a.first_value) + int64_t{head_index} * dim;
  float* x = reinterpret_cast<float*>(shared_bytes());
  for (int d = thread_index(); d < padded; d += kWarp) x[d] = d < dim ? from[d] : 0.0f;
  sync_block();
  if (!kv_has_scales(a.type)) {
    for (int d = thread_index(); d < padded; d += kWarp) {
      const int64_t at = place_of(a.type, is_key, dim, in_block, d);
      if (a.type == KernelKv::f32) reinterpret_cast<float*>(head)[at] = x[d];
      else reinterpret_cast<uint16_t*>(head)[at] = a.type == KernelKv::f16 ? f32_to_f16(x[d]) : f32_to_bf16(x[d]);
    }
    return;
  }
  if (a.type == KernelKv::int4) rotate_shared(x, dim);
  float largest = 0.0f, strange = 0.0f;
  for (int d = thread_index(); d < dim; d += kWarp) {
    const float magnitude = fabsf(x[d]);
    if (!(magnitude <= 3.4028235e38f)) strange = 1.0f;
    else largest = fmaxf(largest, magnitude);
  }
  largest = largest_of_warp(largest);
  strange = largest_of_warp(strange);
  const float largest_code = a.type == KernelKv::int8 ? 127.0f : a.type == KernelKv::fp8 ? 448.0f : 8.0f * 127.0f;
  const uint16_t bits = strange > 0.0f        ? kNanScale
                        : largest < kSmallest ? uint16_t{0}
                                              : f32_to_bf16(largest / largest_code);
  const float scale = bf16_to_f32(bits);
  if (thread_index() == 0) *reinterpret_cast<uint16_t*>(head + kv_scales_at(a.type, dim) + 2 * in_block) = bits;
  if (a.type != KernelKv::int4) {
    for (int d = thread_index(); d < padded; d += kWarp) {
      uint8_t code = 0;
      if (scale > 0.0f && d < dim) {
        code = a.type == KernelKv::int8 ? static_cast<uint8_t>(rounded(x[d] / scale, -127.0f, 127.0f))
                                        : f32_to_e4m3(x[d] / scale);
      }
      head[place_of(a.type, is_key, dim, in_block, d)] = code;
    }
    return;
  }
  for (int g = thread_index(); g < kv_groups(dim); g += kWarp) {
    const int first = g * kKvGroup, end = first + kKvGroup < padded ? first + kKvGroup : padded;
    float top = 0.0f;  // of largest magnitude, with its sign: it becomes the code -8
    for (int d = first; d < end && d < dim; ++d) {
      if (fabsf(x[d]) > fabsf(top)) top = x[d];
    }
    const int factor = scale > 0.0f ? rounded(top / -8.0f / scale, -127.0f, 127.0f) : 0;
    head[kv_factors_at(KernelKv::int4, dim) + g * kKvTokens + in_block] = static_cast<uint8_t>(factor);
    const float step = scale * static_cast<float>(factor);
    for (int d = first; d < end; ++d) {
      const bool is_zero = d >= dim || factor == 0;
      set_nibble(head, place_of(a.type, is_key, dim, in_block, d),
                 8 + (is_zero ? 0 : rounded(x[d] / step, -8.0f, 7.0f)));
    }
  }
}

template <int planes>
BISE_KERNEL(kWarp)
make_queries(const QueryArgs a) {
  begin_kernel();
  const int64_t row = block_x();
  const int head = block_y(), padded = kv_padded(a.head_dim);
  float* x = reinterpret_cast<float*>(shared_bytes());
  for (int d = thread_index(); d < padded; d += kWarp)
    x[d] = d < a.head_dim ? a.qkv[row * a.columns + int64_t{head} * a.head_dim + d] : 0.0f;
  sync_block();
  if (a.rotate) rotate_shared(x, a.head_dim);
  for (int d = 2 * thread_index(); d < padded; d += 2 * kWarp) {
    uint32_t pairs[planes];
    split_pair<planes>(x[d], x[d + 1], pairs);
    for (int p = 0; p < planes; ++p) {
      *reinterpret_cast<uint32_t*>(a.out + ((p * a.rows + row) * a.num_heads + head) * padded + d) = pairs[p];
    }
  }
}

struct UnrotateArgs {
  float* out;
  int32_t num_heads, head_dim;
  bool operator==(const UnrotateArgs&) const = default;
};
BISE_KERNEL(kWarp) unrotate(const UnrotateArgs a) {
  begin_kernel();
  float* head = a.out + (int64_t{block_x()} * a.num_heads + block_y()) * a.head_dim;
  float* x = reinterpret_cast<float*>(shared_bytes());
  for (int d = thread_index(); d < a.head_dim; d += kWarp) x[d] = head[d];
  sync_block();
  rotate_shared(x, a.head_dim);
  for (int d = thread_index(); d < a.head_dim; d += kWarp) head[d] = x[d];
}

int head_bytes(int32_t head_dim) { return kv_padded(head_dim) * static_cast<int>(sizeof(float)); }

}  // namespace

void launch_store_kv(Queue& queue, const StoreKvArgs& args) {
  launch(store_kv, args.tokens * args.num_kv_heads, 2, kWarp, head_bytes(args.head_dim), queue, args);
}
void launch_queries(Queue& queue, const QueryArgs& args) {
  launch(args.planes == 1 ? make_queries<1> : make_queries<3>, args.rows, args.num_heads, kWarp,
         head_bytes(args.head_dim), queue, args);
}
void launch_unrotate(Queue& queue, float* out, int64_t rows, int32_t num_heads, int32_t head_dim) {
  launch(unrotate, rows, num_heads, kWarp, head_bytes(head_dim), queue, UnrotateArgs{out, num_heads, head_dim});
}

}  // namespace bise::gpu
