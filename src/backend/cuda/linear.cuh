// Products of weights with few or many rows of inputs. A warp holds 16 rows of weights, decodes 16 or 32 columns
// of them into fragments of mma.m16n8k16, and multiplies each fragment with all its tokens; the warps of a block
// share the columns. Codes stay whole numbers, which BF16 holds exactly; scales meet the sums in float32. The
// order of a sum depends on the weight's columns alone: a row of inputs has the same bits in any company.
#pragma once

#include <type_traits>

#include "backend/cpu/tile_decode.h"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gpu.cuh"
#include "backend/cuda/launch.cuh"

namespace bise::gpu {

constexpr int kLinearWarps = 8;

template <int n_tiles>
using Sums = float[n_tiles][4];

// Where a warp's lane is in a fragment, and the tokens it multiplies.
struct LinearLane {
  int g = 0, t = 0;  // row (and, in b, token) and column of the fragment
  int64_t first_token = 0;
};

template <int n_tiles>
BISE_DEVICE void multiply(const LinearArgs& a, const LinearLane& lane, const uint32_t (&w)[4], int64_t column,
                          int64_t next_column, Sums<n_tiles>& sums) {
  BISE_UNROLL
  for (int n = 0; n < n_tiles; ++n) {
    const int64_t token = lane.first_token + 8 * n + lane.g;
    for (int p = 0; p < a.planes; ++p) {
      uint32_t b0 = 0, b1 = 0;
      if (token < a.tokens) {
        const uint16_t* x = a.x + (p * a.tokens + token) * a.padded;
        b0 = load_word(x + column);
        b1 = load_word(x + next_column);
      }
      mma_bf16(sums[n], w, b0, b1);
    }
  }
}

// sums += part times scale[row], part = 0.
template <int n_tiles>
BISE_DEVICE void add_scaled(const float (&scale)[2], Sums<n_tiles>& part, Sums<n_tiles>& sums) {
  BISE_UNROLL
  for (int n = 0; n < n_tiles; ++n) {
    BISE_UNROLL
    for (int i = 0; i < 4; ++i) {
      sums[n][i] += scale[i / 2] * part[n][i];
      part[n][i] = 0.0f;
    }
  }
}

// sums += minimum[row] times the inputs of `count` runs of 16 columns.
template <int n_tiles>
BISE_DEVICE void add_minimum(const LinearArgs& a, const LinearLane& lane, const float (&minimum)[2], int64_t first_run,
                             int count, Sums<n_tiles>& sums) {
  BISE_UNROLL
  for (int n = 0; n < n_tiles; ++n) {
    BISE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int64_t token = lane.first_token + 8 * n + 2 * lane.t + i % 2;
      if (token >= a.tokens) continue;
      const float* x = a.x_sums + token * (a.padded / 16) + first_run;
      float inputs = x[0];
      for (int r = 1; r < count; ++r) inputs += x[r];
      sums[n][i] += minimum[i / 2] * inputs;
    }
  }
}

// The codes of a block for rows g and g + 8, as bytes: of quad t, then of quad t + 4.
template <IntCodes codes>
BISE_DEVICE void load_codes(const uint8_t* p, int g, int t, uint32_t (&c)[2][2]) {
  const uint8_t* low = p + high_bytes(codes);
  BISE_UNROLL
  for (int row = 0; row < 2; ++row) {
    const int at = 4 * (g + 8 * row);
    if constexpr (low_bits(codes) == 8) {
      c[0][row] = load_once(low + 64 * t + at);
      c[1][row] = load_once(low + 64 * (t + 4) + at);
    } else if constexpr (low_bits(codes) == 4) {
      const uint32_t w = load_once(low + 64 * t + at);
      c[0][row] = w & 0x0F0F0F0Fu;
      c[1][row] = w >> 4 & 0x0F0F0F0Fu;
    } else {
      const uint32_t w = load_once(low + 64 * (t % 2) + at) >> (2 * (t / 2));
      c[0][row] = w & 0x03030303u;
      c[1][row] = w >> 4 & 0x03030303u;
    }
    if constexpr (high_bits(codes) == 1) {
      const uint32_t h = load_once(p + at);
      c[0][row] |= (h >> t & 0x01010101u) << low_bits(codes);
      c[1][row] |= (h >> (t + 4) & 0x01010101u) << low_bits(codes);
    } else if constexpr (high_bits(codes) == 2) {
      c[0][row] |= (load_once(p + at) >> (2 * t) & 0x03030303u) << 4;
      c[1][row] |= (load_once(p + 64 + at) >> (2 * t) & 0x03030303u) << 4;
    }
  }
}

