#include "backend/cuda/linear.cuh"
#include "backend/cuda/linear_kernels.h"

namespace bise::gpu {
namespace {

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
BISE_DEVICE void load_pair(const uint8_t* p, int g, int t, uint32_t (&row0)[weight_planes<codes>()],
                           uint32_t (&row8)[weight_planes<codes>()]) {
  if constexpr (codes == FloatCodes::bf16) {
    load_rows(p + 4 * g, t, row0[0], row8[0]);
  } else if constexpr (codes == FloatCodes::e4m3) {
    const uint32_t w = load_word(p + 4 * g);
    row0[0] = e4m3_to_bf16x2(byte_permute(w, 0, 0x4140));
    row8[0] = e4m3_to_bf16x2(byte_permute(w, 0, 0x4342));
  } else if constexpr (codes == FloatCodes::f16) {
    const uint32_t first = load_word(p + 4 * g), second = load_word(p + 2 * kTileRows + 4 * g);
    split_pair<2>(f16_to_f32(static_cast<uint16_t>(first)), f16_to_f32(static_cast<uint16_t>(second)), row0);
    split_pair<2>(f16_to_f32(static_cast<uint16_t>(first >> 16)), f16_to_f32(static_cast<uint16_t>(second >> 16)),
                  row8);
  } else {
    split_pair<3>(bits_to_float(load_word(p + 4 * g)), bits_to_float(load_word(p + 4 * (kTileRows + g))), row0);
    split_pair<3>(bits_to_float(load_word(p + 4 * (g + 8))), bits_to_float(load_word(p + 4 * (kTileRows + g + 8))),
                  row8);
  }
}

template <FloatCodes codes, bool has_groups, int n_tiles>
struct FloatDecoder {
  static constexpr int kPlanes = weight_planes<codes>();

  const LinearKernelArgs& k;
  int g, t;
  int32_t in_group = 0;  // units of the group that are done
  bool starts_part = true;
  float scale[kWarpTiles][2] = {};
  Sums<n_tiles> part[kWarpTiles] = {};

  BISE_DEVICE FloatDecoder(const LinearKernelArgs& args, int row, int column) : k(args), g(row), t(column) {}

  static BISE_DEVICE int tile_row(int fragment_row) { return float_row<codes>(fragment_row); }

  BISE_DEVICE void read_header(int tile, const uint8_t* header) {
    scale[tile][0] = tile_scale(k.a.w.floats.scale, header, float_row<codes>(g));
    scale[tile][1] = tile_scale(k.a.w.floats.scale, header, float_row<codes>(g + 8));
  }

  template <class Stages>
  BISE_DEVICE void begin_range(const Stages& stages, int32_t begin) {
    if constexpr (!has_groups) return;
    in_group = has_groups ? begin % k.units.per_group : 0;
    if (in_group == 0) return;
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      if (!stages.has_tile(tile)) continue;
      read_header(tile, k.a.w.tiles + static_cast<uint64_t>(stages.first_tile + tile) * k.a.w.tile_bytes +
                            k.units.span_begin(begin - in_group));
    }
  }

  // Whole stages, and groups that stages divide, have everything where the compiler knows.
  BISE_DEVICE void stage(StageCursor cursor, int32_t unit, int32_t count, bool ends_range,
                         Sums<n_tiles> (&sums)[kWarpTiles]) {
    constexpr int kUnits = FloatStage<codes>::units;
    const bool is_whole = count == kUnits && 16 * (unit + kUnits) <= k.a.w.columns;
    if (is_whole && (!has_groups || k.units.per_group % kUnits == 0))
      units<true>(cursor, unit, count, ends_range, sums);
    else units<false>(cursor, unit, count, ends_range, sums);
  }
  template <bool is_whole>
  BISE_DEVICE void units(StageCursor& cursor, int32_t first, int32_t count, bool ends_range,
                         Sums<n_tiles> (&sums)[kWarpTiles]) {
    constexpr int kUnits = FloatStage<codes>::units;
    BISE_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      if (!is_whole && u >= count) break;
      bool ends = false;
      const bool begins = has_groups && (!is_whole || u == 0) && in_group == 0,
                 from_zero = has_groups && (!is_whole || u == 0) && starts_part;
      if (has_groups && (!is_whole || u + 1 == kUnits)) {
        in_group += is_whole ? kUnits : 1;
        ends = in_group == k.units.per_group;
        if (ends) in_group = 0;
      }
      starts_part = has_groups && (ends || (ends_range && u + 1 == (is_whole ? kUnits : count)));
      unit<is_whole>(cursor, first + u, u, begins, from_zero, starts_part, sums);
    }
  }

