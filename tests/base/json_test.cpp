#include "base/json.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "base/utf8.h"

namespace bise {
namespace {

std::string message_of(std::string_view text, const JsonLimits& limits = {}) {
  auto parsed = parse_json(text, limits);
  return parsed ? "" : parsed.error().message();
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(json, values_are_those_of_the_plain_parser) {
  for (const char* text :
       {"null", " true ", "-0", "18446744073709551615", "-9223372036854775808", "1e3", "0.1", "\"\"",
        "\"a\\u00e9\\ud83d\\ude00\\n\"", "[]", "{}", "[1,[2,{\"a\":[]}],null]",
        R"({"b":1,"a":{"x":[1,2],"y":{}},"c":[{"d":null}]})", "[1.5,-2,\"x\",false]"}) {
    auto ours = parse_json(text);
    ASSERT_TRUE(ours) << text;
    EXPECT_EQ(Json::parse(text).dump(), ours->dump()) << text;
  }
}

TEST(json, random_documents_are_read_back_as_they_were) {
  std::mt19937 random(4);
  std::function<Json(int)> make = [&](int depth) -> Json {
    switch (random() % (depth > 4 ? 5 : 7)) {
      case 0: return nullptr;
      case 1: return random() % 2 == 0;
      case 2: return static_cast<int64_t>(random()) - (int64_t{1} << 31);
      case 3: return static_cast<double>(random()) / 1024;
      case 4: return std::string(random() % 20, static_cast<char>('a' + random() % 26));
      case 5: {
        Json array = Json::array();
        for (size_t n = random() % 6; n > 0; --n) array.push_back(make(depth + 1));
        return array;
      }
      default: {
        Json object = Json::object();
        for (size_t n = random() % 40; n > 0; --n) object["k" + std::to_string(n * 7 % 41)] = make(depth + 1);
        return object;
      }
    }
  };
  for (int i = 0; i < 200; ++i) {
    std::string text = make(0).dump();
    auto read = parse_json(text);
    ASSERT_TRUE(read) << text;
    EXPECT_EQ(text, read->dump());
  }
}

TEST(json, what_is_not_json_is_refused_with_the_byte) {
  for (const char* text : {"", " ", "{", "[1,]", "{\"a\" 1}", "nul", "1 2", "{\"a\":1}}", "'a'", "01",
                           "\"\\ud800\"", "\"\xFF\"", "\"a", "[1e999]", "NaN", "// x\n1", "\xEF\xBB"}) {
    std::string message = message_of(text);
    EXPECT_TRUE(contains(message, "not valid JSON at byte")) << text << ": " << message;
    EXPECT_TRUE(is_valid_utf8(message)) << message;
    EXPECT_LT(message.size(), 300u);
  }
  EXPECT_TRUE(is_valid_utf8(message_of("\"" + std::string(500, '\xC3') + "\"")));
  EXPECT_LT(message_of("[" + std::string(5000, 'x')).size(), 300u);
}

TEST(json, a_repeated_key_is_refused_or_the_last_one_counts) {
  for (int num_before : {0, 1, 15, 16, 17, 100}) {
    std::string text = "{\"twice\":1";
    for (int i = 0; i < num_before; ++i) text += ",\"k" + std::to_string(i) + "\":0";
    text += ",\"twice\":{\"x\":[2]},\"last\":3}";
    EXPECT_EQ("the key \"twice\" occurs twice in one object", message_of(text)) << num_before;
    Json lax = parse_json(text, {.reject_duplicate_keys = false}).value();
    EXPECT_EQ(static_cast<size_t>(num_before) + 2, lax.size());
    EXPECT_EQ("{\"x\":[2]}", lax["twice"].dump());
    EXPECT_EQ("twice", lax.begin().key());
    EXPECT_EQ(3, lax["last"].get<int>());
  }
  EXPECT_TRUE(parse_json(R"({"a":{"a":1},"b":{"a":[{"a":2}]}})"));
  // The key in the message is cut, and never inside a character.
  std::string name(59, 'n');
  for (int i = 0; i < 20; ++i) name += "\xE2\x82\xAC";
  std::string message = message_of("{\"" + name + "\":1,\"" + name + "\":2}");
  EXPECT_TRUE(is_valid_utf8(message));
  EXPECT_LT(message.size(), 120u);
}

TEST(json, depth_bytes_and_values_are_limited) {
  auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(64)));
  EXPECT_EQ("nested deeper than 64 levels", message_of(nested(65)));
  EXPECT_EQ("nested deeper than 64 levels", message_of(std::string(1 << 20, '[')));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_EQ("nested deeper than 64 levels", message_of(objects));
  EXPECT_TRUE(parse_json("[1,2,3]", {.max_values = 4}));
  EXPECT_EQ("more than 3 values", message_of("[1,2,3]", {.max_values = 3}));
  auto large = parse_json("[1,2,3]", {.max_bytes = 6});
  ASSERT_FALSE(large);
  EXPECT_EQ(ErrorCode::too_large, large.error().code());
  EXPECT_EQ("JSON of 7 bytes; the limit is 6", large.error().message());
}

TEST(json, an_object_of_very_many_keys_takes_no_quadratic_time) {
  // 300,000 keys: 4.5e10 comparisons if each were searched among those before it.
  std::string text = "{";
  for (int i = 0; i < 300000; ++i) text += "\"key" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  text += "\"end\":null}";
  Json parsed = parse_json(text).value();
  EXPECT_EQ(300001u, parsed.size());
  EXPECT_EQ("end", std::prev(parsed.end()).key());
}

TEST(json, fields_have_their_type_or_a_fallback) {
  Json o = parse_json(R"({"i":3,"whole":1e3,"f":0.5,"s":"x","b":true,"n":null,"o":{"k":1},"a":[1,2],
                          "big":18446744073709551615,"wide":1e30})")
               .value();
  EXPECT_EQ(3, json_int(o, "i", 9, "").value());
  EXPECT_EQ(1000, json_int(o, "whole", 9, "").value());
  EXPECT_EQ(9, json_int(o, "n", 9, "").value());
  EXPECT_EQ(9, json_int(o, "missing", 9, "").value());
  EXPECT_EQ(3.0, json_number(o, "i", 9, "").value());
  EXPECT_EQ(0.5, json_number(o, "f", 9, "").value());
  EXPECT_TRUE(json_bool(o, "b", false, "").value());
  EXPECT_EQ("x", json_string(o, "s", "", "").value());
  EXPECT_EQ(1, (*json_object(o, "o", "").value())["k"].get<int>());
  EXPECT_EQ(nullptr, json_object(o, "n", "").value());
  EXPECT_EQ(nullptr, json_object(o, "missing", "").value());
  EXPECT_TRUE(json_has(o, "i"));
  EXPECT_FALSE(json_has(o, "n") || json_has(o, "missing") || json_has(Json(3), "i"));
  EXPECT_EQ(7, json_int(Json(), "i", 7, "").value());  // null: everything is missing
}

