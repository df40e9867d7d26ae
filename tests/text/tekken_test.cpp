#include "text/tekken.h"

#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "base/file.h"
#include "base/utf8.h"
#include "support/golden_tekken.h"
#include "support/temp_folder.h"
#include "text/small_tekken.h"

namespace bise {
namespace {

using testing::golden_tekken;
using testing::small_tekken;

std::vector<TokenId> ids_of(const char* text) {
  std::vector<TokenId> ids;
  std::istringstream in(text);
  for (TokenId id; in >> id;) ids.push_back(id);
  return ids;
}

std::string spelled(const std::vector<TokenId>& ids) {
  std::string text;
  for (TokenId id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

TEST(tekken, golden_texts_and_ids_are_reproduced) {
  std::string text = *read_file(BISE_GOLDEN_DIR "/chat/tokenize.json", 1 << 24);
  // nlohmann refuses the lone surrogates of a few cases; the rule says that each counts as U+FFFD.
  const char* digits = "0123456789abcdefABCDEF";
  auto surrogate = [&](size_t at, char low, char high) {
    return text.compare(at, 3, "\\ud") == 0 && text[at + 3] >= low && text[at + 3] <= high &&
           text.find_first_not_of(digits, at + 2) >= at + 6;
  };
  for (size_t at = 0; (at = text.find("\\u", at)) != std::string::npos; at += 6) {
    bool pair = surrogate(at, '8', 'b') && surrogate(at + 6, 'c', 'f');
    if (pair) at += 6;
    else if (surrogate(at, '8', 'f')) text.replace(at, 6, "\\ufffd");
  }
  Json file = *parse_json(text);
  int texts = 0, decodings = 0;
  for (const Json& c : file["cases"]) {
    SCOPED_TRACE("case " + c["id"].dump());
    if (c.contains("decode")) {
      std::vector<TokenId> ids = c["decode"];
      EXPECT_EQ(golden_tekken().decode(ids, c["keep_special"]), c["text"].get<std::string>());
      ++decodings;
    } else if (c.contains("text")) {
      std::string s = c["text"];
      EXPECT_EQ(golden_tekken().encode(s), c["ids"].get<std::vector<TokenId>>());
      EXPECT_EQ(golden_tekken().decode(golden_tekken().encode(s), false), s);
      ++texts;
    } else {
      std::string s;
      for (int i = 0; i < c["text_repeat"][1]; ++i) s += c["text_repeat"][0].get<std::string>();
      EXPECT_EQ(golden_tekken().encode(s).size(), c["n_ids"].get<size_t>());
      EXPECT_EQ(golden_tekken().decode(golden_tekken().encode(s), false), s);
    }
  }
  EXPECT_EQ(texts, 155);
  EXPECT_EQ(decodings, 7);
}

TEST(tekken, published_vectors_are_reproduced) {
  const std::pair<const char*, const char*> vectors[] = {
      {"Hello, world!", "22177 1044 4304 1033"},
      {"{\"reasoning_effort\": \"none\"}", "19227 80277 1302 13196 1609 1449 2811 1429 17670 46005"},
      {"12345", "1049 1050 1051 1052 1053"},
      {"HELLOworld", "7626 1076 7618 34049"},
      {"helloWORLD", "29706 1087 64921"},
      {"camelCaseXMLHttp", "32587 1299 11139 26694 8668"},
      {"don\u2019t", "21797 2698"},
      {"cafe\u0301", "3173 3070 1204 1129"},
      {"\u01c4\u01c6\u01c5", "1199 1132 1199 1134 1199 1133"},
      {"हिन्दी भाषा", "3086 75790 2063 116710"},
      {"ภาษาไทย", "25967 114588 3262 68836"},
      {"தமிழ்", "4911 10116 48156 1930"},
      {"مَرْحَبًا", "39315 1352 7213 1708 43117 2944"},
      {"👍🏽", "1240 1159 1145 1141 1240 1159 1143 1189"},
      {"x²", "1120 16077"},
      {"a  b", "1097 1032 1289"},
      {" \n x", "1032 1010 2460"},
      {"  \n\n  z", "1256 1267 1032 1554"},
      {"end.  ", "1474 1046 1256"},
      {"a\u0085b", "1097 1194 1133 1098"},
      {"a\u200bb", "1097 26580 1098"},
      {"\x1c", "1028"},
      {"==> //", "3107 1062 1895"},
      {"foo(bar);\n\n", "20182 1040 3947 2180"},
      {"http://a.b/c?d=e", "3809 2345 1097 4587 5938 1063 1100 109474"},
      {"[/INST]", "1091 1047 3174 3074 1093"},
      {"[INST]", "1091 3174 3074 1093"},
      {"<s>[INST]", "1060 1115 110391 3174 3074 1093"},
  };
  for (auto [text, ids] : vectors) EXPECT_EQ(spelled(golden_tekken().encode(text)), ids) << text;
}

TEST(tekken, bytes_that_are_not_utf8_count_as_replacement_characters) {
  EXPECT_EQ(golden_tekken().encode("a\xff\xed\xa0\x80z\xf0\x9f"),
            golden_tekken().encode("a\ufffd\ufffd\ufffd\ufffdz\ufffd"));
  EXPECT_EQ(golden_tekken().encode("\xff"), ids_of("66122"));
}

// Each would take minutes to hours if any part of the work grew with the square of a piece's length.
TEST(tekken, a_megabyte_of_one_pattern_is_encoded_and_decodes_back) {
  const char* patterns[] = {"a", "A", " ", "\n", "/", "-", "\u0301", "aA", "\u0301A", " \n", "中", "ก", "qz"};
  for (const char* pattern : patterns) {
    std::string text;
    while (text.size() < 1000000 / BISE_TEST_SHARE) text += pattern;
    EXPECT_TRUE(golden_tekken().decode(golden_tekken().encode(text), false) == text) << pattern;
  }
}

TEST(tekken, the_file_decides_version_sizes_and_settings) {
  const Tekken& tekken = golden_tekken();
  EXPECT_EQ(tekken.version(), TekkenVersion::v15);
  EXPECT_EQ(tekken.vocab_size(), 131072);
  EXPECT_EQ(tekken.num_special_tokens(), 1000);
  ASSERT_TRUE(tekken.image_config().has_value());
  EXPECT_EQ(tekken.image_config()->patch_size, 14);
  EXPECT_EQ(tekken.image_config()->max_image_size, 1540);
  EXPECT_EQ(tekken.image_config()->spatial_merge_size, 2);
  ASSERT_TRUE(tekken.settings() && tekken.settings()->reasoning_effort);
  EXPECT_EQ(tekken.settings()->reasoning_effort->values, (std::vector<std::string>{"none", "high"}));
  EXPECT_EQ(tekken.settings()->reasoning_effort->default_value, "none");
  EXPECT_FALSE(tekken.settings()->json_schema);
  EXPECT_EQ(tekken.special("[THINK]"), 34);
  EXPECT_EQ(tekken.special("<SPECIAL_999>"), 999);
  EXPECT_EQ(tekken.special("<SPECIAL_1000>"), std::nullopt);
  EXPECT_EQ(tekken.special("Hello"), std::nullopt);
  EXPECT_TRUE(tekken.is_special(0) && tekken.is_special(999));
  EXPECT_FALSE(tekken.is_special(-1) || tekken.is_special(1000));
  EXPECT_EQ(tekken.token_bytes(9), "[TOOL_CALLS]");
  EXPECT_EQ(tekken.token_bytes(99679).size(), 76u);
  EXPECT_EQ(tekken.token_bytes(-1), "");
  EXPECT_EQ(tekken.token_bytes(131072), "");
}

std::unique_ptr<Tekken> parse_small(const Json& file) {
  auto loaded = Tekken::parse(file.dump(), "t");
  if (!loaded) ADD_FAILURE() << loaded.error().message();
  return loaded ? std::move(loaded).value() : nullptr;
}

TEST(tekken, special_tokens_are_filled_up_from_the_length_of_the_list) {
  auto tekken = parse_small(small_tekken());
  ASSERT_TRUE(tekken);
  EXPECT_EQ(tekken->special("<SPECIAL_4>"), 4);
  EXPECT_EQ(tekken->token_bytes(9), "<SPECIAL_9>");
  EXPECT_EQ(spelled(tekken->encode("hellohelp")), "269 266 118 122");
}

TEST(tekken, old_files_may_leave_out_the_special_tokens) {
  for (const char* version : {"v3", "v7"}) {
    Json file = small_tekken(version);
    file.erase("special_tokens");
    file["config"]["default_num_special_tokens"] = 30;
    file["config"]["default_vocab_size"] = 30 + 256;
    auto tekken = parse_small(file);
    ASSERT_TRUE(tekken);
    EXPECT_EQ(tekken->special("[TOOL_CONTENT]"), 19);
    EXPECT_EQ(tekken->special("<SPECIAL_20>"), 20);
    // The vocabulary is cut after 256 entries, so the longer tokens are gone.
    EXPECT_EQ(tekken->encode("he").size(), 2u);
  }
}

TEST(tekken, image_sizes_may_be_called_multimodal_up_to_v11) {
  Json file = small_tekken("v11");
  file["multimodal"] = {{"image_patch_size", 16}, {"max_image_size", 1024}};
  auto tekken = parse_small(file);
  ASSERT_TRUE(tekken && tekken->image_config());
  EXPECT_EQ(tekken->image_config()->patch_size, 16);
  EXPECT_EQ(tekken->image_config()->spatial_merge_size, 1);
}

TEST(tekken, the_settings_builder_is_read_from_the_file) {
  Json file = small_tekken();
  EXPECT_FALSE(parse_small(file)->settings());
  file["model_settings_builder"] = Json::parse(R"({
      "reasoning_effort": {"type": "enum", "values": ["low", "max"], "accepts_none": true, "default": "max"},
      "json_schema": {"type": "json_schema", "accepts_none": false, "default": null}})");
  auto tekken = parse_small(file);
  ASSERT_TRUE(tekken && tekken->settings() && tekken->settings()->reasoning_effort);
  EXPECT_EQ(tekken->settings()->reasoning_effort->default_value, "max");
  EXPECT_TRUE(tekken->settings()->json_schema);
  file["model_settings_builder"] = Json::object();
  tekken = parse_small(file);
  ASSERT_TRUE(tekken && tekken->settings());
  EXPECT_FALSE(tekken->settings()->reasoning_effort);
  EXPECT_FALSE(tekken->settings()->json_schema);
}

TEST(tekken, each_corruption_of_the_file_has_its_own_one_line_message) {
  const std::pair<std::function<void(Json&)>, const char*> cases[] = {
      {[](Json& f) { f.erase("config"); }, "t: config: missing"},
      {[](Json& f) { f["config"] = 1; }, "config: expected an object, found 1"},
      {[](Json& f) { f["config"]["version"] = "v99"; },
       "config.version: found \"v99\", expected v3, v7, v11, v13 or v15"},
      {[](Json& f) { f["config"].erase("version"); }, "config.version: missing"},
      {[](Json& f) { f["config"]["pattern"] = "\\s+"; }, "config.pattern: found \"\\s+\""},
      {[](Json& f) { f["config"]["default_vocab_size"] = 100; },
       "config.default_vocab_size: found 100, expected an integer from 266"},
      {[](Json& f) { f["config"]["default_vocab_size"] = 271; },
       "vocab: found 260 tokens, expected at least 261"},
      {[](Json& f) { f["config"]["default_vocab_size"] = 1e300; }, "config.default_vocab_size: found"},
      {[](Json& f) { f["config"]["default_num_special_tokens"] = -1; },
       "config.default_num_special_tokens: found -1"},
      {[](Json& f) { f["config"]["default_num_special_tokens"] = 3; },
       "special_tokens: found more than the 3 tokens"},
      {[](Json& f) { f.erase("special_tokens"); }, "special_tokens: missing; files of version v15"},
      {[](Json& f) { f["special_tokens"][2]["rank"] = 7; },
       "special_tokens[2].rank: found 7, expected an integer from 2 to 2"},
      {[](Json& f) { f["special_tokens"][2]["token_str"] = "<s>"; },
       "\"<s>\" is listed as id 1 and again as id 2"},
      {[](Json& f) { f["special_tokens"][2]["token_str"] = "<SPECIAL_8>"; },
       "\"<SPECIAL_8>\" is listed as id 2 and again as id 8"},
      {[](Json& f) { f["special_tokens"][2]["token_str"] = ""; }, "special_tokens[2].token_str: found 0 bytes"},
      {[](Json& f) { f.erase("vocab"); }, "vocab: missing"},
      {[](Json& f) { f["vocab"] = "x"; }, "vocab: expected a list, found \"x\""},
      {[](Json& f) { f["vocab"][3] = nullptr; }, "vocab[3]: expected an object, found null"},
      {[](Json& f) { f["vocab"][3].erase("rank"); }, "vocab[3]: rank and token_bytes are needed"},
      {[](Json& f) { f["vocab"][3]["rank"] = 4; }, "vocab[3].rank: found 4, expected 3"},
      {[](Json& f) { f["vocab"][3]["token_bytes"] = "BA=="; }, "vocab[3].token_bytes: expected the single byte 3"},
      {[](Json& f) { f["vocab"][257]["token_bytes"] = "aGU"; },
       "vocab[257].token_bytes: found \"aGU\", expected one string of base64"},
      {[](Json& f) { f["vocab"][257]["token_bytes"] = "aG=U"; }, "expected one string of base64"},
      {[](Json& f) { f["vocab"][257]["token_bytes"] = ""; }, "vocab[257].token_bytes: found 0 bytes"},
      {[](Json& f) { f["vocab"][257]["token_bytes"] = f["vocab"][256]["token_bytes"]; },
       "vocab[257].token_bytes: the same bytes as vocab[256]"},
      {[](Json& f) { f["image"] = {{"image_patch_size", 0}, {"max_image_size", 9}}; },
       "image.image_patch_size: found 0"},
      {[](Json& f) { f["image"] = {{"image_patch_size", 14}}; }, "image.max_image_size: missing"},
      {[](Json& f) { f["image"] = {{"patch", 14}}; }, "image: unknown field \"patch\""},
      {[](Json& f) { f["multimodal"] = {{"image_patch_size", 14}}; },
       "multimodal: files of version v15 must call it \"image\""},
      {[](Json& f) { f["type"] = "SentencePiece"; }, "type: found \"SentencePiece\", expected \"Tekken\""},
      {[](Json& f) { f["version"] = 2; }, "version: found 2"},
      {[](Json& f) {
         f["config"]["version"] = "v13";
         f["model_settings_builder"] = Json::object();
       },
       "model_settings_builder: files of version v13 cannot have one"},
      {[](Json& f) { f["model_settings_builder"]["speed"] = 1; }, "unknown field \"speed\""},
      {[](Json& f) { f["model_settings_builder"] = Json::parse(R"({"reasoning_effort": {"values": ["huge"], "default": "huge"}})"); },
       "reasoning_effort.values: found \"huge\", expected none, minimal"},
      {[](Json& f) { f["model_settings_builder"] = Json::parse(R"({"reasoning_effort": {"values": ["low"], "default": "high"}})"); },
       "reasoning_effort.default: found \"high\", expected one of its values"},
      {[](Json& f) { f["model_settings_builder"] = Json::parse(R"({"reasoning_effort": {"values": ["low", "low"], "default": "low"}})"); },
       "\"low\" occurs twice"},
      {[](Json& f) { f["model_settings_builder"] = Json::parse(R"({"reasoning_effort": {"values": ["low"], "accepts_none": false, "default": "low"}})"); },
       "accepts_none: expected true"},
      {[](Json& f) { f["model_settings_builder"] = Json::parse(R"({"json_schema": {"type": "enum"}})"); },
       "json_schema.type: found \"enum\", expected \"json_schema\""},
  };
  for (const auto& [damage, expected] : cases) {
    Json file = small_tekken();
    damage(file);
    auto loaded = Tekken::parse(file.dump(), "t");
    ASSERT_FALSE(loaded) << expected;
    std::string message = loaded.error().message();
    EXPECT_EQ(message.rfind("t: ", 0), 0u) << message;
    EXPECT_NE(message.find(expected), std::string::npos) << message << "\nexpected: " << expected;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 300u) << message;
  }
}

TEST(tekken, text_that_is_not_a_whole_json_document_is_refused) {
  std::string whole = small_tekken().dump();
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), whole + "x",
        whole.substr(0, whole.size() - 1), whole.substr(0, whole.size() / 2), "\xff" + whole,
        std::string(1000, '[') + std::string(1000, ']'), std::string(100, '\0')}) {
    EXPECT_FALSE(Tekken::parse(text, "t")) << text.substr(0, 20);
  }
  std::string twice = whole;
  twice.insert(1, "\"vocab\":[],");
  auto loaded = Tekken::parse(twice, "t");
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message().find("\"vocab\" occurs twice"), std::string::npos);
}

TEST(tekken, a_file_is_opened_by_its_path_and_a_missing_one_is_named) {
  TempFolder folder;
  std::string path = folder.write("small_tekken.json", small_tekken().dump());
  auto loaded = Tekken::open(path);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ((*loaded)->vocab_size(), 270);
  auto missing = Tekken::open(path + ".none");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("small_tekken.json.none"), std::string::npos);
  folder.write("small_tekken.json", "");
  EXPECT_FALSE(Tekken::open(path));
}

}  // namespace
}  // namespace bise
