// Attention over the KV cache on the tensor cores. A warp holds 16 queries, of all heads that share a KV head and of
// neighbouring rows, as the columns of its products, and reads keys and values in the order in which they lie:
//   scores [16 keys, queries] = K q,   out [16 elements of the head, queries] += V^T weights.
// Each segment of kGpuSegment tokens has an online softmax of its own; segments are joined in order, by one warp or
// by join_partials: who takes which segment changes no bit.
#pragma once

#include <cmath>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gpu.cuh"
#include "backend/cuda/launch.cuh"
#include "base/float_types.h"

namespace bise::gpu {

constexpr int kAttendWarps = 4;
constexpr int kQueryTiles = kItemQueries / 8;
constexpr float kNoScore = -INFINITY;

// Planes whose sum is a number of the cache.
template <KernelKv type>
constexpr int kv_planes() {
  return type == KernelKv::f32 ? 3 : type == KernelKv::f16 ? 2 : 1;
}

// The key, of 16, that is row (and, for values, column) `place` of a fragment. INT4 keeps four steps in two bytes.
template <KernelKv type>
BISE_DEVICE int key_at(int place) {
  if constexpr (type == KernelKv::int4) return 4 * (place % 8 / 2) + place % 2 + 2 * (place / 8);
  return place;
}
// The element, of 16, that is row `place` of a fragment of values: where a word has two of them they are neighbours.
template <KernelKv type>
BISE_DEVICE int element_at(int place) {
  if constexpr (type == KernelKv::bf16 || type == KernelKv::f16 || type == KernelKv::f32) return place;
  const int lane = place < 8 ? 2 * place : 2 * (place - 8) + 1;
  if constexpr (type != KernelKv::fp8) return lane;
  return lane / 4 == 1 ? lane + 4 : lane / 4 == 2 ? lane - 4 : lane;
}
// The element of the head, of 16, that is column `place` of a fragment of keys, for the pairs 2 t and 2 t + 8.
template <KernelKv type>
BISE_DEVICE int first_element(int t, int pair) {
  return type == KernelKv::int4 ? 4 * t + 2 * pair : 2 * t + 8 * pair;
}

// Two signed bytes, in the halves of `bytes`, as a pair of BF16.
BISE_DEVICE uint32_t bytes_to_bf16x2(uint32_t bytes) {
  const uint32_t u = bytes ^ 0x00800080u;
  return fma_bf16x2((u & 0x007F007Fu) | 0x43004300u, 0x3F803F80u, (u & 0x00800080u) ^ 0xC380C380u);
}
// Two codes of four bits, in the halves of `nibbles`, less 8.
BISE_DEVICE uint32_t nibbles_to_bf16x2(uint32_t nibbles) {
  return fma_bf16x2(nibbles | 0x43004300u, 0x3F803F80u, 0xC308C308u);
}
BISE_DEVICE uint32_t apart(uint32_t bytes) { return (bytes & 0xFFu) | (bytes & 0xFF00u) << 8; }

// Rows key_at(g) and key_at(g + 8) of 16 keys, elements [16 step, …) of the head.
template <KernelKv type>
BISE_DEVICE void load_keys(const uint8_t* tile, int step, int g, int t, uint32_t (&w)[kv_planes<type>()][4]) {
  BISE_UNROLL
  for (int pair = 0; pair < 2; ++pair) {
    BISE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int r = key_at<type>(g + 8 * half), d = 16 * step + first_element<type>(t, pair), i = 2 * pair + half;
      if constexpr (type == KernelKv::bf16) {
        w[0][i] = load_word(tile + 32 * d + 4 * r);
      } else if constexpr (type == KernelKv::int8) {
        w[0][i] = bytes_to_bf16x2(apart(load_half(tile + 16 * d + 2 * r)));
      } else if constexpr (type == KernelKv::fp8) {
        w[0][i] = e4m3_to_bf16x2(apart(load_half(tile + kv_element(type, d, r))));
      } else if constexpr (type == KernelKv::int4) {
        const uint32_t bytes = apart(load_half(tile + 8 * (d - 2 * pair) + 2 * r));
        w[0][i] = nibbles_to_bf16x2(bytes >> (4 * pair) & 0x000F000Fu);
      } else if constexpr (type == KernelKv::f16) {
        uint32_t planes[2];
        split_pair<2>(f16_to_f32(static_cast<uint16_t>(load_half(tile + 2 * kv_element(type, d, r)))),
                      f16_to_f32(static_cast<uint16_t>(load_half(tile + 2 * kv_element(type, d + 1, r)))), planes);
        w[0][i] = planes[0];
        w[1][i] = planes[1];
      } else {
        uint32_t planes[3];
        split_pair<3>(bits_to_float(load_word(tile + 4 * kv_element(type, d, r))),
                      bits_to_float(load_word(tile + 4 * kv_element(type, d + 1, r))), planes);
        for (int p = 0; p < 3; ++p) w[p][i] = planes[p];
      }
    }
  }
}

