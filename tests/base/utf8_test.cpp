#include "base/utf8.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace bise {
namespace {

// Slow twin: the bytes of one scalar value, by the definition.
std::string encode_slowly(uint32_t c) {
  std::string out;
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  int following = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  const uint32_t marks[4] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(marks[following] | (c >> (6 * following)));
  for (int i = following - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3F));
  return out;
}
bool is_scalar(uint32_t c) { return c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF); }

// Slow twin of "could begin a character": every proper prefix of every character.
bool begins_a_character(const std::string& bytes) {
  static const std::set<std::string> prefixes = [] {
    std::set<std::string> all;
    for (uint32_t c = 0x80; c <= 0x10FFFF; c += 64) {  // 64 neighbours share them
      if (!is_scalar(c)) continue;
      std::string part = encode_slowly(c);
      for (part.pop_back(); !part.empty(); part.pop_back()) all.insert(part);
    }
    return all;
  }();
  return prefixes.count(bytes) != 0;
}
// Slow twin of decoding: does a character start here? If not, how long is the maximal invalid part?
CodePoint decode_slowly(std::string_view text, size_t at) {
  for (uint32_t length = 1; length <= 4 && at + length <= text.size(); ++length) {
    std::string part(text.substr(at, length));
    uint32_t value = static_cast<uint8_t>(part[0]);
    if (length > 1) {
      value &= 0x3Fu >> (length - 1);
      for (uint32_t i = 1; i < length; ++i) value = (value << 6) | (static_cast<uint8_t>(part[i]) & 0x3F);
    }
    if (is_scalar(value) && encode_slowly(value) == part) return {value, length, true};
  }
  uint32_t length = 1;
  while (at + length < text.size() && length < 3 &&
         begins_a_character(std::string(text.substr(at, length + 1)))) {
    ++length;
  }
  return {0xFFFD, length, false};
}

// Strings of bytes that are interesting: leads, borders of the second byte's range, ASCII.
std::string random_bytes(std::mt19937& random) {
  static const uint8_t kBytes[] = {'a',  0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2,
                                   0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4,
                                   0xF5, 0xFF};
  std::string text(random() % 8, 0);
  for (char& c : text) c = static_cast<char>(kBytes[random() % sizeof(kBytes)]);
  return text;
}

TEST(utf8, every_scalar_value_survives_the_way_there_and_back) {
  std::string text;
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (!is_scalar(c)) continue;
    std::string one;
    append_utf8(one, c);
    ASSERT_EQ(encode_slowly(c), one);
    CodePoint back = decode_utf8(one, 0);
    ASSERT_TRUE(back.valid && back.value == c && back.length == one.size()) << c;
    text += one;
  }
  EXPECT_TRUE(is_valid_utf8(text));
  EXPECT_EQ(text, repair_utf8(text));
}

TEST(utf8, what_is_no_scalar_value_is_written_as_the_replacement_character) {
  for (uint32_t c : {0xD800u, 0xDBFFu, 0xDC00u, 0xDFFFu, 0x110000u, 0xFFFFFFFFu}) {
    std::string one;
    append_utf8(one, c);
    EXPECT_EQ("\xEF\xBF\xBD", one);
  }
}

TEST(utf8, decoding_agrees_with_the_slow_twin_on_broken_text) {
  std::mt19937 random(2);
  for (int i = 0; i < 20000; ++i) {
    std::string text = random_bytes(random);
    std::string repaired;
    bool valid = true;
    for (size_t at = 0; at < text.size();) {
      CodePoint want = decode_slowly(text, at), got = decode_utf8(text, at);
      ASSERT_EQ(want.value, got.value) << testing::PrintToString(text) << " at " << at;
      ASSERT_EQ(want.length, got.length) << testing::PrintToString(text) << " at " << at;
      ASSERT_EQ(want.valid, got.valid) << testing::PrintToString(text) << " at " << at;
      repaired += want.valid ? text.substr(at, want.length) : "\xEF\xBF\xBD";
      valid = valid && want.valid;
      at += want.length;
    }
    EXPECT_EQ(valid, is_valid_utf8(text));
    EXPECT_EQ(repaired, repair_utf8(text));
  }
}

TEST(utf8, the_tail_is_what_could_still_become_a_character) {
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    std::string text = random_bytes(random);
    size_t want = 0;  // the last invalid part, when it touches the end and may go on
    for (size_t at = 0; at < text.size();) {
      CodePoint c = decode_slowly(text, at);
      if (!c.valid && at + c.length == text.size() && begins_a_character(text.substr(at))) {
        want = text.size() - at;
      }
      at += c.length;
    }
    ASSERT_EQ(want, incomplete_utf8_tail(text)) << testing::PrintToString(text);
  }
}

TEST(utf8, text_cut_at_any_byte_joins_again) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    std::string head = text.substr(0, cut);
    size_t tail = incomplete_utf8_tail(head);
    EXPECT_TRUE(is_valid_utf8(std::string_view(head).substr(0, head.size() - tail))) << cut;
    EXPECT_LE(tail, 3u);
  }
  EXPECT_EQ(0u, incomplete_utf8_tail(""));
  EXPECT_EQ(0u, incomplete_utf8_tail(text));
}

}  // namespace
}  // namespace bise
