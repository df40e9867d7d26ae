// Reading and decoding of codes in groups against weights that were packed bit by bit.
#include "tensor/group_codes.h"

#include <gtest/gtest.h>

#include <deque>

#include "io/file_builders.h"
#include "support/group_weights.h"

namespace bise {
namespace {

using test::GroupCase;
using test::GroupWeight;

std::string name_of(const GroupCase& c) {
  return std::string(weight_format(c.format).name) + " " + std::to_string(c.bits) + " g" +
         std::to_string(c.group) + (c.has_zeros ? " zeros" : "") +
         (c.act_order ? " act-order" : "") + (c.gaps ? " gaps" : "") +
         (c.head != 0 ? " interleaved" : "");
}

TEST(group_codes, every_packing_is_read_and_decoded_as_it_was_written) {
  for (const GroupCase& c : test::every_group_case()) {
    SCOPED_TRACE(name_of(c));
    const int64_t rows = 64, columns = 320;
    GroupWeight weight(c, rows, columns, 11);
    const WeightView& w = weight.view;
    ASSERT_TRUE(check_group_parts(w).has_value());
    EXPECT_EQ(num_groups(w), (columns + w.group - 1) / w.group);
    std::vector<float> values(columns);
    std::vector<uint8_t> codes(columns);
    for (int64_t row = 0; row < rows; ++row) {
      decode_row(w, row, values);
      for (int64_t first : {0, 1, 7, 63, 319}) {
        read_codes(w, row, first, columns - first, codes.data());
        for (int64_t k = first; k < columns; ++k) {
          ASSERT_EQ(codes[static_cast<size_t>(k - first)], weight.code_at(row, k))
              << row << " " << k;
        }
      }
      for (int64_t k = 0; k < columns; ++k) {
        ASSERT_EQ(values[static_cast<size_t>(k)], weight.value_at(row, k)) << row << " " << k;
      }
    }
    const int64_t step = weight_format(w.format).block_elements;
    for (int64_t first = step == 1 ? 5 : step; first < columns; first += step == 1 ? 37 : step) {
      std::vector<float> part(
          static_cast<size_t>(std::min<int64_t>(step == 1 ? 41 : step, columns - first)));
      weight_format(w.format).decode(w, 3, first, part);
      for (size_t i = 0; i < part.size(); ++i)
        ASSERT_EQ(part[i], weight.value_at(3, first + static_cast<int64_t>(i)));
    }
  }
}

TEST(group_codes, one_scale_of_the_whole_matrix_holds_for_every_row) {
  GroupWeight weight({FormatId::int8_plain, 8, 1 << 20}, 32, 64, 1);
  WeightView w = weight.view;
  const std::string scale("\x00\x40", 2);  // 2
  w.scale = {"scale", DType::bf16, {1}, as_bytes(scale), -1};
  std::vector<float> row(64);
  for (int64_t r : {0, 31}) {
    decode_row(w, r, row);
    for (int64_t k = 0; k < 64; ++k)
      EXPECT_EQ(row[static_cast<size_t>(k)], 2.0f * (weight.code_at(r, k) - 128));
  }
}

TEST(group_codes, published_words_decode_to_the_published_codes) {
  // Symmetric 4-bit codes -8 -7 -1 0 1 2 6 7, and three dense bits across words.
  WeightView w;
  w.format = FormatId::int_packed;
  w.rows = 1;
  w.columns = w.group = 8;
  w.bits = 4;
  const std::string four("\x10\x87\xA9\xFE", 4);
  w.codes = as_bytes(four);
  uint8_t out[32];
  read_codes(w, 0, 0, 8, out);
  const int q[8] = {-8, -7, -1, 0, 1, 2, 6, 7};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(out[i] - code_offset(w), q[i]);
  w.bits = 3;
  w.columns = w.group = 32;
  const int t[8] = {-3, 2, -1, -4, 1, -2, 3, 0};
  const uint32_t dense[3] = {0xF19D50F1, 0x50F19D50, 0x9D50F19D};
  w.codes = Bytes(reinterpret_cast<const std::byte*>(dense), sizeof dense);
  read_codes(w, 0, 0, 32, out);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i] - 4, t[i % 8]);
  const uint32_t old[4] = {0x319D50F1, 0x03C67543, 0x150F19D5, 0x00000027};
  w.codes = Bytes(reinterpret_cast<const std::byte*>(old), sizeof old);
  w.codes_per_word = 10;
  read_codes(w, 0, 0, 32, out);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i] - 4, t[i % 8]);
}