// Rows element_at(g) and element_at(g + 8) of a tile of values, keys [16 keys, …) of the block.
template <KernelKv type>
BISE_DEVICE void load_values(const uint8_t* tile, int keys, int g, int t, uint32_t (&w)[kv_planes<type>()][4]) {
  BISE_UNROLL
  for (int pair = 0; pair < 2; ++pair) {
    const int k = 16 * keys + (type == KernelKv::int4 ? 4 * t : 2 * t + 8 * pair);
    uint32_t word = 0;
    if constexpr (type == KernelKv::int8 || type == KernelKv::fp8) word = load_word(tile + 16 * k + 4 * g);
    if constexpr (type == KernelKv::int4) word = load_word(tile + 8 * k + 4 * g);
    BISE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int i = 2 * pair + half, d = g + 8 * half;
      const uint32_t two = apart(word >> (16 * half) & 0xFFFFu);
      if constexpr (type == KernelKv::bf16) {
        w[0][i] = load_word(tile + 32 * k + 4 * d);
      } else if constexpr (type == KernelKv::int8) {
        w[0][i] = bytes_to_bf16x2(two);
      } else if constexpr (type == KernelKv::fp8) {
        w[0][i] = e4m3_to_bf16x2(two);
      } else if constexpr (type == KernelKv::int4) {
        w[0][i] = nibbles_to_bf16x2(two >> (4 * pair) & 0x000F000Fu);
      } else if constexpr (type == KernelKv::f16) {
        uint32_t planes[2];
        split_pair<2>(f16_to_f32(static_cast<uint16_t>(load_half(tile + 2 * kv_element(type, k, d)))),
                      f16_to_f32(static_cast<uint16_t>(load_half(tile + 2 * kv_element(type, k + 1, d)))), planes);
        w[0][i] = planes[0];
        w[1][i] = planes[1];
      } else {
        uint32_t planes[3];
        split_pair<3>(bits_to_float(load_word(tile + 4 * kv_element(type, k, d))),
                      bits_to_float(load_word(tile + 4 * kv_element(type, k + 1, d))), planes);
        for (int p = 0; p < 3; ++p) w[p][i] = planes[p];
      }
    }
  }
}

// Joins one more segment: `total` and its sum of weights belong to the largest score `top`, `part` to `part_top`.
struct Joint {
  float old_factor, part_factor;
  // Spelled out: a compiler could fuse either product, and another one in another kernel.
  BISE_DEVICE float operator()(float old, float part) const { return fmaf(part, part_factor, old * old_factor); }
};
BISE_DEVICE Joint join(float& top, float& sum, float part_top, float part_sum) {
  const float larger = fmaxf(top, part_top);
  Joint joint{1.0f, 0.0f};
  if (part_top > kNoScore) joint = {top > kNoScore ? expf(top - larger) : 0.0f, expf(part_top - larger)};
  top = larger;
  sum = joint(sum, part_sum);
  return joint;
}

