// Products of integer tiles at the ends of their ranges, and the records of inputs in 8 bits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/tile_packing.h"
#include "support/emulated_avx512.h"
#include "support/op_cases.h"

namespace bise {
namespace {

constexpr int64_t kColumns = 512;

std::vector<const CpuKernels*> every_table() {
  std::vector<const CpuKernels*> tables = {&kScalarKernels, &kEmulatedAvx512Kernels};
#if defined(__x86_64__)
  if (detect_cpu_features().supports(IsaLevel::avx2)) tables.push_back(&kAvx2Kernels);
  if (detect_cpu_features().supports(IsaLevel::avx512)) tables.push_back(&kAvx512Kernels);
#endif
  return tables;
}

std::vector<IntTile> every_int_tile() {
  std::vector<IntTile> tiles;
  for (const test::PartCase& part : test::every_format(16)) {
    const test::RandomWeights weights({part}, kColumns, 1);
    const auto format = tile_format_of(weights.views()[0]);
    if (format && format->integer && std::find(tiles.begin(), tiles.end(), format->ints) == tiles.end()) {
      tiles.push_back(format->ints);
    }
  }
  return tiles;
}

template <class T>
void put(std::vector<uint8_t>& bytes, int64_t at, T value) {
  std::memcpy(&bytes[static_cast<size_t>(at)], &value, sizeof(T));
}

// Scales of 1, large block scales, and codes that are all `code` in every bit.
std::vector<uint8_t> tile_of(const IntTile& t, uint8_t code) {
  std::vector<uint8_t> tile(static_cast<size_t>(tile_bytes(t, kColumns)), code);
  for (int64_t b = 0; b < kColumns / kBlock; ++b) {
    for (int lane = 0; b % t.group_blocks == 0 && lane < kTileRows; ++lane) {
      const int64_t at = header_start(t, b), width = scale_bytes(t.scale);
      for (int64_t p : {at + width * lane, at + width * (kTileRows + lane)}) {
        if (p != at + width * lane && t.minimum != Minimum::value) continue;
        if (t.scale == TileScale::f16) put<uint16_t>(tile, p, 0x3C00);
        if (t.scale == TileScale::bf16) put<uint16_t>(tile, p, 0x3F80);
        if (t.scale == TileScale::f32) put(tile, p, 1.0f);
        if (t.scale == TileScale::e8m0) put<uint8_t>(tile, p, 127);
      }
      if (t.minimum == Minimum::zero_point) put<uint8_t>(tile, at + width * kTileRows + lane, 3);
    }
    for (int i = 0; i < block_scale_bytes(t.block_scales); ++i) put<uint8_t>(tile, block_start(t, b) + i, 0x77);
  }
  return tile;
}

std::vector<uint8_t> quantized(const CpuKernels& kernels, const std::vector<float>& x, int tokens) {
  const int64_t columns = static_cast<int64_t>(x.size()) / tokens, bytes = columns / kBlock * tokens * kTokenRecord;
  std::vector<uint8_t> batch(static_cast<size_t>(bytes) + 64, 0xA5);
  for (int t = 0; t < tokens; t += run_tokens(t, tokens))
    kernels.quantize_run(&x[static_cast<size_t>(t * columns)], columns, t, tokens, batch.data());
  for (size_t i = static_cast<size_t>(bytes); i < batch.size(); ++i) EXPECT_EQ(batch[i], 0xA5) << "behind the records";
  return batch;
}

TEST(tile_products, of_the_largest_codes_and_inputs_do_not_overflow) {
  int layouts = 0;
  for (const IntTile& layout : every_int_tile()) {
    ++layouts;
    for (uint8_t code : {0x00, 0xFF, 0x80, 0x7F}) {
      const std::vector<uint8_t> tile = tile_of(layout, code);
      std::vector<uint8_t> other = tile_of(layout, 0xFF);  // and behind it `tile`
      other.insert(other.end(), tile.begin(), tile.end());
      std::vector<float> w(kColumns);
      unpack_lane(TileFormat{true, {}, layout}, tile.data(), 5, RowFactor{256.0f, 1.0f}, w);
      for (int tokens : {1, 2, 4, 7, 8, 32}) {
        // All alike, and signs that change with the pairs, the quads and the halves of a block.
        std::vector<float> x(static_cast<size_t>(tokens * kColumns));
        for (size_t i = 0; i < x.size(); ++i) {
          const size_t t = i / kColumns, k = i % kColumns;
          x[i] = (k >> (t % 6)) % 2 == 1 && t % 6 != 0 ? -1.0f : t % 2 == 0 ? 1.0f : -1.0f;
        }
        std::vector<float> first;
        for (const CpuKernels* kernels : every_table()) {
          const size_t sums = static_cast<size_t>(tokens * kTileRows);
          std::vector<float> out(kMostIntTiles * sums), two = out;
          const std::vector<uint8_t> inputs = quantized(*kernels, x, tokens);
          kernels->linear_int({layout, kColumns, tile.data(), 0, 1}, inputs.data(), tokens, out.data());
          kernels->linear_int({layout, kColumns, other.data(), static_cast<int64_t>(tile.size()), 2}, inputs.data(),
                              tokens, two.data());
          ASSERT_EQ(std::memcmp(&two[sums], out.data(), sums * 4), 0) << kernels->name << ", the second of two tiles";
          if (code != 0xFF) {
            ASSERT_NE(std::memcmp(two.data(), out.data(), sums * 4), 0) << kernels->name << ", two tiles alike";
          }
          out.resize(sums);
          if (first.empty()) first = out;
          ASSERT_EQ(std::memcmp(out.data(), first.data(), out.size() * 4), 0) << kernels->name << ", " << tokens << " tokens";
        }
        for (int t = 0; t < tokens; ++t) {
          double sum = 0.0, magnitude = 0.0;
          for (size_t k = 0; k < kColumns; ++k) {
            const double product = double{w[k]} * double{x[static_cast<size_t>(t) * kColumns + k]};
            sum += product;
            magnitude += std::fabs(product) + (layout.minimum == Minimum::none ? 0.0 : 256.0);
          }
          const double factor = layout.block_scales == BlockScales::e4m3_halves ? 256.0 : 1.0;
          ASSERT_NEAR(factor * double{first[static_cast<size_t>(t * kTileRows + 5)]}, sum, 1e-5 * magnitude)
              << "codes " << static_cast<int>(layout.codes) << ", offset " << layout.offset << ", token " << t;
        }
      }
    }
  }
  EXPECT_GT(layouts, 20);
}

TEST(tile_products, inputs_stand_in_runs_of_four_two_and_one) {
  constexpr int kTokens = 7;
  std::vector<float> x(kTokens * kColumns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i * i % 1000));
  const std::vector<uint8_t> batch = quantized(kScalarKernels, x, kTokens);
  auto read = [&]<class T>(int64_t at, T) {
    T value;
    std::memcpy(&value, &batch[static_cast<size_t>(at)], sizeof(T));
    return value;
  };
  for (int t = 0; t < kTokens; ++t) {
    const int start = t < 4 ? 0 : t < 6 ? 4 : 6, n = t < 4 ? 4 : t < 6 ? 2 : 1, lane = t - start;
    for (int64_t b = 0; b < kColumns / kBlock; ++b) {
      const int64_t record = (b * kTokens + start) * kTokenRecord;
      const float scale = read(record + kRunScales * n + 4 * lane, 0.0f);
      int sums[3][2] = {};
      for (int k = 0; k < kBlock; ++k) {
        const int code = read(record + 4 * (k / 4 * n + lane) + k % 4, int8_t{});
        EXPECT_NEAR(scale * static_cast<float>(code), x[static_cast<size_t>(t * kColumns + b * kBlock + k)], scale * 0.501f);
        sums[k / 16][k % 4 / 2] += code;
        sums[2][k % 4 / 2] += code;
      }
      for (int part = 0; part < 3; ++part) {
        for (int j = 0; j < 2; ++j) {
          EXPECT_EQ(read(record + kRunPairSums * n + 4 * (part * n + lane) + 2 * j, int16_t{}), sums[part][j]);
        }
      }
      EXPECT_EQ(read(record + kRunScaledSums * n + 4 * lane, 0.0f), scale * static_cast<float>(sums[2][0] + sums[2][1]));
    }
  }
  for (const CpuKernels* kernels : every_table()) EXPECT_EQ(quantized(*kernels, x, kTokens), batch) << kernels->name;
}

TEST(tile_products, inputs_of_every_magnitude_have_the_same_records_on_every_instruction_set) {
  // Blocks of one magnitude, from subnormals to the largest numbers; halves lie between two codes.
  const float tops[] = {0.0f,   -0.0f,  0x1p-149f, 0x1p-120f, 0x1.fffffep-120f, 0x1p-119f,
                        1e-30f, 127.0f, -127.0f,   3.0f,      0x1.fffffep127f};
  for (int tokens : {1, 2, 3, 4, 32}) {
    for (int64_t blocks : {1, 3, 4, 7}) {
      std::vector<float> x(static_cast<size_t>(tokens * blocks * kBlock));
      for (size_t i = 0; i < x.size(); ++i) {
        const float top = tops[(i / kBlock) % std::size(tops)];
        x[i] =
            i % kBlock == i / kBlock % kBlock ? top : top / 127.0f * (static_cast<float>(i * 37 % 255) * 0.5f - 63.5f);
      }
      const std::vector<uint8_t> expected = quantized(kScalarKernels, x, tokens);
      for (const CpuKernels* kernels : every_table())
        EXPECT_EQ(quantized(*kernels, x, tokens), expected) << kernels->name;
    }
  }
}

TEST(tile_products, a_block_with_an_infinity_or_a_nan_has_no_codes_and_the_scale_nan) {
  constexpr int kTokens = 5;
  constexpr int64_t kBlocks = 5;
  for (const float fault : {INFINITY, -INFINITY, NAN, -NAN}) {
    for (int64_t at = 0; at < kTokens * kBlocks * kBlock; at += 13) {
      std::vector<float> x(kTokens * kBlocks * kBlock, 1.0f);
      x[static_cast<size_t>(at)] = fault;
      for (const CpuKernels* kernels : every_table()) {
        const std::vector<uint8_t> batch = quantized(*kernels, x, kTokens);
        for (int t = 0; t < kTokens; ++t) {
          const int start = t < 4 ? 0 : 4, n = t < 4 ? 4 : 1;
          for (int64_t b = 0; b < kBlocks; ++b) {
            const uint8_t* record = &batch[static_cast<size_t>((b * kTokens + start) * kTokenRecord + 4 * (t - start))];
            float scale, scaled_sum;
            std::memcpy(&scale, record + kRunScales * n, 4);
            std::memcpy(&scaled_sum, record + kRunScaledSums * n, 4);
            const bool here = at / kBlock == t * kBlocks + b;
            EXPECT_EQ(std::isnan(scale), here) << kernels->name;
            EXPECT_EQ(std::isnan(scaled_sum), here) << kernels->name;
            for (int k = 0; k < kBlock; ++k)
              EXPECT_EQ(record[4 * (k / 4 * n) + k % 4], here ? 0 : 127) << kernels->name;
            EXPECT_EQ(record[(kRunPairSums + 8) * n], here ? 0 : (16 * 127) % 256) << kernels->name;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace bise
