// Products of many rows through panels of BF16 (panel_kernels.h): who takes that path, and how a product
// is cut.
//
// A thread takes a block of tiles. Along the columns, in pieces that leave room for both panels in the
// nearest caches, it decodes each tile once and multiplies it with all runs of x: decoding costs about as
// much as multiplying with 80 rows. Sums wait in the thread's memory until the last piece.
#pragma once

#include <functional>
#include <vector>

#include "backend/buffer.h"
#include "backend/cpu/packed_weight.h"
#include "backend/cpu/panel_kernels.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace bise {

class CpuPanels {
 public:
  // `kernels` may be null: no product is taken then.
  CpuPanels(const PanelKernels* kernels, ThreadPool& pool);

  // Whether a product with these tiles goes through panels. On AMX few rows do not: their time is that of
  // reading the weights, and the other kernels keep the inputs' bits.
  bool takes(const TileFormat& tiles, int64_t rows) const;

  // x for the products that follow, rounded to BF16. Error: no memory.
  Result<void> set_input(MatrixView x);

  // Tiles [first, first + count) of a segment, one behind the other; null ends the worker's part.
  using Tiles = std::function<const uint8_t*(int64_t first, int64_t count, int worker)>;
  // `tiles`: asked for at most kFewTiles at a time, and once for each.
  enum class Split { tiles, tiles_and_rows };
  static constexpr int64_t kFewTiles = 4;
  // y = x W^T, or y += x W^T, for tiles [first, first + count) of the segment. Rows of x are split among
  // threads when there are fewer blocks of tiles than threads. Error: no memory.
  Result<void> multiply(const WeightSegment& segment, int64_t first, int64_t count, Split split,
                        const Tiles& tiles, MatrixView y, bool accumulate);

 private:
  struct Block;
  struct Scratch {
    Buffer panel, sums;
  };
  Result<void> reserve(int64_t runs);
  void multiply_block(const WeightSegment& segment, const uint8_t* data, const Block& block, Scratch& scratch,
                      MatrixView y, bool accumulate) const;
  // The sums of a block: by the kernel that takes FP8 codes, or through panels of some steps at a time.
  void multiply_codes(const WeightSegment& segment, const uint8_t* data, const Block& block, float* sums) const;
  void multiply_pieces(const WeightSegment& segment, const uint8_t* data, const Block& block, uint16_t* panel,
                       float* sums) const;

  const PanelKernels* kernels_;
  ThreadPool& pool_;
  Buffer input_;                  // [runs][steps]
  int64_t rows_ = 0, columns_ = 0;  // of x
  std::vector<Scratch> scratch_;  // one per thread
};

// y[token + i] = sums[i], or += it, for the rows of tile `tile`: with their factors, which are applied to
// `sums` [tokens][16] in place.
void store_sums(const WeightSegment& segment, int64_t tile, float* sums, int64_t token, int64_t tokens,
                MatrixView y, bool accumulate);

}  // namespace bise