template <int tiles>
struct Weighted {
  float out[tiles][kQueryTiles][4];                // [elements][queries] of fragments
  float top[kQueryTiles][2], sum[kQueryTiles][2];  // of queries 2 t and 2 t + 1 of each tile of 8

  BISE_DEVICE void clear() {
    BISE_UNROLL
    for (int n = 0; n < kQueryTiles; ++n) {
      BISE_UNROLL
      for (int m = 0; m < tiles; ++m) {
        BISE_UNROLL
        for (int i = 0; i < 4; ++i) out[m][n][i] = 0.0f;
      }
      BISE_UNROLL
      for (int j = 0; j < 2; ++j) {
        top[n][j] = kNoScore;
        sum[n][j] = 0.0f;
      }
    }
  }
};

template <KernelKv type, int planes, int tiles>
struct Attend {
  const AttendArgs& a;
  const AttentionItem item;
  const int g, t;  // of the lane
  const int group, padded,
      count;  // heads that share a KV head; elements of a head; queries of the sequence and KV head
  int begin[kQueryTiles][2], end[kQueryTiles][2];  // keys that queries 2 t and 2 t + 1 of each tile of 8 see

  BISE_DEVICE Attend(const AttendArgs& args, const AttentionItem& of, int lane)
      : a(args),
        item(of),
        g(lane / 4),
        t(lane % 4),
        group(args.num_heads / args.num_kv_heads),
        padded(kv_padded(args.head_dim)),
        count(of.num_rows * (args.num_heads / args.num_kv_heads)) {
    BISE_UNROLL
    for (int n = 0; n < kQueryTiles; ++n) {
      BISE_UNROLL
      for (int j = 0; j < 2; ++j) {
        const int query = item.first_query + 8 * n + 2 * t + j;
        end[n][j] = query >= count ? 0
                    : a.causal     ? item.num_tokens - item.num_rows + query / group + 1
                                   : item.num_tokens;
        begin[n][j] = a.window > 0 && end[n][j] > a.window ? end[n][j] - a.window : 0;
      }
    }
  }

  // A word of queries for the second matrix of the product: query g of tile n, two elements from `element` on.
  BISE_DEVICE uint32_t query_word(int plane, int n, int element) const {
    const int query = item.first_query + 8 * n + g;
    if (query >= count) return 0;
    const int64_t row = item.first_row + query / group, head = int64_t{item.kv_head} * group + query % group;
    return load_word(a.q + ((plane * a.q_rows + row) * a.num_heads + head) * padded + element);
  }

  // Scores of a block's keys: [16 keys][tile of queries], keys key_at(g) and key_at(g + 8).
  BISE_DEVICE void score(const uint8_t* head, float (&scores)[2][kQueryTiles][4]) const {
    const int64_t tile_bytes = kv_tile_bytes(type, padded);
    BISE_UNROLL
    for (int keys = 0; keys < 2; ++keys) {
      float part[kQueryTiles][4] = {};
      BISE_UNROLL
      for (int n = 0; n < kQueryTiles; ++n) {
        BISE_UNROLL
        for (int i = 0; i < 4; ++i) scores[keys][n][i] = 0.0f;
      }
      for (int step = 0; step < padded / 16; ++step) {
        uint32_t w[kv_planes<type>()][4];
        load_keys<type>(head + keys * tile_bytes, step, g, t, w);
        BISE_UNROLL
        for (int n = 0; n < kQueryTiles; ++n) {
          BISE_UNROLL
          for (int p = 0; p < planes; ++p) {
            const uint32_t b0 = query_word(p, n, 16 * step + first_element<type>(t, 0));
            const uint32_t b1 = query_word(p, n, 16 * step + first_element<type>(t, 1));
            BISE_UNROLL
            for (int plane = 0; plane < kv_planes<type>(); ++plane) mma_bf16(part[n], w[plane], b0, b1);
          }
        }
        if (type == KernelKv::int4 && step % 2 == 0 && step + 1 < padded / 16) continue;  // of one group of 32
        float factor[2] = {1.0f, 1.0f};
        if constexpr (type == KernelKv::int4) {
          const uint8_t* factors = head + kv_factors_at(type, a.head_dim) + step / 2 * kKvTokens + 16 * keys;
          BISE_UNROLL
          for (int half = 0; half < 2; ++half)
            factor[half] = static_cast<float>(static_cast<int8_t>(factors[key_at<type>(g + 8 * half)]));
        }
        BISE_UNROLL
        for (int n = 0; n < kQueryTiles; ++n) {
          BISE_UNROLL
          for (int i = 0; i < 4; ++i) {
            scores[keys][n][i] += part[n][i] * factor[i / 2];
            part[n][i] = 0.0f;
          }
        }
      }
    }
  }

