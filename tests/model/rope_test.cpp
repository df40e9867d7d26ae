#include "model/rope.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

namespace bise {
namespace {

RopeConfig medium() {
  RopeConfig c;
  c.theta = 1e6;
  c.yarn = true;
  c.factor = 64;
  c.original_context = 4096;
  c.beta_fast = 4;
  c.beta_slow = 1;
  c.attention_factor = 0.1 * std::log(64.0) + 1.0;
  return c;
}

// Mistral Medium 3.5, inv_freq[0..63] as float32 bits: torch 2.15, scalar path.
constexpr uint32_t kMedium[64] = {
    0x3F800000, 0x3F4E4BAD, 0x3F263DE0, 0x3F05F6EF, 0x3ED7E89B, 0x3EADFCFF, 0x3E8C3504, 0x3E61F835,
    0x3E361887, 0x3E12BD91, 0x3DEC7FD6, 0x3DBE94C6, 0x3D99940D, 0x3D778513, 0x3D47763F, 0x3D20BC1D,
    0x3D0186E3, 0x3CD0C1A8, 0x3CA8398B, 0x3C879008, 0x3C5A7BF2, 0x3C301052, 0x3C0DE12D, 0x3BE4AA46,
    0x3BA1982A, 0x3B5FE580, 0x3B16FA44, 0x3AC3DE30, 0x3A6F2FAE, 0x3A031B4E, 0x395FEAEA, 0x37A2A6F7,
    0x3783126F, 0x37533F28, 0x372A3B44, 0x37092E02, 0x36DD1725, 0x36B229FA, 0x368F9272, 0x36676492,
    0x363A7753, 0x36164324, 0x35F22CE2, 0x35C327B5, 0x359D43A4, 0x357D75D4, 0x354C3FBE, 0x352497AB,
    0x3504A2B2, 0x34D5C441, 0x34AC431D, 0x348AD0ED, 0x345FBA4F, 0x34344A0E, 0x341148E3, 0x33EA2732,
    0x33BCB0C1, 0x33980E02, 0x33751070, 0x33457BAB, 0x331F23E4, 0x33003DEC, 0x32CEAF79, 0x32A68E4C};

TEST(Rope, yarn_frequencies_of_medium_are_torchs_bit_for_bit) {
  std::vector<float> frequencies = rope_frequencies(medium(), 128);
  for (size_t i = 0; i < 64; ++i) {
    // On its vector paths torch itself differs in the last bit of entry 37.
    uint32_t bits = std::bit_cast<uint32_t>(frequencies[i]);
    if (i == 37) EXPECT_LE(bits - 0x36B229F9u, 2u);
    else EXPECT_EQ(bits, kMedium[i]) << i;
  }
}

TEST(Rope, magnitude_multiplies_cosine_and_sine) {
  RopeConfig c = medium();
  std::vector<float> frequencies = rope_frequencies(c, 128);
  RopeTable table;
  const int32_t positions[] = {0, 5};
  fill_rope(c, frequencies, positions, table);
  EXPECT_FLOAT_EQ(table.cosine[0], 1.4158883f);
  EXPECT_FLOAT_EQ(table.sine[0], 0.0f);
  EXPECT_FLOAT_EQ(table.sine[64], 1.4158883f * std::sin(5.0f));
  EXPECT_TRUE(table.query_scale.empty());
}

TEST(Rope, query_scale_is_one_up_to_the_original_context_and_grows_by_its_multiples) {
  RopeConfig c;
  c.theta = 1e6;
  c.query_scaling_beta = 0.1;
  c.original_context = 16384;
  RopeTable table;
  const int32_t positions[] = {0, 16383, 16384, 32767, 32768, 49152};
  fill_rope(c, rope_frequencies(c, 128), positions, table);
  const float expected[] = {1.0f, 1.0f, 1.06931472f, 1.06931472f, 1.10986125f, 1.13862943f};
  for (size_t i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(table.query_scale[i], expected[i]) << i;
}

TEST(Rope, patches_turn_their_first_half_by_row_and_their_second_by_column) {
  RopeTable table = vision_rope(10000.0, 104, 2, 3);
  ASSERT_EQ(table.cosine.size(), 6u * 52u);
  const size_t patch = 5;  // row 1, column 2
  EXPECT_FLOAT_EQ(table.sine[patch * 52 + 0], std::sin(1.0f));
  EXPECT_FLOAT_EQ(table.sine[patch * 52 + 1],
                  std::sin(static_cast<float>(std::pow(10000.0, -4.0 / 104.0))));
  EXPECT_FLOAT_EQ(table.sine[patch * 52 + 26],
                  std::sin(2.0f * static_cast<float>(std::pow(10000.0, -2.0 / 104.0))));
}

}  // namespace
}  // namespace bise
