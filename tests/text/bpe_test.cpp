// Both kinds of byte-pair encoding against the plain loop of the definition.
#include <gtest/gtest.h>

#include <map>

#include "base/random.h"
#include "text/gguf_bpe.h"
#include "text/rank_bpe.h"

namespace bise {
namespace {

class Dice {
 public:
  explicit Dice(uint64_t seed) : seed_(seed) {}
  size_t below(size_t limit) { return random_bits(seed_, 0, position_++) % limit; }
  std::string text(std::string_view alphabet, size_t longest) {
    std::string out;
    for (size_t left = 1 + below(longest); left > 0; --left) {
      out.push_back(alphabet[below(alphabet.size())]);
    }
    return out;
  }

 private:
  uint64_t seed_;
  uint64_t position_ = 0;
};

// Joins the adjacent pair of lowest rank, leftmost first; rank_of gives a negative number for "never".
template <class RankOf>
std::vector<std::string> slow_merge(std::vector<std::string> parts, const RankOf& rank_of) {
  while (true) {
    size_t best = 0;
    int best_rank = -1;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      int rank = rank_of(parts[i], parts[i + 1]);
      if (rank >= 0 && (best_rank < 0 || rank < best_rank)) {
        best = i;
        best_rank = rank;
      }
    }
    if (best_rank < 0) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

std::vector<std::string> letters(const std::string& text) {
  std::vector<std::string> parts;
  for (char c : text) parts.emplace_back(1, c);
  return parts;
}

TEST(rank_bpe, equals_the_plain_loop_on_random_vocabularies_and_pieces) {
  for (uint64_t seed = 1; seed <= 40 / BISE_TEST_SHARE; ++seed) {
    Dice dice(seed);
    TokenTable tokens;
    std::map<std::string, int> ranks;
    for (int i = 0; i < 256; ++i) {
      std::string byte(1, static_cast<char>(i));
      ranks[byte] = i;
      tokens.append(byte);
    }
    for (int i = 0; i < 40; ++i) {
      std::string token = dice.text("abc", 6);
      if (ranks.emplace(token, tokens.size()).second) tokens.append(token);
    }
    ASSERT_EQ(tokens.build_index(), TokenTable::kNone);
    RankBpe bpe(std::move(tokens));
    for (int round = 0; round < 100; ++round) {
      std::string piece = dice.text("abcab", round % 2 == 0 ? 48 : 300);
      std::vector<TokenId> got;
      bpe.encode_piece(piece, 1000, got);
      std::vector<TokenId> expected;
      if (ranks.count(piece) != 0) {
        expected = {1000 + ranks[piece]};
      } else {
        auto rank_of = [&](const std::string& left, const std::string& right) {
          auto found = ranks.find(left + right);
          return found == ranks.end() ? -1 : found->second;
        };
        for (const std::string& part : slow_merge(letters(piece), rank_of)) {
          expected.push_back(1000 + ranks[part]);
        }
      }
      ASSERT_EQ(got, expected) << "seed " << seed << ", piece " << piece;
    }
  }
}

struct MergeVocabulary {
  std::vector<std::string> tokens, merges;
  std::map<std::string, int> ids;
  std::map<std::pair<std::string, std::string>, int> ranks;
  std::unique_ptr<GgufBpe> bpe;

  void add(const std::string& token) {
    if (ids.emplace(token, static_cast<int>(tokens.size())).second) tokens.push_back(token);
  }
};

TEST(gguf_bpe, equals_the_plain_loop_on_random_merge_lists) {
  for (uint64_t seed = 1; seed <= 40 / BISE_TEST_SHARE; ++seed) {
    Dice dice(seed);
    MergeVocabulary v;
    for (const char* letter : {"a", "b", "c"}) v.add(letter);
    while (v.merges.size() < 40) {
      std::string left = v.tokens[dice.below(v.tokens.size())];
      std::string right = v.tokens[dice.below(v.tokens.size())];
      int rank = static_cast<int>(v.merges.size());
      if (left.size() + right.size() > 8 || !v.ranks.emplace(std::pair(left, right), rank).second) continue;
      v.merges.push_back(left + " " + right);
      v.add(left + right);
    }
    std::vector<std::string_view> tokens(v.tokens.begin(), v.tokens.end());
    std::vector<std::string_view> merges(v.merges.begin(), v.merges.end());
    auto bpe = GgufBpe::create(tokens, {}, merges, "gpt-2");
    ASSERT_TRUE(bpe) << bpe.error().message();
    for (int round = 0; round < 100; ++round) {
      std::string piece = dice.text("abcab", round % 2 == 0 ? 48 : 300);
      std::vector<TokenId> expected;
      auto rank_of = [&](const std::string& left, const std::string& right) {
        auto found = v.ranks.find({left, right});
        return found == v.ranks.end() ? -1 : found->second;
      };
      for (const std::string& part : slow_merge(letters(piece), rank_of)) {
        expected.push_back(v.ids[part]);
      }
      ASSERT_EQ((*bpe)->encode(piece), expected) << "seed " << seed << ", piece " << piece;
    }
  }
}

TEST(token_table, the_lowest_index_of_equal_entries_is_found_and_the_repeat_reported) {
  TokenTable table;
  for (const char* entry : {"x", "yy", "", "x", "yy"}) table.append(entry);
  EXPECT_EQ(table.build_index(), 3);
  EXPECT_EQ(table.find("x"), 0);
  EXPECT_EQ(table.find("yy"), 1);
  EXPECT_EQ(table.find(""), TokenTable::kNone);
  EXPECT_EQ(table.find("y"), TokenTable::kNone);
  EXPECT_EQ(table[4], "yy");
  EXPECT_EQ(table.longest(), 2u);
}

}  // namespace
}  // namespace bise