// A whole number of at most 256 as both halves of a pair of BF16.
BISE_DEVICE uint32_t whole_bf16x2(int value) {
  const uint32_t bits = float_to_bits(static_cast<float>(value));
  return (bits & 0xFFFF0000u) | bits >> 16;
}
// Table values of four codes 0 to 15 in bytes.
BISE_DEVICE uint32_t iq4_values(uint32_t codes) {
  constexpr uint32_t kTable[4] = {0xBFAD9881u, 0xF6EADDCFu, 0x26190D01u, 0x71594535u};  // kIq4Values
  uint32_t three = codes & 0x07070707u;
  three |= three >> 4;
  const uint32_t selector = (three & 0xFFu) | (three >> 8 & 0xFF00u);
  const uint32_t low = byte_permute(kTable[0], kTable[1], selector),
                 high = byte_permute(kTable[2], kTable[3], selector);
  const uint32_t is_high = (codes >> 3 & 0x01010101u) * 0xFFu;
  return (low & ~is_high) | (high & is_high);
}

// Four codes in bytes as two pairs of BF16, less `offset` (whole_bf16x2; of codes up to 6 bits 128 more).
template <IntCodes codes>
BISE_DEVICE void widen(uint32_t c, uint32_t offset, bool has_offset, uint32_t& first, uint32_t& second) {
  constexpr uint32_t kOne = 0x3F803F80u, kMinus = 0x80008000u;
  if constexpr (codes == IntCodes::e2m1) {
    const uint32_t low = byte_permute(c, 0, 0x4140), high = byte_permute(c, 0, 0x4342);
    // Exponent and mantissa in place, times 2^126.
    first = fma_bf16x2((low & 0x00070007u) << 6 | (low & 0x00080008u) << 12, 0x7E807E80u, kMinus);
    second = fma_bf16x2((high & 0x00070007u) << 6 | (high & 0x00080008u) << 12, 0x7E807E80u, kMinus);
  } else if constexpr (codes == IntCodes::s8 || codes == IntCodes::iq4) {
    if constexpr (codes == IntCodes::iq4) c = iq4_values(c);
    // 0x4300 | b is 128 + b for b of seven bits; of that goes 128, or 256 for a negative code.
    const uint32_t unsigned_codes = c ^ 0x80808080u, seven = unsigned_codes & 0x7F7F7F7Fu,
                   top = unsigned_codes & 0x80808080u;
    first = fma_bf16x2(byte_permute(seven, 0x43434343u, 0x4140), kOne, byte_permute(top, 0, 0x4140) ^ 0xC380C380u);
    second = fma_bf16x2(byte_permute(seven, 0x43434343u, 0x4342), kOne, byte_permute(top, 0, 0x4342) ^ 0xC380C380u);
    if (has_offset) {
      first = fma_bf16x2(first, kOne, offset ^ kMinus);
      second = fma_bf16x2(second, kOne, offset ^ kMinus);
    }
  } else {
    first = fma_bf16x2(byte_permute(c, 0x43434343u, 0x4140), kOne, offset ^ kMinus);
    second = fma_bf16x2(byte_permute(c, 0x43434343u, 0x4342), kOne, offset ^ kMinus);
  }
}

