#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "base/utf8.h"
#include "support/golden_tekken.h"

namespace bise {
namespace {

using testing::golden_tekken;

TEST(detokenizer, a_character_of_several_tokens_comes_out_when_it_is_whole) {
  Detokenizer detokenizer(golden_tekken());
  EXPECT_EQ(detokenizer.push(119685), " ");  // 20 F0 9F
  EXPECT_EQ(detokenizer.push(1142), "");
  EXPECT_EQ(detokenizer.push(1137), "🎉");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST(detokenizer, what_cannot_become_a_character_is_replaced_at_once) {
  Detokenizer detokenizer(golden_tekken());
  EXPECT_EQ(detokenizer.push(1000 + 0xFF), "\ufffd");
  EXPECT_EQ(detokenizer.push(1000 + 0x80), "\ufffd");
  EXPECT_EQ(detokenizer.push(1000 + 0xF0), "");
  EXPECT_EQ(detokenizer.push(1000 + 0x9F), "");
  EXPECT_EQ(detokenizer.push(1000 + 'a'), "\ufffda");
}

TEST(detokenizer, a_special_token_or_the_end_cuts_a_character_short) {
  Detokenizer drops(golden_tekken());
  EXPECT_EQ(drops.push(1000 + 0xF0), "");
  EXPECT_EQ(drops.push(9), "\ufffd");
  EXPECT_EQ(drops.push(1000 + 0xC3), "");
  EXPECT_EQ(drops.flush(), "\ufffd");
  Detokenizer keeps(golden_tekken(), true);
  EXPECT_EQ(keeps.push(1000 + 0xF0), "");
  EXPECT_EQ(keeps.push(9), "\ufffd[TOOL_CALLS]");
}

TEST(detokenizer, ids_outside_the_vocabulary_say_nothing) {
  Detokenizer detokenizer(golden_tekken());
  EXPECT_EQ(detokenizer.push(-1) + detokenizer.push(131072) + detokenizer.flush(), "");
}

// The slow twin of decode: join each row of ordinary ids, then repair it as a whole.
std::string slow_decode(const std::vector<TokenId>& ids) {
  std::string text, row;
  for (TokenId id : ids) {
    if (!golden_tekken().is_special(id)) {
      row += golden_tekken().token_bytes(id);
      continue;
    }
    text += repair_utf8(row) + std::string(golden_tekken().token_bytes(id));
    row.clear();
  }
  return text + repair_utf8(row);
}

TEST(detokenizer, any_row_of_ids_gives_only_whole_characters_and_the_text_of_decode) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    std::vector<TokenId> ids;
    for (uint64_t i = 0; i < 40; ++i) {
      uint64_t bits = random_bits(seed, 7, i);
      // Mostly single bytes, so that broken and split characters are common.
      uint64_t kind = bits % 16;
      uint64_t pick = bits >> 8;
      if (kind == 0) ids.push_back(static_cast<TokenId>(pick % 1000));
      else if (kind < 4) ids.push_back(static_cast<TokenId>(1000 + pick % 130072));
      else ids.push_back(static_cast<TokenId>(1000 + 0x80 + pick % 128));
    }
    Detokenizer detokenizer(golden_tekken(), true);
    std::string all;
    for (TokenId id : ids) {
      std::string part = detokenizer.push(id);
      ASSERT_TRUE(is_valid_utf8(part)) << "seed " << seed;
      all += part;
    }
    all += detokenizer.flush();
    ASSERT_EQ(all, golden_tekken().decode(ids, true)) << "seed " << seed;
    ASSERT_EQ(all, slow_decode(ids)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace bise
