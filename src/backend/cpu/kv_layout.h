// The layout of the KV cache on the CPU: what storing writes and the attention kernels read. Plain numbers
// only, for files that are compiled for one instruction set: nothing of here may be shared by the linker. docs/FORMATS.md defines the values.
//
// Blocks go in groups of 8, the last of what is left, and a group KV head by KV head: a sequence's blocks are neighbours mostly, and
// memory gives runs of 64 KiB (BF16) a quarter faster than the 8 KiB that a head has of a block.
// K and V of a block (32 tokens) and KV head are a run of bytes each: tiles, then scales. Both products of
// attention read their tiles as products of weights do, 16 lanes at a time, two steps at a time:
//   K   2 tiles of 16 keys; a step is an element of the head
//   V   a tile for every 16 elements of the head; a step is a key (32 of them)
// `padded` is the head size rounded up to 16; what is added is zero. Of step k and lane r,
//   f32, f16   is element 16 k + r
//   bf16       element 32 (k / 2) + 2 r + k % 2: pairs, the order that AMX wants of its second matrix
//   int8       the same
//   fp8        32 (k / 2) + 2 r' + k % 2, r' = r with lanes 4 to 7 and 8 to 11 exchanged (as weights in E4M3)
//   int4       pairs of four steps in 32 bytes: low nibbles hold steps 4 j and 4 j + 1, high nibbles the
//              next two, each in the order of int8; a nibble is the code plus 8
// Scales: fp8, int8 and int4 have bf16[32], one for each token; int4 then i8[groups][32], a factor for each
// 32 elements of the head and token.
#pragma once

#include <stdint.h>

namespace bise {

enum class KernelKv : uint8_t { bf16, f16, f32, fp8, int8, int4 };

constexpr int32_t kKvTokens = 32;  // of a block
constexpr int32_t kKvGroupBlocks = 8;
constexpr int32_t kKvLanes = 16;   // of a tile
constexpr int32_t kKvGroup = 32;   // elements of a head that share a factor of int4

[[gnu::always_inline]] constexpr int32_t kv_padded(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }
[[gnu::always_inline]] constexpr int32_t kv_groups(int32_t head_dim) { return (head_dim + kKvGroup - 1) / kKvGroup; }
[[gnu::always_inline]] constexpr int32_t kv_bits(KernelKv type) {
  switch (type) {
    case KernelKv::f32: return 32;
    case KernelKv::bf16:
    case KernelKv::f16: return 16;
    case KernelKv::fp8:
    case KernelKv::int8: return 8;
    case KernelKv::int4: break;
  }
  return 4;
}
// Whether every value, before its scale, is a number of BF16.
[[gnu::always_inline]] constexpr bool kv_is_bf16(KernelKv type) { return type == KernelKv::bf16 || type == KernelKv::fp8; }
[[gnu::always_inline]] constexpr bool kv_is_integer(KernelKv type) { return type == KernelKv::int8 || type == KernelKv::int4; }
[[gnu::always_inline]] constexpr bool kv_has_scales(KernelKv type) { return kv_bits(type) <= 8; }
[[gnu::always_inline]] constexpr int64_t kv_tile_bytes(KernelKv type, int32_t steps) {
  return int64_t{steps} * kKvLanes * kv_bits(type) / 8;
}
// Where the scales begin, and the factors of int4 behind them.
[[gnu::always_inline]] constexpr int64_t kv_scales_at(KernelKv type, int32_t head_dim) {
  return kv_tile_bytes(type, kv_padded(head_dim)) * (kKvTokens / kKvLanes);
}
[[gnu::always_inline]] constexpr int64_t kv_factors_at(KernelKv type, int32_t head_dim) {
  return kv_scales_at(type, head_dim) + 2 * kKvTokens;
}
// Of K or of V of one block and head.
[[gnu::always_inline]] constexpr int64_t kv_head_bytes(KernelKv type, int32_t head_dim) {
  return kv_scales_at(type, head_dim) + (kv_has_scales(type) ? 2 * kKvTokens : 0) +
         (type == KernelKv::int4 ? int64_t{kv_groups(head_dim)} * kKvTokens : 0);
}
// Element of step k and lane r in a tile; of int4 the nibble: 2 * byte + (1 for the high one).
[[gnu::always_inline]] constexpr int64_t kv_element(KernelKv type, int32_t k, int32_t r) {
  const int32_t pair = 32 * (k / 2) + k % 2;
  switch (type) {
    case KernelKv::f32:
    case KernelKv::f16: return int64_t{16} * k + r;
    case KernelKv::bf16:
    case KernelKv::int8: return pair + 2 * r;
    case KernelKv::fp8: return pair + 2 * (r / 4 == 1 ? r + 4 : r / 4 == 2 ? r - 4 : r);
    case KernelKv::int4: break;
  }
  return 2 * (int64_t{32} * (k / 4) + 2 * r + k % 2) + k / 2 % 2;
}

// Where the heads of blocks begin.
struct KvPlaces {
  [[gnu::always_inline]] constexpr KvPlaces(KernelKv type, int32_t blocks, int32_t heads, int32_t head_dim)
      : num_blocks(blocks), num_heads(heads), head_bytes(kv_head_bytes(type, head_dim)) {}
  [[gnu::always_inline]] constexpr int64_t at(int32_t block, int32_t head) const {
    const int32_t first = block / kKvGroupBlocks * kKvGroupBlocks, left = num_blocks - first,
                  of_group = left < kKvGroupBlocks ? left : kKvGroupBlocks;
    return (int64_t{first} * num_heads + int64_t{head} * of_group + block - first) * head_bytes;
  }
  int32_t num_blocks, num_heads;
  int64_t head_bytes;
};

}  // namespace bise