// Adds what the warps of a block have of 16 rows and all their tokens, in their order, and writes it. `of_row` gives
// the tile's row of a row of the fragment.
template <int n_tiles, class RowOf>
BISE_DEVICE void write_sums(const LinearArgs& a, const LinearLane& lane, int warp, const Sums<n_tiles>& sums,
                            RowOf of_row) {
  constexpr int kTokens = 8 * n_tiles;
  float* shared = reinterpret_cast<float*>(shared_bytes());  // [warps][16 rows][tokens]
  BISE_UNROLL
  for (int n = 0; n < n_tiles; ++n) {
    BISE_UNROLL
    for (int i = 0; i < 4; ++i) {
      shared[(warp * kTileRows + lane.g + 8 * (i / 2)) * kTokens + 8 * n + 2 * lane.t + i % 2] = sums[n][i];
    }
  }
  sync_block();
  for (int at = thread_index(); at < kTileRows * kTokens; at += num_threads()) {
    const int64_t token = lane.first_token + at / kTileRows;
    const int fragment_row = at % kTileRows;
    const int64_t row = int64_t{block_x()} * kTileRows + of_row(fragment_row);
    if (token >= a.tokens || row >= a.rows) continue;
    float sum = 0.0f;
    for (int w = 0; w < kLinearWarps; ++w) sum += shared[(w * kTileRows + fragment_row) * kTokens + at / kTileRows];
    if (a.times != nullptr) sum = sum * a.times[row] / a.over[row];
    sum *= a.input_scale;
    float* y = a.y + token * a.y_columns + row;
    *y = a.accumulate ? *y + sum : sum;
  }
}

template <IntCodes codes, BlockScales block_scales, int n_tiles>
BISE_KERNEL(kLinearWarps* kWarp)
linear_int(const LinearArgs a) {
  const int warp = thread_index() / kWarp, in_warp = thread_index() % kWarp;
  const LinearLane lane{in_warp / 4, in_warp % 4, int64_t{block_y()} * 8 * n_tiles};
  const IntTile& tile = a.ints;
  const uint8_t* data = a.tiles + static_cast<uint64_t>(block_x()) * a.tile_bytes;
  const int64_t blocks = a.columns / kBlock, begin = blocks * warp / kLinearWarps,
                end = blocks * (warp + 1) / kLinearWarps;
  constexpr bool kSmallCodes = codes != IntCodes::s8 && codes != IntCodes::iq4;

  Sums<n_tiles> sums = {}, part = {};
  float scale[2] = {}, minimum[2] = {};
  uint32_t offset[2] = {};
  bool has_offset = false;
  int64_t group_begin = begin;
  for (int64_t b = begin; b < end; ++b) {
    if (b == begin || b % tile.group_blocks == 0) {
      const uint8_t* header = data + header_start(tile, b);
      const uint8_t* minima = header + kTileRows * scale_bytes(tile.scale);
      BISE_UNROLL
      for (int row = 0; row < 2; ++row) {
        const int r = lane.g + 8 * row;
        scale[row] = tile_scale(tile.scale, header, r);
        if (tile.minimum == Minimum::value) minimum[row] = tile_scale(tile.scale, minima, r);
        const int zero = tile.offset + (tile.minimum == Minimum::zero_point ? minima[r] : 0);
        offset[row] = whole_bf16x2(zero + (kSmallCodes ? 128 : 0));
      }
      has_offset = tile.minimum == Minimum::zero_point || tile.offset != 0;
      group_begin = b;
    }
    const uint8_t* p = data + block_start(tile, b);
    uint32_t c[2][2];
    load_codes<codes>(p + block_scale_bytes(block_scales), lane.g, lane.t, c);
    BISE_UNROLL
    for (int half = 0; half < 2; ++half) {
      uint32_t w[4];
      widen<codes>(c[half][0], offset[0], has_offset, w[0], w[2]);
      widen<codes>(c[half][1], offset[1], has_offset, w[1], w[3]);
      const int64_t column = kBlock * b + 16 * half + 4 * lane.t;
      multiply<n_tiles>(a, lane, w, column, column + 2, part);
      if constexpr (block_scales == BlockScales::i8_halves || block_scales == BlockScales::u4_halves ||
                    block_scales == BlockScales::e4m3_halves) {
        float of_half[2], minimum_of_half[2];
        BISE_UNROLL
        for (int row = 0; row < 2; ++row) {
          const uint8_t s = p[kTileRows * half + lane.g + 8 * row];
          of_half[row] = block_scales == BlockScales::e4m3_halves ? e4m3_to_f32(s) * 0x1p-8f
                         : block_scales == BlockScales::i8_halves
                             ? scale[row] * static_cast<float>(static_cast<int8_t>(s))
                             : scale[row] * static_cast<float>(s & 15);
          minimum_of_half[row] = -minimum[row] * static_cast<float>(s >> 4);
        }
        add_scaled<n_tiles>(of_half, part, sums);
        if constexpr (block_scales == BlockScales::u4_halves) {
          add_minimum<n_tiles>(a, lane, minimum_of_half, 2 * b + half, 1, sums);
        }
      }
    }
    if constexpr (block_scales == BlockScales::u8_min || block_scales == BlockScales::i8) {
      float of_block[2], minimum_of_block[2];
      BISE_UNROLL
      for (int row = 0; row < 2; ++row) {
        const int r = lane.g + 8 * row;
        of_block[row] = scale[row] * (block_scales == BlockScales::i8 ? static_cast<float>(static_cast<int8_t>(p[r]))
                                                                      : static_cast<float>(p[r]));
        minimum_of_block[row] =
            block_scales == BlockScales::i8 ? 0.0f : -minimum[row] * static_cast<float>(p[kTileRows + r]);
      }
      add_scaled<n_tiles>(of_block, part, sums);
      if constexpr (block_scales == BlockScales::u8_min)
        add_minimum<n_tiles>(a, lane, minimum_of_block, 2 * b, 2, sums);
    }
    if constexpr (block_scales == BlockScales::none) {
      if (b + 1 == end || (b + 1) % tile.group_blocks == 0) {
        add_scaled<n_tiles>(scale, part, sums);
        if (tile.minimum == Minimum::value) {
          add_minimum<n_tiles>(a, lane, minimum, 2 * group_begin, static_cast<int>(2 * (b + 1 - group_begin)), sums);
        }
      }
    }
  }
  write_sums<n_tiles>(a, lane, warp, sums, [](int row) { return row; });
}

