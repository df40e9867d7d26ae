#include "server/token_rules.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

constexpr int32_t kVocab = 70;

// Allows the even tokens.
class Even final : public TokenMask {
 public:
  Result<bool> fill(std::span<uint32_t> bits) override {
    std::fill(bits.begin(), bits.end(), 0x55555555u);
    return true;
  }
  Result<void> accept(int32_t) override { return {}; }
  bool is_finished() const override { return false; }
};
TokenMaskFactory even() {
  return []() -> Result<std::unique_ptr<TokenMask>> { return std::unique_ptr<TokenMask>(std::make_unique<Even>()); };
}

// The tokens that may not come next; {-1} when there is no limit at all.
std::vector<int32_t> forbidden(TokenMask& mask) {
  std::vector<uint32_t> bits((kVocab + 31) / 32);
  Result<bool> limited = mask.fill(bits);
  EXPECT_TRUE(limited);
  if (!*limited) return {-1};
  std::vector<int32_t> out;
  for (int32_t id = 0; id < kVocab; ++id) {
    if ((bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) == 0) out.push_back(id);
  }
  return out;
}

TEST(ForbidSequences, the_last_token_is_forbidden_where_the_others_stand_before_it) {
  auto mask = *forbid_sequences({}, {{5}, {1, 2, 3}, {2, 4}})();
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(forbidden(*mask), Ids{5});
  for (int32_t id : {1, 2}) ASSERT_TRUE(mask->accept(id));
  EXPECT_EQ(forbidden(*mask), (Ids{3, 4, 5}));
  ASSERT_TRUE(mask->accept(2));
  EXPECT_EQ(forbidden(*mask), (Ids{4, 5}));
  ASSERT_TRUE(mask->accept(1));
  EXPECT_EQ(forbidden(*mask), Ids{5});
}

TEST(ForbidSequences, do_nothing_where_none_is_under_way) {
  auto mask = *forbid_sequences({}, {{1, 2}})();
  EXPECT_EQ(forbidden(*mask), std::vector<int32_t>{-1});
  ASSERT_TRUE(mask->accept(1));
  EXPECT_EQ(forbidden(*mask), std::vector<int32_t>{2});
}

TEST(ForbidSequences, take_away_from_what_a_structure_allows) {
  auto mask = *forbid_sequences(even(), {{8}, {66}})();
  auto plain = *even()();
  std::vector<int32_t> wanted = forbidden(*plain);
  wanted.insert(std::upper_bound(wanted.begin(), wanted.end(), 8), 8);
  wanted.insert(std::upper_bound(wanted.begin(), wanted.end(), 66), 66);
  EXPECT_EQ(forbidden(*mask), wanted);
}

}  // namespace
}  // namespace bise
