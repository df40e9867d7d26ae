#include "chat/python_json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

namespace bise {
namespace {

TEST(PythonJson, texts_are_read_and_written_as_python_does) {
  std::ifstream in(std::string(BISE_GOLDEN_DIR) + "/own/python_json.json");
  size_t num_cases = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.substr(0, 7) != "{\"text\"") continue;
    if (line.back() == ',') line.pop_back();
    Result<PyJson> golden = parse_python_json(line);
    ASSERT_TRUE(golden) << line;
    const std::string& text = *golden->find("text")->string();
    const PyJson* dumped = golden->find("dumped");
    Result<PyJson> value = parse_python_json(text);
    ++num_cases;
    if (dumped->is_null()) {
      EXPECT_FALSE(value) << text;
      continue;
    }
    ASSERT_TRUE(value) << text << ": " << value.error().message();
    EXPECT_EQ(dump_python_json(*value), *dumped->string()) << text;
  }
  EXPECT_GT(num_cases, 350u);
}

TEST(PythonJson, what_is_written_reads_back_the_same) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    Result<PyJson> read = parse_python_json(python_float_repr(value));
    ASSERT_TRUE(read);
    ASSERT_EQ(*read->real(), value);
  }
}

TEST(PythonJson, limits_are_told_apart_from_wrong_syntax) {
  EXPECT_EQ(parse_python_json("[1,]").error().code(), ErrorCode::corrupt);
  EXPECT_EQ(parse_python_json(std::string(901, '[')).error().code(), ErrorCode::too_large);
  EXPECT_EQ(parse_python_json(std::string(4301, '1')).error().code(), ErrorCode::too_large);
  EXPECT_EQ(parse_python_json("[1,2,3]", {.max_values = 3}).error().code(), ErrorCode::too_large);
  EXPECT_TRUE(parse_python_json(std::string(900, '[') + std::string(900, ']')));
}

TEST(PythonJson, many_keys_and_repeated_keys_cost_no_more_than_others) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) {
    text += "\"" + std::to_string(i % 100000) + "\":" + std::to_string(i) + ",";
  }
  text.back() = '}';
  Result<PyJson> value = parse_python_json(text);
  ASSERT_TRUE(value);
  ASSERT_EQ(value->object()->size(), 100000u);
  EXPECT_EQ(value->object()->front().key, "0");
  EXPECT_EQ(value->object()->front().value.integer()->digits, "100000");
}

TEST(PythonJson, a_member_is_found_as_it_was_written) {
  const std::string text = R"( {"a": {"request": 1}, "request": {"x" :1E5,"x":"\ud83d"} , "b": 0})";
  EXPECT_EQ(*python_json_member_text(text, "request"), R"({"x" :1E5,"x":"\ud83d"})");
  EXPECT_EQ(*python_json_member_text(R"({"a":1,"a": [2]})", "a"), "[2]");
  EXPECT_EQ(python_json_member_text(text, "c").error().code(), ErrorCode::not_found);
  EXPECT_EQ(python_json_member_text("{", "c").error().code(), ErrorCode::corrupt);
  EXPECT_EQ(python_json_member_text("[1]", "c").error().code(), ErrorCode::not_found);
}

TEST(PythonJson, surrogate_halves_meet_or_become_replacement_characters) {
  const std::string high = "\xed\xa0\xbd", low = "\xed\xb8\x80", lost = "\xef\xbf\xbd";
  EXPECT_EQ(join_surrogates(high + low), "\xf0\x9f\x98\x80");
  EXPECT_EQ(join_surrogates("a" + high + "b" + low), "a" + lost + "b" + lost);
  EXPECT_EQ(join_surrogates(high + high + low + low), lost + "\xf0\x9f\x98\x80" + lost);
  EXPECT_EQ(join_surrogates("\xed\x95\x9c\xea\xb5\xad"), "\xed\x95\x9c\xea\xb5\xad");
  EXPECT_EQ(join_surrogates("\xed"), "\xed");
}

TEST(PythonJson, truth_is_pythons) {
  for (const char* text : {"null", "false", "0", "-0", "0.0", "-0.0", "\"\"", "[]", "{}"}) {
    EXPECT_FALSE(parse_python_json(text)->truthy()) << text;
  }
  for (const char* text : {"true", "1", "0.1", "NaN", "\"0\"", "[0]", "{\"a\":0}"}) {
    EXPECT_TRUE(parse_python_json(text)->truthy()) << text;
  }
}

}  // namespace
}  // namespace bise