TEST(group_codes, scale_bits_are_those_of_the_file) {
  GroupWeight bf16({FormatId::int_packed, 4, 32}, 32, 64, 2);
  EXPECT_EQ(scale_type(bf16.view), ScaleType::bf16);
  EXPECT_EQ(bf16_to_f32(static_cast<uint16_t>(scale_bits(bf16.view, 5, 1))),
            scale_value(bf16.view, 5, 1));
  GroupWeight nvfp4({FormatId::nvfp4, 4, 16, DType::f8_e4m3}, 32, 64, 2);
  EXPECT_EQ(scale_type(nvfp4.view), ScaleType::e4m3);
  EXPECT_EQ(e4m3_to_f32(static_cast<uint8_t>(scale_bits(nvfp4.view, 5, 1))) / 96.0f,
            scale_value(nvfp4.view, 5, 1));
  GroupWeight mx({FormatId::mxfp8, 8, 32, DType::u8}, 32, 64, 2);
  EXPECT_EQ(scale_type(mx.view), ScaleType::e8m0);
  EXPECT_EQ(e8m0_to_f32(static_cast<uint8_t>(scale_bits(mx.view, 5, 1))),
            scale_value(mx.view, 5, 1));
  EXPECT_EQ(zero_kind(mx.view), ZeroKind::none);
  EXPECT_EQ(code_kind(mx.view), CodeKind::e4m3);
  GroupWeight mlx({FormatId::mlx_affine, 4, 32, DType::f16, true}, 32, 64, 2);
  EXPECT_EQ(zero_kind(mlx.view), ZeroKind::bias);
  EXPECT_EQ(f16_to_f32(static_cast<uint16_t>(bias_bits(mlx.view, 5, 1))),
            bias_value(mlx.view, 5, 1));
}

// ggml reads the byte of a scale without its sign, and 7F as zero.
TEST(group_codes, nvfp4_blocks_of_gguf_read_scale_bytes_as_ggml_does) {
  std::string block(36, 0x11);         // code 1 = 0.5
  block[0] = static_cast<char>(0xB8);  // 1, with a sign
  block[1] = 0x7F;
  block[2] = 0x00;
  block[3] = static_cast<char>(0xFF);
  auto weight = make_weight_view(FormatId::nvfp4_gguf, 1, 64, as_bytes(block), "w");
  ASSERT_TRUE(weight.has_value());
  std::vector<float> row(64);
  decode_row(*weight, 0, row);
  EXPECT_EQ(row[0], 0.5f);
  for (int k : {16, 32, 48}) EXPECT_EQ(row[static_cast<size_t>(k)], 0.0f);
}

TEST(group_codes, values_that_cannot_be_are_refused_with_their_place) {
  auto with_bytes = [](WeightView w, TensorView WeightView::*part, size_t at,
                       std::initializer_list<int> bytes) {
    static std::deque<std::string> held;  // views stay valid
    held.emplace_back(as_text((w.*part).bytes));
    for (int byte : bytes) held.back()[at++] = static_cast<char>(byte);
    (w.*part).bytes = as_bytes(held.back());
    return check_group_parts(w);
  };
  GroupWeight bf16({FormatId::int_packed, 4, 32}, 32, 64, 3);
  test::expect_error(with_bytes(bf16.view, &WeightView::scale, 14, {0x80, 0x7F}),
                     "tensor random.scale: found inf at [3, 1], expected finite");
  test::expect_error(with_bytes(bf16.view, &WeightView::scale, 4, {0xC0, 0x7F}), "nan at [1, 0]");
  GroupWeight f16({FormatId::gptq, 4, 32, DType::f16}, 32, 64, 3);
  test::expect_error(with_bytes(f16.view, &WeightView::scale, 0, {0x00, 0xFC}), "-inf at [0, 0]");
  test::expect_error(
      with_bytes(f16.view, &WeightView::zero, 0, {0xF0}),
      "tensor random.qzeros: found the zero point 16 for row 1, group 0, expected 0 to 15");
  GroupWeight mx({FormatId::mxfp4, 4, 32, DType::u8}, 32, 64, 3);
  test::expect_error(with_bytes(mx.view, &WeightView::scale, 5, {0xFF}), "nan at [2, 1]");
  GroupWeight nv({FormatId::nvfp4, 4, 16, DType::f8_e4m3}, 32, 64, 3);
  test::expect_error(with_bytes(nv.view, &WeightView::scale, 9, {0x7F}), "nan at [2, 1]");
  GroupWeight mlx({FormatId::mlx_affine, 4, 32, DType::f16, true}, 32, 64, 3);
  test::expect_error(with_bytes(mlx.view, &WeightView::zero, 2, {0x00, 0x7E}),
                     "tensor random.biases: found nan");
  GroupWeight act({FormatId::gptq, 4, 32, DType::f16, true, true}, 32, 64, 3);
  test::expect_error(with_bytes(act.view, &WeightView::group_index, 8, {2, 0, 0, 0}),
                     "tensor random.g_idx: found group 2 for column 2, expected 0 to 1");
  GroupWeight i8({FormatId::int_packed, 4, 32, DType::f16, true, false, false, true}, 32, 64, 3);
  test::expect_error(with_bytes(i8.view, &WeightView::zero, 0, {8}),
                     "found the zero point 16 for row 0, group 0");
  test::expect_error(with_bytes(i8.view, &WeightView::zero, 0, {0xF7}), "found the zero point -1");
}

TEST(group_codes, fp8_codes_that_are_no_numbers_are_found) {
  GroupWeight weight({FormatId::mxfp8, 8, 32, DType::u8}, 32, 64, 4);
  WeightView w = weight.view;
  EXPECT_TRUE(check_codes(w, 2).has_value());
  std::string codes(as_text(w.codes));
  codes[2 * 64 + 5] = static_cast<char>(0xFF);
  w.codes = as_bytes(codes);
  test::expect_error(check_codes(w, 2), "the FP8 code at row 2, column 5 is not a number");
  EXPECT_TRUE(check_codes(w, 1).has_value());
}

}  // namespace
}  // namespace bise