  // begins: a header comes first. from_zero: `part` starts here. ends_part: and here it is added to the sums.
  template <bool is_whole>
  BISE_DEVICE void unit(StageCursor& cursor, int32_t unit, int in_stage, bool begins, bool from_zero, bool ends_part,
                        Sums<n_tiles> (&sums)[kWarpTiles]) {
    constexpr int kPairBytes = 2 * kTileRows * code_bytes(codes);  // of two columns
    if (begins) {
      BISE_UNROLL
      for (int tile = 0; tile < kWarpTiles; ++tile) read_header(tile, cursor.tile[tile]);
      cursor.skip(k.units.header_bytes);
    }
    uint32_t w[kWarpTiles][2][2][kPlanes] = {};  // [tile][pair][row]
    BISE_UNROLL
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      BISE_UNROLL
      for (int pair = 0; pair < 2; ++pair) {
        if (!is_whole && 16 * unit + 8 * pair + 2 * t >= k.a.w.columns) continue;
        load_pair<codes>(cursor.tile[tile] + (4 * pair + t) * kPairBytes, g, t, w[tile][pair][0], w[tile][pair][1]);
      }
    }
    cursor.skip(8 * kPairBytes);
    BISE_UNROLL
    for (int n = 0; n < n_tiles; ++n) {
      const uint8_t* x = cursor.x + 8 * n * FloatStage<codes>::x_stride + 32 * in_stage + 4 * t;
      const uint32_t b0 = load_word(x), b1 = load_word(x + 16);
      BISE_UNROLL
      for (int tile = 0; tile < kWarpTiles; ++tile) {
        BISE_UNROLL
        for (int q = 0; q < kPlanes; ++q) {
          const uint32_t fragment[4] = {w[tile][0][0][q], w[tile][0][1][q], w[tile][1][0][q], w[tile][1][1][q]};
          if (from_zero && q == 0) mma_bf16_from_zero(part[tile][n], fragment, b0, b1);
          else mma_bf16(has_groups ? part[tile][n] : sums[tile][n], fragment, b0, b1);
        }
      }
    }
    if constexpr (has_groups) {
      if (!ends_part) return;
      BISE_UNROLL
      for (int tile = 0; tile < kWarpTiles; ++tile) add_scaled<n_tiles>(scale[tile], part[tile], sums[tile]);
    }
  }
};

template <FloatCodes codes, bool has_groups, int n_tiles>
BISE_KERNEL_OF(kLinearWarps* kWarp, blocks_at_once(n_tiles))
linear_float(const LinearKernelArgs k) {
  linear<FloatStage<codes>, FloatDecoder<codes, has_groups, n_tiles>, n_tiles>(k);
}

}  // namespace

bool launch_linear_float(Queue& queue, LinearKernelArgs k, const LinearPlan& plan) {
  const FloatTile& tile = k.a.w.floats;
  if (tile.group_columns % 16 != 0) return false;
  const bool has_groups = tile.group_columns != 0;
  CHECK(!has_groups || tile.codes == FloatCodes::e4m3);
  k.units = {static_cast<int32_t>((k.a.w.columns + 15) / 16),
             static_cast<int32_t>(tile.group_columns / 16),
             kTileRows * scale_bytes(tile.scale),
             16 * kTileRows * code_bytes(tile.codes),
             static_cast<int32_t>(k.a.w.tile_bytes),
             256 / 16};
  auto take = [&]<FloatCodes codes, bool groups>() {
    with_n_tiles(plan.n_tiles, [&](auto n) {
      launch_linear_kernel<FloatStage<codes>>(linear_float<codes, groups, n()>, queue, k, plan);
    });
  };
  switch (tile.codes) {
    case FloatCodes::f32: take.template operator()<FloatCodes::f32, false>(); break;
    case FloatCodes::f16: take.template operator()<FloatCodes::f16, false>(); break;
    case FloatCodes::bf16: take.template operator()<FloatCodes::bf16, false>(); break;
    case FloatCodes::e4m3:
      if (has_groups) take.template operator()<FloatCodes::e4m3, true>();
      else take.template operator()<FloatCodes::e4m3, false>();
      break;
  }
  return true;
}

}  // namespace bise::gpu
