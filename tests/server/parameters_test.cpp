#include "server/parameters.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace bise {
namespace {

ApiResult<GenerationParameters> read(const std::string& body, Endpoint endpoint = Endpoint::chat) {
  Result<PyJson> json = parse_python_json(body);
  if (!json) return ApiError::invalid("", json.error().message());
  return read_parameters(*json, endpoint, {SamplingParams(), 1000});
}

// The field at fault, and the message.
std::string fault(const std::string& body, Endpoint endpoint = Endpoint::chat) {
  auto read_result = read(body, endpoint);
  return read_result ? "accepted" : read_result.error().param + ": " + read_result.error().message;
}

TEST(Parameters, are_read_with_their_aliases) {
  auto p = read(R"({"temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"repeat_penalty":1.1,"presence_penalty":-1,
    "frequency_penalty":1,"logit_bias":{"7":-100},"random_seed":5,"stop":["a","b"],"stop_token_ids":[3],"max_completion_tokens":9,
    "max_tokens":8,"min_tokens":2,"n":3,"logprobs":true,"top_logprobs":4,"stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->sampling.temperature, 0.5);
  EXPECT_EQ(p->sampling.repetition_penalty, 1.1);
  EXPECT_EQ(p->sampling.logit_bias.at(7), -100.0f);
  EXPECT_EQ(p->sampling.seed, 5u);
  EXPECT_EQ(p->sampling.max_tokens, 9);
  EXPECT_EQ(p->sampling.min_tokens, 2);
  EXPECT_EQ(p->sampling.num_logprobs, 4);
  EXPECT_EQ(p->n, 3);
  EXPECT_EQ(p->stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(p->stream && p->include_usage);
}

TEST(Parameters, that_are_null_count_as_not_sent) {
  auto p = read(R"({"temperature":null,"samplers":null,"stop":null,"n":null,"stream_options":null})");
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->notes.unused.empty());
}

TEST(Parameters, out_of_range_are_refused_by_name_with_what_is_allowed) {
  EXPECT_EQ(fault(R"({"temperature":2.1})"), "temperature: temperature is 2.1; it must be from 0 to 2");
  EXPECT_EQ(fault(R"({"temperature":"hot"})"), "temperature: temperature is a string; expected a number");
  EXPECT_EQ(fault(R"({"n":17})"), "n: n is 17; it must be from 1 to 16");
  EXPECT_EQ(fault(R"({"max_tokens":0})"), "max_tokens: max_tokens is 0; it must be at least 1");
  EXPECT_EQ(fault(R"({"max_tokens":1.5})"), "max_tokens: max_tokens is a number; expected a whole number");
  EXPECT_EQ(fault(R"({"max_tokens":99999999999999999999})"), "max_tokens: max_tokens is too large a number");
  EXPECT_EQ(fault(R"({"top_logprobs":3})"), "top_logprobs: top_logprobs needs logprobs: true");
  EXPECT_EQ(fault(R"({"logprobs":true,"top_logprobs":21})"), "top_logprobs: top_logprobs is 21; it must be from 0 to 20");
  EXPECT_EQ(fault(R"({"stop":[""]})"), "stop: stop holds an empty string");
  EXPECT_EQ(fault(R"({"stop_token_ids":[1000]})"), "stop_token_ids: stop_token_ids is given with the token id 1000; it must be of ids from 0 to 999");
  EXPECT_EQ(fault(R"({"logit_bias":{"x":1}})"), "logit_bias: logit_bias is given for \"x\"; it must be given for token ids from 0 to 999");
  EXPECT_EQ(fault(R"({"stream_options":{"include_usage":true}})"), "stream_options: stream_options is only allowed with stream: true");
  EXPECT_EQ(fault(R"({"prompt_logprobs":1,"stream":true})"), "prompt_logprobs: prompt_logprobs is not available with stream: true");
  EXPECT_EQ(fault(R"({"min_tokens":5,"max_tokens":3})"), "min_tokens: min_tokens is 5; it must be at most max_tokens, which is 3");
}

TEST(Parameters, that_are_not_supported_are_refused_unless_they_ask_for_nothing) {
  for (const FieldRow& row : field_table(Endpoint::chat)) {
    const std::string body = std::string("{\"") + row.name + "\":";
    auto with = [&](const char* value) { return static_cast<bool>(read(body + value + "}")); };
    switch (row.rule) {
      case FieldRule::refused: EXPECT_FALSE(with("\"x\"")) << row.name; break;
      case FieldRule::only_false: EXPECT_TRUE(with("false") && !with("true")) << row.name; break;
      case FieldRule::only_true: EXPECT_TRUE(with("true") && !with("false")) << row.name; break;
      case FieldRule::only_zero: EXPECT_TRUE(with("0") && with("-1") && !with("2")) << row.name; break;
      case FieldRule::only_one: EXPECT_TRUE(with("1") && with("1.0") && !with("0")) << row.name; break;
      case FieldRule::only_empty: EXPECT_TRUE(with("[]") && with("{}") && !with("[1]")) << row.name; break;
      case FieldRule::unused: EXPECT_TRUE(with("1")) << row.name; break;
      case FieldRule::obeyed: break;
    }
  }
}

TEST(Parameters, that_nobody_knows_are_told_back) {
  auto p = read(R"({"temprature":1,"user":"u"})");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->notes.unused, (std::vector<std::string>{"temprature", "user"}));
}

TEST(Parameters, ask_for_one_structure_at_most) {
  EXPECT_EQ(fault(R"({"guided_regex":"a","response_format":{"type":"json_object"}})"),
            "response_format: only one structure may be asked for; guided_regex and response_format were given");
  EXPECT_EQ(fault(R"({"structured_outputs":{"regex":"a","choice":["b"]}})"),
            "structured_outputs.choice: only one structure may be asked for; structured_outputs.regex and structured_outputs.choice were given");
  EXPECT_EQ(fault(R"({"structured_outputs":{"ebnf":"x"}})"),
            "structured_outputs.ebnf: structured_outputs.ebnf is not supported; known are json, regex, choice, grammar, json_object, structural_tag");
}

TEST(Parameters, of_completions_have_their_own_defaults) {
  auto p = read(R"({"logprobs":2})", Endpoint::completions);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->sampling.max_tokens, 16);
  EXPECT_EQ(p->sampling.num_logprobs, 2);
}

TEST(Parameters, are_all_in_the_document) {
  std::ifstream file(std::string(BISE_GOLDEN_DIR) + "/../../docs/API.md");
  std::stringstream text;
  text << file.rdbuf();
  for (Endpoint endpoint : {Endpoint::chat, Endpoint::completions}) {
    for (const FieldRow& row : field_table(endpoint)) {
      EXPECT_NE(text.str().find("`" + std::string(row.name) + "`"), std::string::npos) << row.name << " is not in docs/API.md";
    }
  }
}

}  // namespace
}  // namespace bise
