#include "base/bytes.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

TEST(bytes, reads_are_little_endian_and_need_no_alignment) {
  const std::string text = std::string("\x7F\x01\x02\x03\x04\x05\x06\x07\x08", 9);
  ByteReader reader(as_bytes(text));
  EXPECT_EQ(0x7F, reader.read<uint8_t>().value());
  EXPECT_EQ(0x0807060504030201u, reader.read<uint64_t>().value());
  EXPECT_EQ(9u, reader.offset());
  EXPECT_EQ(0u, reader.remaining());
}

TEST(bytes, a_read_past_the_end_is_an_error_that_says_where_and_moves_nothing) {
  ByteReader reader(as_bytes("abcdef"));
  ASSERT_TRUE(reader.take(4));
  auto beyond = reader.read<uint32_t>();
  ASSERT_FALSE(beyond);
  EXPECT_EQ(ErrorCode::corrupt, beyond.error().code());
  EXPECT_EQ("the file ends at byte 6, but 4 bytes are needed at byte 4", beyond.error().message());
  EXPECT_EQ(4u, reader.offset());
  EXPECT_FALSE(reader.take(UINT64_MAX));  // offset + count would wrap round
  EXPECT_EQ("ef", as_text(reader.take(2).value()));
  EXPECT_TRUE(reader.take(0));
  EXPECT_FALSE(reader.take(1));
}

TEST(bytes, size_arithmetic_notices_overflow) {
  uint64_t out = 0;
  EXPECT_TRUE(checked_add(UINT64_MAX - 1, 1, &out));
  EXPECT_EQ(UINT64_MAX, out);
  EXPECT_FALSE(checked_add(UINT64_MAX, 1, &out));
  EXPECT_TRUE(checked_mul(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, &out));
  EXPECT_FALSE(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32, &out));
  EXPECT_TRUE(checked_round_up(33, 32, &out));
  EXPECT_EQ(64u, out);
  EXPECT_TRUE(checked_round_up(64, 32, &out));
  EXPECT_EQ(64u, out);
  EXPECT_FALSE(checked_round_up(UINT64_MAX - 30, 32, &out));
  EXPECT_TRUE(checked_round_up(UINT64_MAX, 1, &out));
  EXPECT_EQ(UINT64_MAX, out);
}

TEST(bytes, rounding_and_division_agree_with_counting) {
  for (uint64_t multiple = 1; multiple < 12; ++multiple) {
    for (uint64_t value = 0; value < 50; ++value) {
      uint64_t pieces = 0;
      while (pieces * multiple < value) ++pieces;
      EXPECT_EQ(pieces, ceil_div(value, multiple));
      EXPECT_EQ(pieces * multiple, round_up(value, multiple));
    }
  }
}

}  // namespace
}  // namespace bise
