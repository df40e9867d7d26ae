// Products of weights with few or many rows of inputs. A warp holds two tiles of 16 rows of weights, decodes 16
// columns of each into fragments of mma.m16n8k16, and multiplies them with all tokens of its block; the block's warps
// share the inputs. Weights and inputs come through a ring of stages in shared memory, filled some stages ahead. Codes
// stay whole numbers, which BF16 holds exactly; scales meet the sums in float32.
//
// A sum is that of kRanges ranges of the columns, each from zero, in their order: blocks may share out the ranges and
// leave their parts in memory, where the last of them adds them up. The order depends on the weight's columns alone:
// a row of inputs has the same bits in any company.
#pragma once

#include <type_traits>

#include "backend/cpu/tile_decode.h"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gpu.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/linear_plan.h"

namespace bise::gpu {

constexpr int kLinearWarps = kLinearTiles / kWarpTiles;

template <int n_tiles>
using Sums = float[n_tiles][4];

// What a format's kernel is made of: how many columns a unit of its tiles has, and a stage; what is between the
// inputs of two tokens there, so that a warp's lanes read from different banks.
template <int unit_columns_, int unit_bytes_, int columns_, int padding>
struct StageShape {
  static constexpr int kMostHeaderBytes = kTileRows * 8;
  static constexpr int unit_columns = unit_columns_, columns = columns_, units = columns / unit_columns,
                       x_stride = 2 * columns + padding, most_tile_bytes = units * (unit_bytes_ + kMostHeaderBytes);
};
// More columns where there are few tokens: what a stage costs beside its products is shared by them.
template <int unit_bytes, int n_tiles>
using IntStage = StageShape<kBlock, unit_bytes, n_tiles <= 2 ? 128 : 64, 32>;
template <FloatCodes codes>
using FloatStage = StageShape<16, 16 * kTileRows * code_bytes(codes), codes == FloatCodes::e4m3 ? 64 : 32, 16>;

// sums += part times scale[row].
template <int n_tiles>
BISE_DEVICE void add_scaled(const float (&scale)[2], const Sums<n_tiles>& part, Sums<n_tiles>& sums) {
  BISE_UNROLL
  for (int n = 0; n < n_tiles; ++n) {
    BISE_UNROLL
    for (int i = 0; i < 4; ++i) sums[n][i] = fmaf(scale[i / 2], part[n][i], sums[n][i]);
  }
}

// The ring: where a stage's inputs, their sums by runs of 16 columns, and the tiles lie.
template <class Shape, int n_tiles>
struct Stages {
  static constexpr int kTokens = 8 * n_tiles;

  const LinearKernelArgs& k;
  int lane, warp;
  int64_t first_token;
  int32_t first_tile;  // of the warp

  BISE_DEVICE uint8_t* stage(int i) const { return shared_bytes() + i * k.stage_bytes; }
  BISE_DEVICE const uint8_t* x(int i, int token) const { return stage(i) + token * Shape::x_stride; }
  BISE_DEVICE uint8_t* sums(int i) const { return stage(i) + kTokens * Shape::x_stride; }
  BISE_DEVICE uint8_t* tile(int i, int t) const {
    return sums(i) + kTokens * Shape::units * 8 + (kWarpTiles * warp + t) * k.tile_stage_bytes;
  }
  BISE_DEVICE bool has_tile(int t) const { return first_tile + t < k.num_tiles; }
};

// What a lane reads of a stage: its warp's tiles from the next unit on, the inputs of token g, and the sums of inputs.
struct StageCursor {
  const uint8_t* tile[kWarpTiles];
  const uint8_t* x;
  const uint8_t* sums;

  BISE_DEVICE void skip(int32_t bytes) {
    BISE_UNROLL
    for (int t = 0; t < kWarpTiles; ++t) tile[t] += bytes;
  }
};

// Fills stages with the units of the ranges that a block has, which follow each other. A thread copies the same pieces
// of each stage.
template <class Shape, int n_tiles>
struct StageFiller {
  using Ring = Stages<Shape, n_tiles>;
  static constexpr int kThreads = kLinearWarps * kWarp, kPieces = Shape::columns / 8;  // of 16 bytes
  static constexpr int kXTurns = (Ring::kTokens * kPieces + kThreads - 1) / kThreads;
  static constexpr int kTokensOfTurn = kThreads / kPieces;

