#include "app/probe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

namespace bise {
namespace {

const char kTekken[] = BISE_GOLDEN_DIR "/model/ckpt/medium/hf-bf16/tekken.json";

std::unique_ptr<Probe> open(const char* what) {
  ProbeOptions options;
  options.what = what;
  options.model = kTekken;
  auto probe = create_text_probe(options, Log());
  EXPECT_TRUE(probe) << probe.error().message();
  return *std::move(probe);
}

// All answers to one line.
std::vector<Json> ask(Probe& probe, const std::string& line) {
  std::vector<Json> answers;
  auto written = answer_line(probe, line, [&](std::string_view text) -> Result<void> {
    EXPECT_EQ(text.back(), '\n');
    EXPECT_EQ(text.find('\n'), text.size() - 1) << "one object, one line";
    answers.push_back(*parse_json(text));
    return {};
  });
  EXPECT_TRUE(written);
  return answers;
}
Json ask_one(Probe& probe, const std::string& line) {
  std::vector<Json> answers = ask(probe, line);
  EXPECT_EQ(answers.size(), 1u);
  return answers.empty() ? Json() : answers[0];
}

TEST(Probe, text_becomes_ids_and_ids_become_text) {
  auto probe = open("tokenize");
  Json ids = ask_one(*probe, R"({"id": 7, "text": "Hello é"})");
  EXPECT_EQ(ids["id"], 7);
  ASSERT_TRUE(ids["ids"].is_array());
  Json text = ask_one(*probe, Json{{"id", "x"}, {"decode", ids["ids"]}}.dump());
  EXPECT_EQ(text["text"], "Hello é");
  EXPECT_EQ(text["id"], "x");
  EXPECT_EQ(ask_one(*probe, R"({"decode": [3, 1072], "keep_special": true})")["text"], "[INST]H");
  EXPECT_EQ(ask_one(*probe, R"({"decode": [3, 1072]})")["text"], "H");
}

TEST(Probe, a_lone_surrogate_counts_as_the_replacement_character) {
  auto probe = open("tokenize");
  Json replaced = ask_one(*probe, R"({"text": "a\ufffdb"})")["ids"];
  EXPECT_EQ(ask_one(*probe, R"({"text": "a\ud800b"})")["ids"], replaced);
  EXPECT_EQ(ask_one(*probe, R"({"text": "a\uDC00b"})")["ids"], replaced);
  EXPECT_EQ(ask_one(*probe, R"({"text": "\ud83d\ude00"})")["ids"],
            ask_one(*probe, R"({"text": "😀"})")["ids"]);
  EXPECT_EQ(ask_one(*probe, R"({"text": "\\ud800"})")["ids"],
            ask_one(*probe, Json{{"text", "\\ud800"}}.dump())["ids"]);
}

TEST(Probe, surrogates_are_repaired_only_where_they_stand_alone) {
  auto repaired = [](std::string text) {
    replace_lone_surrogates(text);
    return text;
  };
  EXPECT_EQ(repaired(R"("\ud800")"), R"("\ufffd")");
  EXPECT_EQ(repaired(R"("\ud800\ud800\udc00")"), R"("\ufffd\ud800\udc00")");
  EXPECT_EQ(repaired(R"("\\ud800")"), R"("\\ud800")");
  EXPECT_EQ(repaired(R"("\u12)"), R"("\u12)");
  EXPECT_EQ(repaired("\\"), "\\");
}

TEST(Probe, a_bad_line_gets_an_error_with_message_param_and_code) {
  auto probe = open("tokenize");
  for (const char* line : {"{", "[]", "7", "\"text\"", "{\"text\": 7}", "{\"txt\": \"a\"}", "{}",
                           "nonsense", "{\"text\": \"a\", \"decode\": [1]}", "{\"decode\": [-1]}",
                           "{\"decode\": [1.5]}", "{\"decode\": [99999999999]}", "{\"decode\": 5}",
                           "{\"text\": \"\xFF\"}", "{\"text\": \"a\", \"text\": \"b\"}"}) {
    Json answer = ask_one(*probe, line);
    ASSERT_TRUE(answer.contains("error")) << line;
    EXPECT_TRUE(answer["error"]["message"].is_string()) << line;
    EXPECT_TRUE(answer["error"].contains("param")) << line;
    EXPECT_TRUE(answer["error"]["code"].is_string()) << line;
  }
  Json unknown = ask_one(*probe, R"({"id": 3, "txt": "a"})");
  EXPECT_EQ(unknown["id"], 3);
  EXPECT_EQ(unknown["error"]["param"], "txt");
  EXPECT_TRUE(ask_one(*probe, R"({"text": "still alive"})").contains("ids"));
}

TEST(Probe, deep_nesting_is_refused_not_followed) {
  auto probe = open("tokenize");
  std::string deep = "{\"text\": " + std::string(200000, '[');
  EXPECT_TRUE(ask_one(*probe, deep).contains("error"));
  auto encode = open("encode");
  EXPECT_TRUE(ask_one(*encode, "{\"request\": " + std::string(200000, '[')).contains("error"));
}

TEST(Probe, requests_are_encoded_and_refusals_carry_a_kind) {
  auto probe = open("encode");
  Json answer = ask_one(
      *probe,
      R"({"id": 1, "request": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}, "strict": true})");
  ASSERT_TRUE(answer.contains("ids")) << answer.dump();
  EXPECT_EQ(answer["ids"][0], 1);  // BOS
  EXPECT_TRUE(answer["image_grid"].is_array());
  Json refused = ask_one(*probe, R"({"id": 2, "request": {"messages": []}, "strict": true})");
  EXPECT_EQ(refused["id"], 2);
  EXPECT_TRUE(refused["error"].is_string());
  EXPECT_TRUE(refused["message"].is_string());
  EXPECT_TRUE(ask_one(*probe, R"({"id": 3})")["error"].is_string());
}

TEST(Probe, the_request_is_found_wherever_it_stands_in_the_line) {
  auto probe = open("encode");
  Json first = ask_one(
      *probe, R"({"request": {"messages": [{"role": "user", "content": "a\"}],{"}]}, "id": 1})");
  Json last = ask_one(
      *probe,
      R"({ "id" : 1 , "strict" : false , "request" : {"messages": [{"role": "user", "content": "a\"}],{"}]} })");
  ASSERT_TRUE(first.contains("ids")) << first.dump();
  EXPECT_EQ(first, last);
}