// The planes of a float format's weights: their sum is the weight, exactly.
template <FloatCodes codes>
constexpr int weight_planes() {
  return codes == FloatCodes::f32 ? 3 : codes == FloatCodes::f16 ? 2 : 1;
}
// The tile's row of a row of the fragment: a word holds two rows of the formats whose word holds no pair of columns.
template <FloatCodes codes>
BISE_DEVICE int float_row(int fragment_row) {
  if constexpr (codes == FloatCodes::f32 || codes == FloatCodes::bf16) return fragment_row;
  const int place = fragment_row < 8 ? 2 * fragment_row : 2 * (fragment_row - 8) + 1;
  if constexpr (codes == FloatCodes::f16) return place;
  return place / 4 == 1 ? place + 4 : place / 4 == 2 ? place - 4 : place;
}
// Two columns of rows float_row(g) and float_row(g + 8).
template <FloatCodes codes>
BISE_DEVICE void load_pair(const uint8_t* p, int g, uint32_t (&row0)[weight_planes<codes>()],
                           uint32_t (&row8)[weight_planes<codes>()]) {
  if constexpr (codes == FloatCodes::bf16) {
    row0[0] = load_once(p + 4 * g);
    row8[0] = load_once(p + 4 * (g + 8));
  } else if constexpr (codes == FloatCodes::e4m3) {
    const uint32_t w = load_once(p + 4 * g);
    row0[0] = e4m3_to_bf16x2(byte_permute(w, 0, 0x4140));
    row8[0] = e4m3_to_bf16x2(byte_permute(w, 0, 0x4342));
  } else if constexpr (codes == FloatCodes::f16) {
    const uint32_t first = load_once(p + 4 * g), second = load_once(p + 2 * kTileRows + 4 * g);
    split_pair<2>(f16_to_f32(static_cast<uint16_t>(first)), f16_to_f32(static_cast<uint16_t>(second)), row0);
    split_pair<2>(f16_to_f32(static_cast<uint16_t>(first >> 16)), f16_to_f32(static_cast<uint16_t>(second >> 16)),
                  row8);
  } else {
    split_pair<3>(bits_to_float(load_once(p + 4 * g)), bits_to_float(load_once(p + 4 * (kTileRows + g))), row0);
    split_pair<3>(bits_to_float(load_once(p + 4 * (g + 8))), bits_to_float(load_once(p + 4 * (kTileRows + g + 8))),
                  row8);
  }
}