TEST(json, a_wrong_type_names_the_path_and_what_was_found) {
  Json o = parse_json(R"({"f":0.5,"s":"x","o":{"k":1},"a":[1,2],"big":18446744073709551615,"t":true})").value();
  auto told = [](const auto& result) { return result ? "" : result.error().message(); };
  EXPECT_EQ("rope.f: expected an integer, found 0.5", told(json_int(o, "f", 0, "rope")));
  EXPECT_EQ("big: expected an integer, found 18446744073709551615", told(json_int(o, "big", 0, "")));
  EXPECT_EQ("s: expected an integer, found the string \"x\"", told(json_int(o, "s", 0, "")));
  EXPECT_EQ("t: expected a finite number, found true", told(json_number(o, "t", 0, "")));
  EXPECT_EQ("f: expected true or false, found 0.5", told(json_bool(o, "f", false, "")));
  EXPECT_EQ("a: expected a string, found an array of 2 values", told(json_string(o, "a", "", "")));
  EXPECT_EQ("o: expected a string, found an object of 1 keys", told(json_string(o, "o", "", "")));
  EXPECT_EQ("p.a: expected an object, found an array of 2 values", told(json_object(o, "a", "p")));
  EXPECT_EQ("p: expected an object, found an array of 2 values", told(json_int(o["a"], "k", 0, "p")));
  Json wide = parse_json("{\"v\":1e30,\"s\":\"" + std::string(1000, 'z') + "\"}").value();
  EXPECT_FALSE(json_int(wide, "v", 0, ""));
  EXPECT_LT(told(json_int(wide, "s", 0, "")).size(), 130u);
}

}  // namespace
}  // namespace bise