  // The scale of a token of the block; 1 where the type has none, 0 for tokens from `limit` on.
  BISE_DEVICE float token_scale(const uint8_t* head, int token, int limit) const {
    if (!kv_has_scales(type)) return 1.0f;
    if (token >= limit) return 0.0f;
    return bf16_to_f32(static_cast<uint16_t>(load_half(head + kv_scales_at(type, a.head_dim) + 2 * token)));
  }

  // One block of tokens, the first of which is `first`: `limit` of them are there.
  BISE_DEVICE void add_block(const uint8_t* k_head, const uint8_t* v_head, int first, int limit,
                             Weighted<tiles>& of) const {
    float scores[2][kQueryTiles][4];
    score(k_head, scores);
    float v_scale[2][2];
    BISE_UNROLL
    for (int keys = 0; keys < 2; ++keys) {
      BISE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int token = 16 * keys + key_at<type>(g + 8 * half);
        const float k_scale = token_scale(k_head, token, limit) * a.scale;
        v_scale[keys][half] = token_scale(v_head, token, limit);
        BISE_UNROLL
        for (int n = 0; n < kQueryTiles; ++n) {
          BISE_UNROLL
          for (int j = 0; j < 2; ++j) {
            float& s = scores[keys][n][2 * half + j];
            const bool is_seen = first + token >= begin[n][j] && first + token < end[n][j] && token < limit;
            s = is_seen ? s * k_scale : kNoScore;
          }
        }
      }
    }
    BISE_UNROLL
    for (int n = 0; n < kQueryTiles; ++n) {
      BISE_UNROLL
      for (int j = 0; j < 2; ++j) {
        float top = kNoScore;
        bool is_strange = false;
        BISE_UNROLL
        for (int keys = 0; keys < 2; ++keys) {
          top = fmaxf(top, fmaxf(scores[keys][n][j], scores[keys][n][2 + j]));
          is_strange = is_strange || scores[keys][n][j] != scores[keys][n][j] ||
                       scores[keys][n][2 + j] != scores[keys][n][2 + j];
        }
        if (is_strange) top = INFINITY;  // the largest of numbers that are none is none: so are the weights
        for (int mask = 4; mask < kWarp; mask *= 2) top = fmaxf(top, shuffle_xor(top, mask));
        const float larger = fmaxf(of.top[n][j], top);
        const float factor = of.top[n][j] > kNoScore ? expf(of.top[n][j] - larger) : 0.0f;
        float sum = 0.0f;
        BISE_UNROLL
        for (int keys = 0; keys < 2; ++keys) {
          BISE_UNROLL
          for (int half = 0; half < 2; ++half) {
            float& s = scores[keys][n][2 * half + j];
            s = s == kNoScore ? 0.0f : expf(s - larger);
            sum += s;
          }
        }
        of.sum[n][j] = of.sum[n][j] * factor + sum;
        of.top[n][j] = larger;
        BISE_UNROLL
        for (int m = 0; m < tiles; ++m) {
          of.out[m][n][j] *= factor;
          of.out[m][n][2 + j] *= factor;
        }
      }
    }
    const int64_t tile_bytes = kv_tile_bytes(type, kKvTokens);
    BISE_UNROLL
    for (int keys = 0; keys < 2; ++keys) {
      uint32_t weights[kQueryTiles][planes][2];
      auto take_weights = [&](const float(&scale)[2]) {
        BISE_UNROLL
        for (int n = 0; n < kQueryTiles; ++n) {
          BISE_UNROLL
          for (int half = 0; half < 2; ++half) {
            uint32_t pairs[planes];
            split_pair<planes>(scores[keys][n][2 * half] * scale[half], scores[keys][n][2 * half + 1] * scale[half],
                               pairs);
            BISE_UNROLL
            for (int p = 0; p < planes; ++p) weights[n][p][half] = transpose_8x8(pairs[p]);
          }
        }
      };
      if (type != KernelKv::int4) take_weights(v_scale[keys]);
      // Of tokens that are not there nothing is known: not that they are numbers.
      uint32_t mask[2];
      BISE_UNROLL
      for (int pair = 0; pair < 2; ++pair) {
        const int token = 16 * keys + key_at<type>(2 * t + 8 * pair);
        mask[pair] = (token < limit ? 0xFFFFu : 0u) | (token + 1 < limit ? 0xFFFF0000u : 0u);
      }
      BISE_UNROLL
      for (int m = 0; m < tiles; ++m) {
        if (16 * m >= padded) continue;
        if (type == KernelKv::int4 && m % 2 == 0) {
          const uint8_t* factors = v_head + kv_factors_at(type, a.head_dim) + m / 2 * kKvTokens + 16 * keys;
          float scale[2];
          BISE_UNROLL
          for (int half = 0; half < 2; ++half) {
            scale[half] =
                v_scale[keys][half] * static_cast<float>(static_cast<int8_t>(factors[key_at<type>(g + 8 * half)]));
          }
          take_weights(scale);
        }
        uint32_t w[kv_planes<type>()][4];
        load_values<type>(v_head + m * tile_bytes, keys, g, t, w);
        BISE_UNROLL
        for (int plane = 0; plane < kv_planes<type>(); ++plane) {
          const uint32_t fragment[4] = {w[plane][0] & mask[0], w[plane][1] & mask[0], w[plane][2] & mask[1],
                                        w[plane][3] & mask[1]};
          BISE_UNROLL
          for (int n = 0; n < kQueryTiles; ++n) {
            BISE_UNROLL
            for (int p = 0; p < planes; ++p) mma_bf16(of.out[m][n], fragment, weights[n][p][0], weights[n][p][1]);
          }
        }
      }
    }
  }

  // The tokens of one segment, from an empty sum.
  BISE_DEVICE void add_segment(int segment, int seen_begin, int seen_end, Weighted<tiles>& of) const {
    of.clear();
    const KvPlaces places(type, a.num_blocks, a.num_kv_heads, a.head_dim);
    int first = segment * kGpuSegment, last = first + kGpuSegment;
    if (first < seen_begin) first = seen_begin / kKvTokens * kKvTokens;
    if (last > seen_end) last = seen_end;
    for (int token = first; token < last; token += kKvTokens) {
      const int64_t at = places.at(a.block_tables[item.first_block + token / kKvTokens], item.kv_head);
      const int left = item.num_tokens - token;
      add_block(a.k + at, a.v + at, token, left < kKvTokens ? left : kKvTokens, of);
    }
    BISE_UNROLL
    for (int n = 0; n < kQueryTiles; ++n) {
      BISE_UNROLL
      for (int j = 0; j < 2; ++j) {
        for (int mask = 4; mask < kWarp; mask *= 2) of.sum[n][j] += shuffle_xor(of.sum[n][j], mask);
      }
    }
  }

  BISE_DEVICE void run() const {
    int last_query = item.first_query + kItemQueries - 1;
    if (last_query >= count) last_query = count - 1;
    int seen_begin = 0, seen_end = item.num_tokens;
    if (a.causal) {
      const int first_end = item.num_tokens - item.num_rows + item.first_query / group + 1;
      seen_end = item.num_tokens - item.num_rows + last_query / group + 1;
      if (a.window > 0 && first_end > a.window) seen_begin = first_end - a.window;
    }
    Weighted<tiles> total, part;
    total.clear();
    for (int segment = item.first_segment; segment < item.end_segment; ++segment) {
      add_segment(segment, seen_begin, seen_end, part);
      if (item.partial >= 0) return write_partial(part);
      BISE_UNROLL
      for (int n = 0; n < kQueryTiles; ++n) {
        BISE_UNROLL
        for (int j = 0; j < 2; ++j) {
          const Joint joint = join(total.top[n][j], total.sum[n][j], part.top[n][j], part.sum[n][j]);
          BISE_UNROLL
          for (int m = 0; m < tiles; ++m) {
            BISE_UNROLL
            for (int i = j; i < 4; i += 2) {
              total.out[m][n][i] = joint(total.out[m][n][i], part.out[m][n][i]);
            }
          }
        }
      }
    }
    each_element(total, [&](int n, int i, int element, int query, float value) {
      if (query >= count || element >= a.head_dim) return;
      const int64_t row = item.first_row + query / group, head = int64_t{item.kv_head} * group + query % group;
      a.out[(row * a.num_heads + head) * a.head_dim + element] = value / total.sum[n][i % 2];
    });
  }

  // body(tile of queries, place in the fragment, element of the head, query, value).
  template <class Body>
  BISE_DEVICE void each_element(const Weighted<tiles>& of, Body body) const {
    BISE_UNROLL
    for (int m = 0; m < tiles; ++m) {
      BISE_UNROLL
      for (int n = 0; n < kQueryTiles; ++n) {
        BISE_UNROLL
        for (int i = 0; i < 4; ++i) {
          body(n, i, 16 * m + element_at<type>(g + 8 * (i / 2)), item.first_query + 8 * n + 2 * t + i % 2,
               of.out[m][n][i]);
        }
      }
    }
  }

  BISE_DEVICE void write_partial(const Weighted<tiles>& of) const {
    float* out = a.partials + item.partial * partial_floats(padded);
    each_element(of, [&](int, int, int element, int query, float value) {
      if (element < padded) out[element * kItemQueries + query - item.first_query] = value;
    });
    if (g != 0) return;
    BISE_UNROLL
    for (int n = 0; n < kQueryTiles; ++n) {
      BISE_UNROLL
      for (int j = 0; j < 2; ++j) {
        float* of_query = out + padded * kItemQueries + 8 * n + 2 * t + j;
        of_query[0] = of.top[n][j];
        of_query[kItemQueries] = of.sum[n][j];
      }
    }
  }
};

template <KernelKv type, int planes, int tiles>
BISE_KERNEL(kAttendWarps* kWarp)
attend(const AttendArgs a) {
  begin_kernel();
  const int item = block_x() * kAttendWarps + thread_index() / kWarp;
  if (item >= a.num_items) return;
  Attend<type, planes, tiles>(a, a.items[item], thread_index() % kWarp).run();
}

template <KernelKv type>
void launch_attend(Queue& queue, const AttendArgs& a) {
  auto with_tiles = [&]<int tiles>() {
    const int64_t blocks = (a.num_items + kAttendWarps - 1) / kAttendWarps;
    launch(a.planes == 1 ? attend<type, 1, tiles> : attend<type, 3, tiles>, blocks, 1, kAttendWarps * kWarp, 0, queue,
           a);
  };
  if (kv_padded(a.head_dim) <= 64) with_tiles.template operator()<4>();
  else with_tiles.template operator()<8>();
}

}  // namespace bise::gpu