template <FloatCodes codes, bool has_groups, int n_tiles>
BISE_KERNEL(kLinearWarps* kWarp)
linear_float(const LinearArgs a) {
  const int warp = thread_index() / kWarp, in_warp = thread_index() % kWarp;
  const LinearLane lane{in_warp / 4, in_warp % 4, int64_t{block_y()} * 8 * n_tiles};
  const FloatTile& tile = a.floats;
  const uint8_t* data = a.tiles + static_cast<uint64_t>(block_x()) * a.tile_bytes;
  const int64_t steps = (a.columns + 15) / 16, begin = steps * warp / kLinearWarps,
                end = steps * (warp + 1) / kLinearWarps;
  const int64_t group_steps = has_groups ? tile.group_columns / 16 : 1;
  constexpr int kPlanes = weight_planes<codes>();

  Sums<n_tiles> sums = {}, part = {};
  for (int64_t s = begin; s < end; ++s) {
    uint32_t w[2][2][kPlanes] = {};  // [pair][row]
    BISE_UNROLL
    for (int pair = 0; pair < 2; ++pair) {
      const int64_t column = 16 * s + 8 * pair + 2 * lane.t;
      if (column < a.columns) load_pair<codes>(data + column_start(tile, column), lane.g, w[pair][0], w[pair][1]);
    }
    BISE_UNROLL
    for (int plane = 0; plane < kPlanes; ++plane) {
      const uint32_t fragment[4] = {w[0][0][plane], w[0][1][plane], w[1][0][plane], w[1][1][plane]};
      multiply<n_tiles>(a, lane, fragment, 16 * s + 2 * lane.t, 16 * s + 8 + 2 * lane.t, has_groups ? part : sums);
    }
    if (has_groups && (s + 1 == end || (s + 1) % group_steps == 0)) {
      const uint8_t* header =
          data + column_start(tile, s / group_steps * tile.group_columns) - kTileRows * scale_bytes(tile.scale);
      const float scale[2] = {tile_scale(tile.scale, header, float_row<codes>(lane.g)),
                              tile_scale(tile.scale, header, float_row<codes>(lane.g + 8))};
      add_scaled<n_tiles>(scale, part, sums);
    }
  }
  write_sums<n_tiles>(a, lane, warp, sums, [](int row) { return float_row<codes>(row); });
}

// Tokens of a block: more where there are many, so that codes are widened once for all of them.
template <class Launch>
void with_tokens(int64_t tokens, Launch launch_with) {
  if (tokens <= 8) return launch_with(std::integral_constant<int, 1>());
  if (tokens <= 16) return launch_with(std::integral_constant<int, 2>());
  launch_with(std::integral_constant<int, 8>());
}
template <class Kernel>
void launch_tiles(Kernel kernel, int n_tiles, Queue& queue, const LinearArgs& a) {
  launch(kernel, (a.rows + kTileRows - 1) / kTileRows, (a.tokens + 8 * n_tiles - 1) / (8 * n_tiles),
         kLinearWarps * kWarp, kLinearWarps * kTileRows * 8 * n_tiles * static_cast<int>(sizeof(float)), queue, a);
}

}  // namespace bise::gpu
