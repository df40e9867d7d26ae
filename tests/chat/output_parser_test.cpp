#include "chat/output_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "chat/tekken_variants.h"
#include "support/byte_tokenizer.h"
#include "support/chat_events.h"

namespace bise {
namespace {

constexpr TokenId kEos = 2, kCall = 9, kArgs = 32, kCallId = 33, kThink = 34, kThinkEnd = 35;

// An answer as the model writes it: texts and special ids.
using Part = std::variant<std::string, TokenId>;
using Parts = std::vector<Part>;

std::vector<TokenId> byte_ids(const Tokenizer& tokenizer, const Parts& parts) {
  std::vector<TokenId> ids;
  for (const Part& part : parts) {
    if (const TokenId* id = std::get_if<TokenId>(&part)) ids.push_back(*id);
    else tokenizer.encode(std::get<std::string>(part), ids);
  }
  return ids;
}

JoinedAnswer parse(const Parts& parts, const std::string& reason = "stop", bool thinking = false) {
  ByteTokenizer tokenizer;
  auto stream = create_output_parser(tokenizer, mistral_output_markers(tokenizer), thinking, 7);
  JoinedAnswer answer = join_stream(*stream, byte_ids(tokenizer, parts), reason);
  EXPECT_EQ(answer.broken_rule, "");
  return answer;
}

// Content, reasoning, calls and reason in one line.
std::string text_of(const JoinedAnswer& answer) {
  std::string text = answer.content + "|" + answer.reasoning + "|";
  for (const auto& call : answer.calls) text += call.name + "(" + call.arguments + ")";
  return text + "|" + answer.finish_reason;
}

void expect_golden(const Json& item, const JoinedAnswer& answer) {
  const Json& expect = item["expect"];
  EXPECT_EQ(answer.broken_rule, "");
  EXPECT_EQ(answer.content, expect["content"].get<std::string>());
  EXPECT_EQ(answer.reasoning, expect["reasoning_content"].get<std::string>());
  ASSERT_EQ(answer.calls.size(), expect["tool_calls"].size());
  for (size_t i = 0; i < answer.calls.size(); ++i) {
    EXPECT_EQ(answer.calls[i].name, expect["tool_calls"][i]["name"].get<std::string>());
    EXPECT_EQ(answer.calls[i].arguments, expect["tool_calls"][i]["arguments"].get<std::string>());
  }
  bool allowed = false;
  for (const Json& reason : expect["finish_reason"]) allowed |= reason == answer.finish_reason;
  EXPECT_TRUE(allowed) << answer.finish_reason;
}

TEST(output_parser, every_golden_answer_is_parsed_as_the_reference_does) {
  auto text = read_file(BISE_GOLDEN_DIR "/chat/parse.json", 1 << 20);
  ASSERT_TRUE(text);
  auto goldens = parse_json(*text);
  ASSERT_TRUE(goldens) << goldens.error().message();
  ASSERT_GE((*goldens)["cases"].size(), 40u);
  for (const Json& item : (*goldens)["cases"]) {
    SCOPED_TRACE(item["name"].get<std::string>());
    const ChatService& chat = chat_of(item["tokenizer"].get<std::string>());
    auto stream = chat.start(item.value("start", "content") == "think", 1);
    expect_golden(item, join_stream(*stream, item["ids"].get<std::vector<TokenId>>(),
                                    item["finish"].get<std::string>()));
  }
}

// However the bytes of a text are cut into tokens, the joined answer is the same.
TEST(output_parser, joined_answers_do_not_depend_on_the_cut_into_tokens) {
  const Parts kAnswers[] = {
      {" \n", kThink, " caf\u00e9 \U0001F680 \n", kThinkEnd, "\n Hello \U0001F680 there \n", kEos},
      {kThink, "a ", kCall, " add ", kArgs, " {\"x\": [1, \"}\\\"\u00fc{\"]} rest", kCall, "b",
       kCallId, "123456789", kArgs, "  42  ", kCall, "c{\"y\": 1", kEos},
      {" \t", kCall, "[{\"name\": \"f\", \"arguments\": {\"k\":[1,2.50]}}]", kEos},
      {"text ", kCall, "no name at all \xF0\x9F", kThinkEnd, " on", kEos},
  };
  ByteTokenizer tokenizer;
  OutputMarkers markers = mistral_output_markers(tokenizer);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    for (const Parts& parts : kAnswers) {
      std::vector<TokenId> ids;
      for (const Part& part : parts) {
        if (const TokenId* id = std::get_if<TokenId>(&part)) {
          ids.push_back(*id);
          continue;
        }
        const std::string& text = std::get<std::string>(part);
        for (size_t at = 0; at < text.size();) {
          size_t length = 1 + random_bits(seed, 0, ids.size()) % 7;
          ids.push_back(tokenizer.add(text.substr(at, length)));
          at += length;
        }
      }
      auto stream = create_output_parser(tokenizer, markers, false, 1);
      JoinedAnswer answer = join_stream(*stream, ids, "stop");
      ASSERT_EQ(answer.broken_rule, "") << "seed " << seed;
      ASSERT_EQ(text_of(answer), text_of(parse(parts))) << "seed " << seed;
    }
  }
}

TEST(output_parser, text_comes_out_as_soon_as_its_characters_are_whole) {
  ByteTokenizer tokenizer;
  auto stream = create_output_parser(tokenizer, mistral_output_markers(tokenizer), false, 1);
  TokenId first = tokenizer.add(" \xF0\x9F"), second = tokenizer.add("\x8E"),
          third = tokenizer.add("\x89");
  EXPECT_EQ(stream->push(1000 + 'a').at(0).text, "a");
  EXPECT_EQ(stream->push(first).at(0).text, " ");
  EXPECT_TRUE(stream->push(second).empty());
  EXPECT_EQ(stream->push(third).at(0).text, "\U0001F389");
}

TEST(output_parser, arguments_are_streamed_and_not_collected) {
  ByteTokenizer tokenizer;
  auto stream = create_output_parser(tokenizer, mistral_output_markers(tokenizer), false, 1);
  for (TokenId id : {kCall, TokenId{1000 + 'f'}}) EXPECT_TRUE(stream->push(id).empty());
  auto begin = stream->push(kArgs);
  ASSERT_EQ(begin.size(), 1u);
  EXPECT_EQ(begin[0].kind, ChatEvent::Kind::tool_call_begin);
  EXPECT_EQ(stream->push(1000 + '{').at(0).text, "{");
  EXPECT_EQ(stream->push(1000 + '"').at(0).text, "\"");
}

TEST(output_parser, blanks_are_dropped_only_where_the_rules_say) {
  EXPECT_EQ(text_of(parse({" \n", kEos})), " \n|||stop");
  EXPECT_EQ(text_of(parse({" \n", kThink, "r \n", kThinkEnd, " \n a", kEos})), " \na|r||stop");
  EXPECT_EQ(text_of(parse({" ", kThink, "r", kThinkEnd, " ", kCall, "f", kArgs, kEos})),
            "|r|f({})|tool_calls");
  EXPECT_EQ(text_of(parse({"a ", kCall, "f", kArgs, " 12 \n", kCall, "g", kArgs, "\"x\" y"})),
            "a ||f(12)g(\"x\")|tool_calls");
}

TEST(output_parser, a_call_without_a_name_is_given_back_as_content) {
  EXPECT_EQ(text_of(parse({kCall, kArgs, "{\"a\": 1} x", kEos})), "{\"a\": 1} x|||stop");
  EXPECT_EQ(text_of(parse({kCall, " {}", kCall, "f", kArgs, "{}", kEos})), " {}||f({})|tool_calls");
  EXPECT_EQ(text_of(parse({kCall, "[{\"name\": \"\"}]", kEos})), "[{\"name\": \"\"}]|||stop");
  EXPECT_EQ(text_of(parse({kCall, "[{\"name\": \"f\"}] x", kEos})), "[{\"name\": \"f\"}] x|||stop");
}

TEST(output_parser, the_old_list_gives_arguments_in_pythons_form) {
  EXPECT_EQ(text_of(parse({kCall,
                           "[{\"name\":\"f\",\"arguments\":{\"b\":1,\"a\":[1.0,1e5]}},"
                           "{\"name\":\"g\"}]",
                           kEos})),
            "||f({\"b\": 1, \"a\": [1.0, 100000.0]})g({})|tool_calls");
}

TEST(output_parser, finish_reason_is_length_even_with_calls) {
  EXPECT_EQ(text_of(parse({kCall, "f", kArgs, "{\"a"}, "length")), "||f({\"a)|length");
  EXPECT_EQ(text_of(parse({"x"}, "length")), "x|||length");
}

TEST(output_parser, nothing_follows_the_end) {
  EXPECT_EQ(text_of(parse({"a", kEos, "b", kCall, "f", kArgs, "{}"})), "a|||stop");
}

TEST(output_parser, thinking_may_be_open_already) {
  EXPECT_EQ(text_of(parse({"so", kThink, " on ", kThinkEnd, "a", kEos}, "stop", true)),
            "a|so on||stop");
}

TEST(output_parser, markers_that_a_vocabulary_lacks_are_dropped) {
  ByteTokenizer tokenizer;
  OutputMarkers markers;
  markers.eos = kEos;
  markers.other_eos = 1;
  auto stream = create_output_parser(tokenizer, markers, false, 1);
  std::vector<TokenId> ids = byte_ids(tokenizer, {kThink, "a", kCall, "b", -5, 1 << 30, 1, "c"});
  EXPECT_EQ(text_of(join_stream(*stream, ids, "stop")), "ab|||stop");
}

TEST(output_parser, call_ids_are_distinct_and_follow_the_seed) {
  ByteTokenizer tokenizer;
  std::vector<TokenId> ids;
  for (int i = 0; i < 2000; ++i) ids.insert(ids.end(), {kCall, 1000 + 'f', kArgs});
  auto ids_of = [&](uint64_t seed) {
    auto stream = create_output_parser(tokenizer, mistral_output_markers(tokenizer), false, seed);
    JoinedAnswer answer = join_stream(*stream, ids, "stop");
    EXPECT_EQ(answer.broken_rule, "");
    EXPECT_EQ(answer.calls.size(), 2000u);
    std::string all;
    for (const auto& call : answer.calls) all += call.id;
    return all;
  };
  EXPECT_EQ(ids_of(1), ids_of(1));
  EXPECT_NE(ids_of(1), ids_of(2));
}

}  // namespace
}  // namespace bise
