#include "tensor/random_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace bise {
namespace {

constexpr double kDeviation = 0.02;
constexpr int64_t kRows = 128, kColumns = 2048;

class RandomWeight : public ::testing::TestWithParam<FormatId> {};

std::vector<std::byte> codes_of(FormatId id, uint64_t stream) {
  const uint64_t bytes = weight_row_bytes(weight_format(id), kColumns).value() * kRows;
  std::vector<std::byte> codes(bytes);
  fill_random_weight(id, kDeviation, 7, stream, 0, codes);
  return codes;
}

TEST_P(RandomWeight, has_mean_0_the_asked_deviation_and_finite_values) {
  std::vector<std::byte> codes = codes_of(GetParam(), 1);
  WeightView view = make_weight_view(GetParam(), kRows, kColumns, codes, "w").value();
  const float scale = random_fp8_scale(kDeviation);
  view.scale = {.name = "s", .dtype = DType::f32, .shape = {}, .bytes = std::as_bytes(std::span(&scale, 1)), .ggml_type = -1};
  std::vector<float> row(kColumns);
  double sum = 0.0, squares = 0.0;
  for (int64_t r = 0; r < kRows; ++r) {
    decode_row(view, r, row);
    for (float x : row) {
      ASSERT_TRUE(std::isfinite(x));
      sum += x;
      squares += double{x} * x;
    }
  }
  const double count = static_cast<double>(kRows * kColumns), mean = sum / count;
  EXPECT_LT(std::fabs(mean), 0.03 * kDeviation);
  EXPECT_NEAR(std::sqrt(squares / count - mean * mean), kDeviation, 0.03 * kDeviation);
}

TEST_P(RandomWeight, is_the_same_bytes_in_any_pieces_and_others_in_another_stream) {
  const std::vector<std::byte> whole = codes_of(GetParam(), 1);
  const size_t block = static_cast<size_t>(weight_format(GetParam()).block_bytes), blocks = whole.size() / block;
  std::vector<std::byte> pieces(whole.size());
  for (size_t first = 0, count = 1; first < blocks; first += count, count = count * 2 + 1) {
    const size_t here = std::min(count, blocks - first);
    fill_random_weight(GetParam(), kDeviation, 7, 1, first, std::span(pieces).subspan(first * block, here * block));
  }
  EXPECT_EQ(whole, pieces);
  EXPECT_NE(whole, codes_of(GetParam(), 2));
}

TEST(random_weight, is_there_for_every_type_of_GGUF) {
  for (const WeightFormat& format : weight_formats()) {
    if (format.ggml_type < 0) continue;
    EXPECT_TRUE(has_random_weight(format.id)) << format.name;
  }
}

std::vector<FormatId> all_formats() {
  std::vector<FormatId> ids;
  for (const WeightFormat& format : weight_formats()) {
    if (has_random_weight(format.id)) ids.push_back(format.id);
  }
  return ids;
}
INSTANTIATE_TEST_SUITE_P(Formats, RandomWeight, ::testing::ValuesIn(all_formats()),
                         [](const auto& tested) { return std::string(weight_format(tested.param).name); });

}  // namespace
}  // namespace bise