TEST(Probe, ids_are_parsed_to_a_message_or_to_deltas) {
  auto probe = open("parse");
  Json message = ask_one(*probe, R"({"ids": [1072, 1105, 2], "finish": "stop"})");
  EXPECT_EQ(message["content"], "Hi");
  EXPECT_EQ(message["finish_reason"], "stop");
  EXPECT_TRUE(message["reasoning_content"].is_null());
  EXPECT_TRUE(message["tool_calls"].is_array());
  Json stream =
      ask_one(*probe, R"({"ids": [34, 1072, 35, 1105], "finish": "length", "stream": true})");
  std::string content, reasoning;
  for (const Json& delta : stream["deltas"]) {
    if (delta.contains("content")) content += delta["content"].get<std::string>();
    if (delta.contains("reasoning_content"))
      reasoning += delta["reasoning_content"].get<std::string>();
  }
  EXPECT_EQ(content, "i");
  EXPECT_EQ(reasoning, "H");
  EXPECT_EQ(stream["finish_reason"], "length");
  EXPECT_TRUE(ask_one(*probe, R"({"ids": [1072], "finish": "now"})").contains("error"));
}

TEST(Probe, lines_are_answered_in_order_and_blank_ones_skipped) {
  auto probe = open("tokenize");
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::string input =
      "{\"id\":1,\"text\":\"a\"}\n\n  \r\nbad\n{\"id\":2,\"text\":\"b\"}";  // no newline at the end
  std::thread feeder([&] {
    for (char c : input) ASSERT_EQ(write(ends[1], &c, 1), 1);
    close(ends[1]);
  });
  std::vector<Json> answers;
  auto done = run_probe(*probe, ends[0], [&](std::string_view text) -> Result<void> {
    answers.push_back(*parse_json(text));
    return {};
  });
  feeder.join();
  close(ends[0]);
  ASSERT_TRUE(done);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0]["id"], 1);
  EXPECT_TRUE(answers[1].contains("error"));
  EXPECT_EQ(answers[2]["id"], 2);
}

TEST(Probe, an_answer_that_cannot_be_written_ends_the_run) {
  auto probe = open("tokenize");
  auto result = answer_line(*probe, R"({"text": "a"})", [](std::string_view) -> Result<void> {
    return Error(ErrorCode::io, "gone");
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "gone");
}

}  // namespace
}  // namespace bise
