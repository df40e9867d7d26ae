#include "backend/cpu/tile_packing.h"

#include <gtest/gtest.h>

#include "backend/cpu/cpu_features.h"
#include "support/op_cases.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

using namespace test;

// `lanes` rows from `first` on, packed in runs as products do.
std::vector<uint8_t> packed(PackRows pack, const WeightView& view, const TileFormat& format, int64_t first, int lanes) {
  constexpr size_t kGuard = 64;
  constexpr uint8_t kGuardByte = 0xA5;
  std::vector<uint8_t> tile(format.tile_bytes(view.columns) + kGuard);
  std::fill(tile.end() - kGuard, tile.end(), kGuardByte);
  std::vector<PlacedRow> rows;
  for (int r = 0; r < lanes; ++r) rows.push_back({&view, first + r});
  for (int64_t k = 0; k < view.columns; k += kPackColumns) {
    pack_rows_with(pack, rows, format, k, std::min(view.columns, k + kPackColumns), tile.data());
  }
  EXPECT_TRUE(std::all_of(tile.end() - kGuard, tile.end(), [](uint8_t b) { return b == kGuardByte; }));
  return tile;
}

TEST(tile_packing, every_table_writes_the_same_bytes_and_the_decoder_s_weights_come_back) {
  constexpr int64_t kRows = 40, kColumns = 1280;
  std::vector<PackRows> tables = {pack_rows_scalar};
  if (detect_cpu_features().supports(IsaLevel::avx2)) tables.push_back(pack_rows_avx2);
  int formats = 0;
  for (const PartCase& part : every_format(kRows)) {
    const RandomWeights weights({part}, kColumns, 3);
    const WeightView& view = weights.views()[0];
    const auto format = tile_format_of(view);
    if (!format) continue;
    ++formats;
    SCOPED_TRACE(describe_format(view));
    for (int lanes : {16, 7, 4, 3, 1}) {
      for (int64_t first : {int64_t{0}, int64_t{16}}) {
        const std::vector<uint8_t> tile = packed(tables[0], view, *format, first, lanes);
        for (PackRows table : tables) EXPECT_EQ(packed(table, view, *format, first, lanes), tile);
        std::vector<float> expected(kColumns), found(kColumns);
        for (int lane = 0; lane < lanes; ++lane) {
          decode_row(view, first + lane, expected);
          unpack_lane(*format, tile.data(), lane, row_factor(view, first + lane), found);
          ASSERT_EQ(found, expected) << "row " << first + lane;
        }
      }
    }
  }
  EXPECT_GT(formats, 40);
}

}  // namespace
}  // namespace bise