  const LinearKernelArgs& k;
  const Ring& ring;
  int32_t range, last_range, unit, end, left, in_group = 0;  // left: bytes of the tile
  const uint8_t* tile[kWarpTiles];                           // this lane's next bytes
  const uint16_t* x;                                         // of the first turn's token
  const float* sums;

  BISE_DEVICE StageFiller(const LinearKernelArgs& args, const Ring& stages, int32_t first, int32_t last)
      : k(args),
        ring(stages),
        range(first),
        last_range(last),
        unit(k.range_begin(first)),
        end(k.range_begin(first + 1)) {
    const int32_t begin = k.units.span_begin(unit);
    left = k.units.tile_bytes - begin;
    if (k.units.per_group != 0) in_group = unit % k.units.per_group;
    BISE_UNROLL
    for (int t = 0; t < kWarpTiles; ++t) {
      tile[t] = k.a.w.tiles + static_cast<uint64_t>(ring.first_tile + t) * k.a.w.tile_bytes + begin + 16 * ring.lane;
    }
    const int thread = thread_index();
    x = k.a.x + (ring.first_token + thread / kPieces) * k.a.padded + unit * Shape::unit_columns +
        8 * (thread % kPieces);
    sums = k.a.x_sums + (ring.first_token + thread / Shape::units) * (k.a.padded / 16) +
           2 * (unit + thread % Shape::units);
    skip();
  }
  BISE_DEVICE void skip() {
    while (unit == end && range < last_range) {
      ++range;
      end = k.range_begin(range + 1);
    }
  }
  BISE_DEVICE bool done() const { return unit == end; }

