#include "text/gguf_bpe.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace bise {
namespace {

// "\u0120" is the blank and "\u010a" the newline of GPT-2's byte alphabet.
const std::vector<std::string_view> kTokens = {"<|end|>", "h", "e", "l", "o", "\u0120", "2", "0", "'", "s",
                                               "he", "ll", "hell", "hello", "\u0120\u0120", "'s", "\u00c3", "\u00a9"};
const std::vector<int32_t> kTypes = {3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
const std::vector<std::string_view> kMerges = {"h e", "l l", "he ll", "hell o", "\u0120 \u0120", "' s"};

std::unique_ptr<GgufBpe> make(std::string_view pre) {
  auto bpe = GgufBpe::create(kTokens, kTypes, kMerges, pre);
  if (!bpe) ADD_FAILURE() << bpe.error().message();
  return bpe ? std::move(bpe).value() : nullptr;
}

using Ids = std::vector<TokenId>;

TEST(gguf_bpe, merges_go_by_their_rank) {
  auto bpe = make("smollm");
  EXPECT_EQ(bpe->encode("hello"), (Ids{13}));
  EXPECT_EQ(bpe->encode("hellhe"), (Ids{12, 10}));
  EXPECT_EQ(bpe->encode("hello's"), (Ids{13, 15}));
  EXPECT_EQ(bpe->encode("é"), (Ids{16, 17}));
}

TEST(gguf_bpe, smollm_keeps_blanks_before_a_number_together_and_gpt2_does_not) {
  EXPECT_EQ(make("smollm")->encode("l  20"), (Ids{3, 14, 6, 7}));
  EXPECT_EQ(make("gpt-2")->encode("l  20"), (Ids{3, 5, 5, 6, 7}));
}

TEST(gguf_bpe, bytes_without_a_token_are_left_out) {
  auto bpe = make("smollm");
  EXPECT_EQ(bpe->encode("\x04h\x13"), (Ids{1}));
  EXPECT_EQ(bpe->encode("hXe"), (Ids{10}));  // X has no token, so h and e become neighbours
  EXPECT_EQ(bpe->encode("\xff"), Ids{});
}

TEST(gguf_bpe, control_tokens_have_names_and_never_arise_from_text) {
  auto bpe = make("smollm");
  EXPECT_EQ(bpe->special("<|end|>"), 0);
  EXPECT_EQ(bpe->special("hello"), std::nullopt);
  EXPECT_TRUE(bpe->is_special(0));
  EXPECT_FALSE(bpe->is_special(13) || bpe->is_special(-1) || bpe->is_special(18));
  Ids ids = bpe->encode("<|end|>");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 0), 0);
  EXPECT_EQ(bpe->vocab_size(), 18);
  EXPECT_EQ(bpe->token_bytes(14), "  ");
  EXPECT_EQ(bpe->token_bytes(18), "");
  EXPECT_EQ(bpe->decode(Ids{13, 14, 0, 16, 17}, true), "hello  <|end|>é");
  EXPECT_EQ(bpe->decode(Ids{13, 14, 0, 16, 17}, false), "hello  é");
}

TEST(gguf_bpe, tekken_goes_by_the_rank_of_tokens_and_needs_all_bytes) {
  std::vector<std::string> names = {"[INST]"};
  for (int byte = 0; byte < 256; ++byte) {
    names.push_back(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
  }
  for (const char* token : {"ll", "hel", "he", "hello"}) names.emplace_back(token);
  std::vector<std::string_view> tokens(names.begin(), names.end());
  std::vector<int32_t> types(tokens.size(), 1);
  types[0] = 3;
  auto bpe = GgufBpe::create(tokens, types, {}, "tekken");
  ASSERT_TRUE(bpe) << bpe.error().message();
  EXPECT_EQ((*bpe)->encode("hello"), (Ids{260}));      // the whole piece is a token
  EXPECT_EQ((*bpe)->encode("helloh"), (Ids{259, 257, 112, 105}));  // else ll goes first
  EXPECT_EQ((*bpe)->token_bytes(1), std::string_view("\0", 1));
  tokens[40] = "<gone>";
  auto incomplete = GgufBpe::create(tokens, types, {}, "tekken");
  ASSERT_FALSE(incomplete);
  EXPECT_NE(incomplete.error().message().find("no token for the byte 39"), std::string::npos);
}

TEST(gguf_bpe, byte_alphabet_goes_both_ways) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  std::string back;
  ASSERT_TRUE(from_byte_alphabet(to_byte_alphabet(all), &back));
  EXPECT_EQ(back, all);
  EXPECT_EQ(to_byte_alphabet(" \n!\xad"), "\u0120\u010a!\u0143");
  EXPECT_FALSE(from_byte_alphabet(" ", &back));
  EXPECT_FALSE(from_byte_alphabet("\u0144", &back));
  EXPECT_FALSE(from_byte_alphabet("\xff", &back));
}

TEST(gguf_bpe, words_outside_the_alphabet_are_spelled_as_they_stand) {
  std::vector<std::string_view> tokens = {"a", "two words", "中"};
  auto bpe = GgufBpe::create(tokens, std::vector<int32_t>{1, 1, 4}, {}, "smollm");
  ASSERT_TRUE(bpe);
  EXPECT_EQ((*bpe)->decode(Ids{1, 2}, false), "two words中");
  EXPECT_EQ((*bpe)->encode("two words中a"), (Ids{0}));
}

void expect_error(std::vector<std::string_view> tokens, std::vector<int32_t> types,
                  std::vector<std::string_view> merges, std::string_view pre, const char* expected) {
  auto bpe = GgufBpe::create(tokens, types, merges, pre);
  ASSERT_FALSE(bpe) << expected;
  EXPECT_NE(bpe.error().message().find(expected), std::string::npos) << bpe.error().message();
}

TEST(gguf_bpe, each_fault_of_the_lists_has_its_own_message) {
  expect_error({"a"}, {1}, {}, "llama-bpe",
               "tokenizer.ggml.pre: found \"llama-bpe\", expected smollm, gpt-2 or tekken");
  expect_error({}, {}, {}, "smollm", "tokenizer.ggml.tokens: found 0 tokens");
  expect_error({"a", "b"}, {1}, {}, "smollm", "tokenizer.ggml.token_type: found 1 entries");
  expect_error({"a", "b"}, {1, 7}, {}, "smollm", "tokenizer.ggml.token_type[1]: found 7");
  expect_error({"a", "a"}, {1, 1}, {}, "smollm", "tokenizer.ggml.tokens[1]: the same token as entry 0");
  expect_error({"a", "b"}, {}, {"a b"}, "smollm", "tokenizer.ggml.merges[0]: found \"a b\"");
  expect_error({"a", "aa"}, {}, {"aa"}, "smollm", "tokenizer.ggml.merges[0]: found \"aa\"");
  expect_error({"a", "aa"}, {}, {"a a", "a a"}, "smollm",
               "tokenizer.ggml.merges[1]: the same merge as entry 0");
  std::string huge(5000, 'a');
  expect_error({huge}, {}, {}, "smollm", "tokenizer.ggml.tokens[0]: found 5000 bytes");
}

}  // namespace
}  // namespace bise
