#include "backend/cpu/cpu_panels.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_memory.h"

namespace bise {
namespace {

// The pieces that a product is cut into. With 2 tiles of weights and 2 runs of x for 256 columns the four
// take 32 KiB of the first cache, and sums are loaded and stored every 512 cycles of products. 16 tiles of
// panel (128 KiB), 16 runs of x for them (128 KiB) and the sums of all their runs (1 MiB) stay in the second.
constexpr int64_t kPieceSteps = 8;
constexpr int64_t kBlockTiles = 16;
constexpr int64_t kBlockRuns = 16;
// With few rows weights pass through once: panels of 4 tiles stay in the first cache.
constexpr int64_t kFewRows = 8, kFewSteps = 4;
constexpr int64_t kMostRuns = 64;  // for which sums wait; more rows decode the weights again
constexpr int64_t kBlocksPerThread = 3;

int64_t round_up_to(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
int64_t ceil_of(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Such tiles are panels already.
bool is_panel(const TileFormat& tiles, int64_t columns) {
  return !tiles.integer && tiles.floats.codes == FloatCodes::bf16 && tiles.floats.scale == TileScale::none &&
         columns % kStepColumns == 0;
}

// Such tiles are multiplied with few rows as they are.
bool is_bare_e4m3(const TileFormat& tiles, int64_t columns) {
  return !tiles.integer && tiles.floats.codes == FloatCodes::e4m3 && tiles.floats.scale == TileScale::none &&
         columns % kStepColumns == 0;
}

// Where the bytes of a step begin in a tile; a step of integers that begins a group has a header.
int64_t step_start(const TileFormat& tiles, int64_t step) {
  if (!tiles.integer) return column_start(tiles.floats, step * kStepColumns);
  return step % tiles.ints.group_blocks == 0 ? header_start(tiles.ints, step) : block_start(tiles.ints, step);
}

}  // namespace

struct CpuPanels::Block {
  int64_t first_tile, tiles;
  int64_t first_run, runs;
};

CpuPanels::CpuPanels(const PanelKernels* kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), scratch_(static_cast<size_t>(pool.num_threads())) {}

bool CpuPanels::takes(const TileFormat& tiles, int64_t rows) const {
  if (kernels_ == nullptr) return false;
  if (tiles.integer) return rows >= kernels_->int_rows;
  const bool rounded = tiles.floats.codes == FloatCodes::f16 || tiles.floats.codes == FloatCodes::f32;
  return rows >= kernels_->float_rows && (kernels_->rounds_weights || !rounded);
}

Result<void> CpuPanels::set_input(MatrixView x) {
  const int64_t runs = ceil_of(x.rows, kTileRows), run_elements = steps_of(x.columns) * kStepElements;
  const uint64_t bytes = static_cast<uint64_t>(runs * run_elements) * sizeof(uint16_t);
  if (input_.bytes() < bytes) {
    input_ = Buffer();
    input_ = TRY(allocate_host(bytes, "the inputs of a product"));
  }
  rows_ = x.rows;
  columns_ = x.columns;
  auto* to = static_cast<uint16_t*>(input_.data());
  pool_.parallel_for(runs, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t run = begin; run < end; ++run) {
      const int rows = static_cast<int>(std::min<int64_t>(kTileRows, x.rows - run * kTileRows));
      kernels_->round_run(x.row_f32(run * kTileRows), x.columns, rows, x.columns, to + run * run_elements);
    }
  });
  return {};
}

Result<void> CpuPanels::reserve(int64_t runs) {
  const uint64_t panel = kBlockTiles * kPieceSteps * kStepElements * sizeof(uint16_t);
  const uint64_t sums = static_cast<uint64_t>(kBlockTiles * runs * kTileSums) * sizeof(float);
  for (Scratch& s : scratch_) {
    if (s.panel.bytes() < panel) s.panel = TRY(allocate_host(panel, "a panel of weights"));
    if (s.sums.bytes() < sums) {
      s.sums = Buffer();
      s.sums = TRY(allocate_host(sums, "the sums of a product"));
    }
  }
  return {};
}

Result<void> CpuPanels::multiply(const WeightSegment& segment, int64_t first, int64_t count, Split split,
                                 const Tiles& tiles, MatrixView y, bool accumulate) {
  const int64_t threads = pool_.num_threads(), runs = ceil_of(rows_, kTileRows);
  const int64_t block_tiles =
      std::clamp<int64_t>(round_up_to(ceil_of(count, threads * kBlocksPerThread), 2), 2,
                          split == Split::tiles ? kFewTiles : kBlockTiles);
  const int64_t blocks = ceil_of(count, block_tiles);
  int64_t shares = 1;  // of the rows
  if (split == Split::tiles_and_rows && blocks < threads) shares = std::min(ceil_of(threads, blocks), ceil_of(runs, 2));
  const int64_t share = round_up_to(ceil_of(runs, shares), 2);
  // Evenly: 65 runs are not 64 and 1.
  const int64_t parts = ceil_of(share, kMostRuns), part = round_up_to(ceil_of(share, parts), 2);
  TRY(reserve(part));
  pool_.parallel_for(blocks * shares, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) {
      Block block;
      block.first_tile = first + task / shares * block_tiles;
      block.tiles = std::min(block_tiles, first + count - block.first_tile);
      const int64_t first_run = task % shares * share, end_run = std::min(runs, first_run + share);
      if (first_run >= end_run) continue;
      const uint8_t* data = tiles(block.first_tile, block.tiles, worker);
      if (data == nullptr) return;
      const int64_t end_tile = block.first_tile + block.tiles, at_once = rows_ <= kFewRows ? kFewTiles : block.tiles;
      for (; block.first_tile < end_tile; block.first_tile += at_once, data += static_cast<size_t>(at_once) * segment.tile_bytes) {
        block.tiles = std::min(at_once, end_tile - block.first_tile);
        for (block.first_run = first_run; block.first_run < end_run; block.first_run += part) {
          block.runs = std::min(part, end_run - block.first_run);
          multiply_block(segment, data, block, scratch_[static_cast<size_t>(worker)], y, accumulate);
        }
      }
    }
  });
  return {};
}