  BISE_DEVICE int32_t bytes_of(int32_t count) {
    int32_t bytes = count * k.units.unit_bytes;
    if (k.units.per_group == 1) return bytes + count * k.units.header_bytes;
    if (k.units.per_group != 0) {
      for (int32_t u = 0; u < count; ++u) {
        if (in_group == 0) bytes += k.units.header_bytes;
        if (++in_group == k.units.per_group) in_group = 0;
      }
    }
    return bytes < left ? bytes : left;
  }
  // Tiles, inputs, or both: either way the filler goes on to what comes next.
  template <bool tiles, bool inputs>
  BISE_DEVICE void fill(int stage) {
    const int32_t count = end - unit < Shape::units ? end - unit : Shape::units, bytes = bytes_of(count);
    if (inputs) fill_inputs(stage, count);
    BISE_UNROLL
    for (int t = 0; t < kWarpTiles; ++t) {
      if (!tiles || !ring.has_tile(t)) continue;
      uint8_t* tile_to = ring.tile(stage, t) + 16 * ring.lane;
      BISE_UNROLL
      for (int at = 0; at < Shape::most_tile_bytes; at += 16 * kWarp) {
        if (at + 16 * ring.lane < bytes) copy_async_16(tile_to + at, tile[t] + at, true);
      }
      tile[t] += bytes;
    }
    x += count * Shape::unit_columns;
    sums += 2 * count;
    left -= bytes;
    unit += count;
    skip();
  }
  BISE_DEVICE void fill_inputs(int stage, int32_t count) {
    const int thread = thread_index();
    uint8_t* to = ring.stage(stage) + thread / kPieces * Shape::x_stride + 16 * (thread % kPieces);
    if (8 * (thread % kPieces) < count * Shape::unit_columns) {
      BISE_UNROLL
      for (int turn = 0; turn < kXTurns; ++turn) {
        const int token = turn * kTokensOfTurn + thread / kPieces;
        if (token >= Ring::kTokens) break;
        const bool is_there = ring.first_token + token < k.a.tokens;
        copy_async_16(to + turn * kTokensOfTurn * Shape::x_stride,
                      is_there ? x + turn * kTokensOfTurn * k.a.padded : k.a.x, is_there);
      }
    }
    if (k.needs_sums) {
      static_assert(Ring::kTokens * Shape::units <= kThreads);
      const int token = thread / Shape::units;
      if (token < Ring::kTokens && thread % Shape::units < count) {
        const bool is_there = ring.first_token + token < k.a.tokens;
        copy_async_8(ring.sums(stage) + 8 * thread, is_there ? sums : k.a.x_sums, is_there);
      }
    }
  }
};

// A block's elements of y in its threads' order, of one range.
template <int n_tiles>
BISE_DEVICE float* partial_of(const LinearKernelArgs& k, int range) {
  const int64_t block = int64_t{block_x()} / k.splits + int64_t{block_y()} * k.row_blocks;
  return k.partials + ((block * kRanges + range) * (kWarpTiles * n_tiles * 4)) * (kLinearWarps * kWarp) +
         thread_index();
}

// The kernel of a format: what it decodes and how is `Decoder`'s.
template <class Shape, class Decoder, int n_tiles>
BISE_DEVICE void linear(const LinearKernelArgs& k) {
  const int warp = thread_index() / kWarp, in_warp = thread_index() % kWarp, g = in_warp / 4, t = in_warp % 4;
  const int32_t split = block_x() % k.splits, row_block = block_x() / k.splits;
  const int32_t ranges = kRanges / k.splits, first_range = split * ranges, last_range = first_range + ranges - 1;
  const Stages<Shape, n_tiles> stages{k, in_warp, warp, int64_t{block_y()} * 8 * n_tiles,
                                      row_block * kLinearTiles + kWarpTiles * warp};
  const bool has_rows = stages.has_tile(0);

  // Weights come while the kernel before this one still makes the inputs.
  StageFiller<Shape, n_tiles> ahead(k, stages, first_range, last_range), behind = ahead;
  let_next_start();
  for (int i = 0; i < k.stages - 1; ++i) {
    if (!ahead.done()) ahead.template fill<true, false>(i);
  }
  wait_for_previous();
  for (int i = 0; i < k.stages - 1; ++i) {
    if (!behind.done()) behind.template fill<false, true>(i);
    commit_copies();
  }
  Sums<n_tiles> totals[kWarpTiles] = {};
  Decoder decoder(k, g, t);
  int stage = 0;
  for (int32_t range = first_range; range <= last_range; ++range) {
    Sums<n_tiles> sums[kWarpTiles] = {};
    const int32_t begin = k.range_begin(range), end = k.range_begin(range + 1);
    decoder.begin_range(stages, begin);
    for (int32_t unit = begin; unit < end; unit += Shape::units) {
      wait_for_copies(k.stages - 2);
      sync_block();  // the stage is there for all, and all are done with the one before it
      if (!ahead.done()) ahead.template fill<true, true>(stage == 0 ? k.stages - 1 : stage - 1);
      commit_copies();
      if (has_rows) {
        StageCursor cursor{{stages.tile(stage, 0), stages.tile(stage, 1)}, stages.x(stage, g), stages.sums(stage)};
        const int32_t count = end - unit < Shape::units ? end - unit : Shape::units;
        decoder.stage(cursor, unit, count, unit + count == end, sums);
      }
      stage = stage + 1 == k.stages ? 0 : stage + 1;
    }
    float* partial = k.splits == 1 ? nullptr : partial_of<n_tiles>(k, range);
    BISE_UNROLL
    for (int e = 0; e < kWarpTiles * n_tiles * 4; ++e) {
      const float sum = sums[e / (4 * n_tiles)][e / 4 % n_tiles][e % 4];
      if (partial == nullptr) totals[e / (4 * n_tiles)][e / 4 % n_tiles][e % 4] += sum;
      else partial[e * kLinearWarps * kWarp] = sum;
    }
  }
  wait_for_copies(0);
  if (k.splits > 1) {
    // The last block of those that share these elements has them all.
    memory_fence();
    sync_block();
    auto* is_last = reinterpret_cast<uint32_t*>(shared_bytes());
    uint32_t* arrived = k.arrivals + row_block + int64_t{block_y()} * k.row_blocks;
    if (thread_index() == 0) {
      *is_last = atomic_add(arrived, 1u) == static_cast<uint32_t>(k.splits) - 1 ? 1u : 0u;
      if (*is_last != 0) *arrived = 0;  // for the next launch
    }
    sync_block();
    if (*is_last == 0) return;
    memory_fence();
    for (int range = 0; range < kRanges; ++range) {
      const float* partial = partial_of<n_tiles>(k, range);
      BISE_UNROLL
      for (int e = 0; e < kWarpTiles * n_tiles * 4; ++e) {
        totals[e / (4 * n_tiles)][e / 4 % n_tiles][e % 4] += load_fresh(partial + e * kLinearWarps * kWarp);
      }
    }
  }
  const LinearArgs& a = k.a;
  BISE_UNROLL
  for (int e = 0; e < kWarpTiles * n_tiles * 4; ++e) {
    const int tile = e / (4 * n_tiles), n = e / 4 % n_tiles, i = e % 4;
    const int64_t token = stages.first_token + 8 * n + 2 * t + i % 2;
    const int64_t row = int64_t{stages.first_tile + tile} * kTileRows + Decoder::tile_row(g + 8 * (i / 2));
    if (token >= a.tokens || row >= a.w.rows) continue;
    float sum = totals[tile][n][i];
    if (a.w.times != nullptr) sum = sum * a.w.times[row] / a.w.over[row];
    sum *= a.input_scale;
    float* y = a.y + token * a.y_columns + row;
    *y = a.accumulate ? *y + sum : sum;
  }
}

// Two words of rows g and g + 8, 32 bytes apart, of runs of 64 bytes by t: half of the lanes read them in the other
// order, so that a warp's 32 words are in 32 banks.
BISE_DEVICE void load_rows(const uint8_t* p, int t, uint32_t& row0, uint32_t& row8) {
  const bool other = (t & 2) != 0;
  const uint32_t first = load_word(p + (other ? 32 : 0)), second = load_word(p + (other ? 0 : 32));
  row0 = other ? second : first;
  row8 = other ? first : second;
}

// Calls with the number of tiles of 8 tokens that the plan has.
template <class Launch>
void with_n_tiles(int32_t n_tiles, Launch launch_with) {
  switch (n_tiles) {
    case 1: return launch_with(std::integral_constant<int, 1>());
    case 2: return launch_with(std::integral_constant<int, 2>());
    case 4: return launch_with(std::integral_constant<int, 4>());
    default: return launch_with(std::integral_constant<int, 8>());
  }
}
template <class Shape>
void launch_linear_kernel(void (*kernel)(LinearKernelArgs), Queue& queue, LinearKernelArgs k, const LinearPlan& plan) {
  // Few tokens wait for memory alone: several blocks to a multiprocessor then, and what every GPU gives without asking.
  const int32_t most = plan.n_tiles <= 2 ? 48 << 10 : 96 << 10;
  constexpr int32_t kMostStages = 4;
  k.num_tiles = static_cast<int32_t>((k.a.w.rows + kTileRows - 1) / kTileRows);
  k.row_blocks = static_cast<int32_t>(plan.row_blocks);
  k.splits = plan.splits;
  k.tile_stage_bytes = Shape::units * k.units.unit_bytes + k.units.most_headers(Shape::units) * k.units.header_bytes;
  k.stage_bytes = 8 * plan.n_tiles * (Shape::x_stride + 8 * Shape::units) + kLinearTiles * k.tile_stage_bytes;
  k.stages = most / k.stage_bytes;
  k.stages = k.stages < 2 ? 2 : k.stages > kMostStages ? kMostStages : k.stages;
  launch(kernel, plan.row_blocks * plan.splits, plan.token_blocks, kLinearWarps * kWarp, k.stages * k.stage_bytes,
         queue, k);
}

}  // namespace bise::gpu