void CpuPanels::multiply_block(const WeightSegment& s, const uint8_t* data, const Block& block,
                               Scratch& scratch, MatrixView y, bool accumulate) const {
  auto* sums = static_cast<float*>(scratch.sums.data());
  if (kernels_->multiply_e4m3 != nullptr && rows_ <= kCodeRows && is_bare_e4m3(*s.tiles, columns_)) {
    multiply_codes(s, data, block, sums);
  } else {
    multiply_pieces(s, data, block, static_cast<uint16_t*>(scratch.panel.data()), sums);
  }
  for (int64_t i = 0; i < block.tiles; ++i) {
    const int64_t token = block.first_run * kTileRows;
    store_sums(s, block.first_tile + i, sums + i * block.runs * kTileSums, token,
               std::min(rows_ - token, block.runs * kTileRows), y, accumulate);
  }
}

void CpuPanels::multiply_codes(const WeightSegment& s, const uint8_t* data, const Block& block, float* sums) const {
  const int64_t steps = steps_of(columns_);
  PanelProduct p;
  p.x = static_cast<const uint16_t*>(input_.data()) + block.first_run * steps * kStepElements;
  p.x_stride = steps * kStepElements;
  p.runs = 1;
  p.last_rows = static_cast<int>(rows_);
  p.codes = data;
  p.codes_stride = static_cast<int64_t>(s.tile_bytes);
  p.tiles = block.tiles;
  p.steps = steps;
  p.sums = sums;
  p.sums_stride = block.runs * kTileSums;
  kernels_->multiply_e4m3(p);
}

void CpuPanels::multiply_pieces(const WeightSegment& s, const uint8_t* data, const Block& block, uint16_t* panel,
                                float* sums) const {
  const int64_t steps = steps_of(columns_), tile_bytes = static_cast<int64_t>(s.tile_bytes);
  const bool stored_panel = is_panel(*s.tiles, columns_), few = rows_ <= kFewRows;
  // Few rows read a stored panel as memory likes it best: whole tiles from end to end.
  const int64_t piece = !few ? kPieceSteps : stored_panel ? steps : kFewSteps;
  const auto* input = static_cast<const uint16_t*>(input_.data()) + block.first_run * steps * kStepElements;
  for (int64_t step = 0; step < steps; step += piece) {
    PanelProduct p;
    p.steps = std::min(piece, steps - step);
    p.tiles = block.tiles;
    p.x_stride = steps * kStepElements;
    p.sums_stride = block.runs * kTileSums;
    p.add = step > 0;
    p.weights_pass = stored_panel && few;
    if (stored_panel) {
      p.weights = reinterpret_cast<const uint16_t*>(data) + step * kStepElements;
      p.weights_stride = tile_bytes / static_cast<int64_t>(sizeof(uint16_t));
    } else {
      p.weights = panel;
      p.weights_stride = piece * kStepElements;
      for (int64_t i = 0; i < block.tiles; ++i) {
        const auto decode = [&](auto* decoder, const auto& layout) {
          decoder(layout, data + i * tile_bytes, columns_, step, p.steps, panel + i * p.weights_stride);
        };
        if (s.tiles->integer) decode(kernels_->int_panel, s.tiles->ints);
        else decode(kernels_->float_panel, s.tiles->floats);
      }
    }
    // The next piece of the weights comes from memory while this one is multiplied.
    const int64_t next = step + piece, after = std::min(steps, next + piece);
    if (next < steps) {
      const int64_t from = step_start(*s.tiles, next);
      const int64_t to = after < steps ? step_start(*s.tiles, after) : tile_bytes;
      p.ahead = data + from;
      p.ahead_stride = tile_bytes;
      p.ahead_bytes = to - from;
    }
    for (int64_t run = 0; run < block.runs; run += kBlockRuns) {
      p.runs = std::min(kBlockRuns, block.runs - run);
      p.x = input + run * p.x_stride + step * kStepElements;
      p.last_rows = static_cast<int>(std::min<int64_t>(kTileRows, rows_ - (block.first_run + run + p.runs - 1) * kTileRows));
      p.sums = sums + run * kTileSums;
      kernels_->multiply(p);
      p.ahead_bytes = 0;
    }
  }
}

void store_sums(const WeightSegment& s, int64_t tile, float* sums, int64_t token, int64_t tokens,
                MatrixView y, bool accumulate) {
  const int64_t first = tile * kTileRows, lanes = std::min<int64_t>(kTileRows, s.rows - first);
  auto store = [&](int64_t count) {
    for (int64_t i = 0; i < tokens; ++i) {
      float* to = y.row_f32(token + i) + s.first_row + first;
      float* from = sums + i * kTileRows;
      if (!s.row_factors.empty()) {
        const RowFactor* factors = &s.row_factors[static_cast<size_t>(first)];
        for (int64_t r = 0; r < count; ++r) from[r] = from[r] * factors[r].times / factors[r].over;
      }
      if (accumulate) {
        for (int64_t r = 0; r < count; ++r) to[r] += from[r];
      } else {
        std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
      }
    }
  };
  if (lanes == kTileRows) store(kTileRows);  // a constant count: vectors
  else store(lanes);
}

}  // namespace bise
