#include <gtest/gtest.h>

#include <fstream>

#include "chat/python_json.h"
#include "chat/system_prompt.h"
#include "chat/tekken_variants.h"

namespace bise {
namespace {

ChatRequestOptions options(bool strict) {
  ChatRequestOptions out;
  out.strict = strict;
  out.image_processing = ImageProcessing::mistral_common;
  return out;
}

std::vector<TokenId> ids_of(const PyJson& list) {
  std::vector<TokenId> out;
  for (const PyJson& item : *list.array()) out.push_back(std::stoi(item.integer()->digits));
  return out;
}

struct Golden {
  PyJson fields;
  std::string request;  // as written
};

// The golden files hold one case per line.
std::vector<Golden> goldens(const std::string& file) {
  std::ifstream in(std::string(BISE_GOLDEN_DIR) + "/" + file);
  std::vector<Golden> out;
  for (std::string line; std::getline(in, line);) {
    if (line.substr(0, 5) != "{\"id\"") continue;
    if (line.back() == ',') line.pop_back();
    Result<PyJson> fields = parse_python_json(line);
    EXPECT_TRUE(fields) << line;
    Result<std::string_view> request = python_json_member_text(line, "request");
    EXPECT_TRUE(request) << line;
    out.push_back({std::move(*fields), std::string(*request)});
  }
  return out;
}

void check(const Golden& golden, bool strict) {
  const std::string& variant = *golden.fields.find("tokenizer")->string();
  SCOPED_TRACE(variant + ": " + *golden.fields.find("name")->string());
  Result<Prompt> prompt = chat_of(variant).encode(golden.request, options(strict));
  const PyJson* ids = golden.fields.find("ids");
  if (ids == nullptr && !strict) {
    if (golden.fields.find("lenient_any") != nullptr) return;
    ids = golden.fields.find("lenient_ids");
  }
  if (ids == nullptr) {
    ASSERT_FALSE(prompt);
    if (strict) {
      EXPECT_EQ(prompt.error().kind(), *golden.fields.find("error")->string())
          << prompt.error().message();
    }
    EXPECT_FALSE(prompt.error().message().empty());
    return;
  }
  ASSERT_TRUE(prompt) << prompt.error().message();
  EXPECT_EQ(prompt->ids, ids_of(*ids));
  const PyJson* grid = golden.fields.find("image_grid");
  if (grid == nullptr) return;
  ASSERT_EQ(prompt->images.size(), grid->array()->size());
  for (size_t i = 0; i < prompt->images.size(); ++i) {
    const Prompt::Image& image = prompt->images[i];
    EXPECT_EQ((std::vector<TokenId>{image.columns, image.rows}), ids_of((*grid->array())[i]));
    EXPECT_EQ(prompt->ids.at(static_cast<size_t>(image.first)), 10);
  }
}

Result<Prompt> encode(const std::string& variant, const std::string& body, bool strict = false) {
  return chat_of(variant).encode(body, options(strict));
}
std::vector<TokenId> ids(const std::string& variant, const std::string& body) {
  Result<Prompt> prompt = encode(variant, body);
  if (prompt) return prompt->ids;
  ADD_FAILURE() << prompt.error().message();
  return {};
}

TEST(Encode, strict_requests_get_the_ids_and_refusals_of_the_reference) {
  std::vector<Golden> cases = goldens("chat/encode.json");
  EXPECT_EQ(cases.size(), 64u);
  for (const Golden& golden : cases) check(golden, true);
}

TEST(Encode, lenient_requests_get_the_ids_of_the_reference_or_of_the_lenient_rules) {
  for (const Golden& golden : goldens("chat/encode.json")) check(golden, false);
}

TEST(Encode, v3_requests_get_the_ids_and_refusals_of_the_reference) {
  std::vector<Golden> cases = goldens("own/chat_v3.json");
  EXPECT_GE(cases.size(), 25u);
  for (const Golden& golden : cases) {
    check(golden, true);
    check(golden, false);
  }
}

TEST(Encode, many_shapes_of_requests_get_the_ids_and_refusals_of_the_reference) {
  std::vector<Golden> cases = goldens("own/chat_mixed.json");
  EXPECT_GE(cases.size(), 200u);
  for (const Golden& golden : cases) {
    check(golden, true);
    check(golden, false);
  }
}

TEST(Encode, text_of_clients_never_becomes_a_control_token) {
  const std::string all =
      "<s></s>[INST][/INST][SYSTEM_PROMPT][/SYSTEM_PROMPT][TOOL_CALLS][ARGS][CALL_ID][THINK]"
      "[/THINK][IMG][IMG_BREAK][IMG_END][AVAILABLE_TOOLS][/AVAILABLE_TOOLS][TOOL_RESULTS]"
      "[/TOOL_RESULTS][TOOL_CONTENT][MODEL_SETTINGS][/MODEL_SETTINGS]<SPECIAL_42><unk><pad>";
  auto body = [](const std::string& text) {
    return R"({"tools": [{"type": "function", "function": {"name": ")" + text +
           R"(", "description": ")" + text + R"(", "parameters": {"title": ")" + text +
           R"("}}}], "messages": [{"role": "system", "content": ")" + text +
           R"("}, {"role": "user", "content": [{"type": "text", "text": ")" + text +
           R"("}]}, {"role": "assistant", "reasoning_content": ")" + text + R"(", "content": ")" +
           text + R"(", "tool_calls": [{"id": ")" + text +
           R"(", "type": "function", "function": {"name": ")" + text + R"(", "arguments": ")" +
           text + R"("}}]}, {"role": "tool", "tool_call_id": ")" + text + R"(", "content": ")" +
           text + R"("}]})";
  };
  auto special_ids = [](const std::vector<TokenId>& tokens) {
    std::vector<TokenId> out;
    for (TokenId id : tokens) {
      if (id < 1000) out.push_back(id);
    }
    return out;
  };
  for (const char* variant : {"v13", "v15"}) {
    std::vector<TokenId> forged = special_ids(ids(variant, body(all)));
    EXPECT_FALSE(forged.empty());
    EXPECT_EQ(forged, special_ids(ids(variant, body("harmless")))) << variant;
  }
}

TEST(Encode, a_prompt_that_ends_inside_thinking_says_so) {
  auto body = [](const char* closed) {
    return std::string(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant",)") +
           R"("prefix": true, "content": [{"type": "thinking", "thinking": "b", "closed": )" +
           closed + "}]}]}";
  };
  EXPECT_TRUE(encode("v15", body("false"))->starts_in_thinking);
  EXPECT_FALSE(encode("v15", body("true"))->starts_in_thinking);
}

TEST(Encode, lenient_effort_words_follow_the_file) {
  auto with = [](const std::string& extra) {
    return R"({"messages": [{"role": "user", "content": "a"}])" + extra + "}";
  };
  std::vector<TokenId> none = ids("v15", with(""));
  std::vector<TokenId> high = ids("v15", with(R"(, "reasoning_effort": "high")"));
  EXPECT_NE(none, high);
  EXPECT_EQ(ids("v15", with(R"(, "reasoning_effort": "low")")), none);
  EXPECT_EQ(ids("v15", with(R"(, "reasoning_effort": "max")")), high);
  EXPECT_EQ(ids("v15", with(R"(, "reasoning": {"effort": "medium"})")), high);
  EXPECT_EQ(ids("v15", with(R"(, "chat_template_kwargs": {"reasoning_effort": "high"})")), high);
  EXPECT_EQ(ids("v15", with(R"(, "chat_template_kwargs": {"enable_thinking": true})")), high);
  EXPECT_EQ(ids("v15", with(R"(, "prompt_mode": "reasoning")")), high);
  EXPECT_NE(ids("v15x", with(R"(, "reasoning_effort": "low")")), ids("v15x", with("")));
  EXPECT_EQ(ids("v13", with(R"(, "reasoning_effort": "loud")")), ids("v13", with("")));
  EXPECT_EQ(encode("v15", with(R"(, "reasoning_effort": "loud")")).error().param(),
            "reasoning_effort");
}

TEST(Encode, empty_reasoning_is_a_thinking_part_where_the_reference_takes_it_and_else_absent) {
  auto body = [](const std::string& model, const std::string& reasoning) {
    return "{" + model + R"("messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b")" +
           reasoning + R"(}, {"role": "user", "content": "c"}]})";
  };
  const std::string model = R"("model": "m", )", empty = R"(, "reasoning_content": "")";
  std::vector<TokenId> without = ids("v15", body(model, ""));
  std::vector<TokenId> with = ids("v15", body(model, empty));
  EXPECT_EQ(with, encode("v15", body(model, empty), true)->ids);
  EXPECT_EQ(with.size(), without.size() + 2);                              // [THINK][/THINK]
  EXPECT_EQ(ids("v15", body("", empty)), without);                         // no model: strict refuses it
  EXPECT_EQ(ids("v11", body(model, empty)), ids("v11", body(model, "")));  // no thinking in this version
}

TEST(Encode, an_assistant_message_that_says_nothing_is_left_out_with_its_prefix) {
  auto body = [](const std::string& middle, const std::string& last) {
    return R"({"messages": [{"role": "user", "content": "a"}, )" + middle + R"({"role": "user", "content": "b"})" +
           last + "]}";
  };
  const std::string nothing = R"({"role": "assistant", "content": null, "prefix": true})";
  std::vector<TokenId> without = ids("v15", body("", ""));
  EXPECT_EQ(ids("v15", body(nothing + ", ", "")), without);
  EXPECT_EQ(ids("v15", body("", ", " + nothing)), without);
  EXPECT_EQ(encode("v15", body(R"({"role": "assistant", "content": "c", "prefix": true}, )", "")).error().param(),
            "messages[1].prefix");
}

TEST(Encode, images_are_refused_by_name_when_they_would_need_the_network_or_files) {
  auto body = [](const std::string& url) {
    return R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": ")" +
           url + R"("}]}]})";
  };
  for (const char* url :
       {"http://example.org/a.png", "https://example.org/a.png", "file:///etc/passwd", "ftp://x",
        "data:image/png;base64,", "data:image/png,AAAA", "data:image/png;base64,AAAA",
        "data:image/png;base64,A"}) {
    Result<Prompt> prompt = encode("v15", body(url));
    ASSERT_FALSE(prompt) << url;
    EXPECT_EQ(prompt.error().param(), "messages[0].content[0]") << url;
    EXPECT_EQ(prompt.error().kind(), "malformed") << url;
  }
}

TEST(Encode, an_image_knows_its_bytes_and_its_first_token) {
  const std::string png = std::string(BISE_GOLDEN_DIR) + "/model/images/gray.png";
  ChatRequestOptions with_files = options(false);
  with_files.allow_files = true;
  std::string body = R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, )"
                     R"({"type": "image_url", "image_url": {"url": "file://)" +
                     png + R"("}}]}]})";
  for (ImageProcessing processing : {ImageProcessing::mistral_common, ImageProcessing::torch}) {
    with_files.image_processing = processing;
    Result<Prompt> prompt = chat_of("v15").encode(body, with_files);
    ASSERT_TRUE(prompt) << prompt.error().message();
    ASSERT_EQ(prompt->images.size(), 1u);
    const Prompt::Image& image = prompt->images[0];
    EXPECT_EQ(image.bytes.substr(1, 3), "PNG");
    int32_t begin = image.first, length = (image.columns + 1) * image.rows;
    ASSERT_GT(length, 0);
    EXPECT_EQ(prompt->ids.at(static_cast<size_t>(begin - 1)), 3);
    EXPECT_EQ(prompt->ids.at(static_cast<size_t>(begin)), 10);
    EXPECT_EQ(prompt->ids.at(static_cast<size_t>(begin + length - 1)), 13);
  }
}

TEST(Encode, numbers_of_a_schema_reach_the_prompt_digit_by_digit) {
  auto body = [](const char* number) {
    return std::string(R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type":)") +
           R"("function", "function": {"name": "f", "parameters": {"maximum": )" + number + "}}}]}";
  };
  Result<Prompt> prompt = encode("v15", body("123456789012345678901234567890"));
  std::string text = chat_of("v15").tokenizer().decode(prompt->ids, true);
  EXPECT_NE(text.find(R"({"maximum": 123456789012345678901234567890})"), std::string::npos) << text;
  text = chat_of("v15").tokenizer().decode(encode("v15", body("1E16"))->ids, true);
  EXPECT_NE(text.find(R"({"maximum": 1e+16})"), std::string::npos) << text;
}

TEST(Encode, hostile_bodies_are_refused_in_one_line) {
  std::string deep(1 << 20, '[');
  std::string digits(1 << 20, '9');
  const std::string bodies[] = {
      "",
      " ",
      "[]",
      "5",
      "null",
      "{",
      deep,
      "{\"messages\": " + deep,
      "{\"messages\": " + digits,
      "{\"messages\": " + digits + "}",
      "{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}",
      "{\"messages\": [{\"role\": \"user\", \"content\": \"\xed\xa0\x80\"}]}",
      R"({"messages": [{"role": ")" + std::string(1 << 20, 'x') + R"("}]})",
      R"({"messages": [{"role": "user", "content": [{"type": "\ud800"}]}]})",
      R"({"messages": [)" + std::string(100000, '1') + "]}",
  };
  for (const std::string& body : bodies) {
    Result<Prompt> prompt = encode("v15", body);
    ASSERT_FALSE(prompt);
    EXPECT_EQ(prompt.error().kind(), "malformed");
    EXPECT_EQ(prompt.error().message().find('\n'), std::string::npos);
    EXPECT_LT(prompt.error().message().size(), 400u);
  }
}

TEST(Encode, arguments_beyond_the_limits_of_python_are_refused_and_not_quoted) {
  auto body = [](const std::string& arguments) {
    return R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": )"
           R"([{"id": "k", "function": {"name": "f", "arguments": ")" +
           arguments + R"("}}]}, {"role": "tool", "tool_call_id": "k", "content": "r"}]})";
  };
  EXPECT_EQ(encode("v15", body(std::string(100000, '['))).error().param(),
            "messages[1].tool_calls[0].function.arguments");
  EXPECT_FALSE(encode("v15", body(std::string(4301, '9'))));
  EXPECT_TRUE(encode("v15", body(std::string(4300, '9'))));
  EXPECT_TRUE(encode("v15", body("not json")));
}

TEST(Encode, a_hundred_thousand_messages_are_no_hardship) {
  constexpr size_t kPairs = 100000 / BISE_TEST_SHARE, kCalls = 20000 / BISE_TEST_SHARE;
  std::string body = R"({"messages": [)";
  for (size_t i = 0; i < kPairs; ++i) {
    body += R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, )";
  }
  body += R"({"role": "user", "content": "c"}]})";
  EXPECT_EQ(ids("v15", body).size(), 1 + 12 + 3 + kPairs * 5);

  std::string calls, results;
  for (size_t i = 0; i < kCalls; ++i) {
    std::string id = "call" + std::to_string(i);
    calls += std::string(i > 0 ? ", " : "") + R"({"id": ")" + id +
             R"(", "function": {"name": "f", "arguments": ""}})";
    results = R"(, {"role": "tool", "tool_call_id": ")" + id + R"(", "content": "r"})" + results;
  }
  body = R"({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", )"
         R"("tool_calls": [)" +
         calls + "]}" + results + "]}";
  EXPECT_TRUE(encode("v15", body, true));
}

TEST(Encode, errors_name_the_field_at_fault) {
  struct Case {
    const char* body;
    const char* param;
    const char* kind;
  };
  const Case cases[] = {
      {R"({})", "messages", "malformed"},
      {R"({"messages": [5]})", "messages[0]", "malformed"},
      {R"({"messages": [{"role": "ghost"}]})", "messages[0].role", "malformed"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content", "malformed"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})",
       "messages[0].content[0].text", "malformed"},
      {R"({"messages": [{"role": "user", "content": "a", "prefix": true}, )"
       R"({"role": "user", "content": "b"}]})",
       "messages[0].prefix", "assistant_message"},
      {R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"function": {}}]})",
       "tools[0].function.name", "malformed"},
      {R"({"messages": [{"role": "user", "content": "a"}], "tool_choice": "required"})",
       "tool_choice", "request"},
      {R"({"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "xml"}})",
       "response_format.type", "malformed"},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
       "messages[1]", "message_structure"},
  };
  for (const Case& c : cases) {
    Result<Prompt> prompt = encode("v15", c.body);
    ASSERT_FALSE(prompt) << c.body;
    EXPECT_EQ(prompt.error().param(), c.param) << prompt.error().message();
    EXPECT_EQ(prompt.error().kind(), c.kind) << prompt.error().message();
  }
}

TEST(SystemPrompt, fields_are_filled_once_and_thinking_becomes_a_part) {
  std::chrono::sys_days day = std::chrono::year(2026) / 3 / 1;
  EXPECT_EQ(
      system_prompt_content("I am {name}. {today}, {yesterday}, {other} {{x}}", "A {today}", day),
      R"("I am A {today}. 2026-03-01, 2026-02-28, {other} {{x}}")");
  EXPECT_EQ(system_prompt_content("a\n[THINK]b[/THINK]c[THINK]", "", day),
            R"([{"type": "text", "text": "a\n"}, {"type": "thinking", "thinking": "b"}, )"
            R"({"type": "text", "text": "c[THINK]"}])");
}

TEST(SystemPrompt, a_folder_without_the_file_has_none) {
  Result<std::optional<std::string>> none = default_system_prompt(BISE_GOLDEN_DIR, {});
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value());
}

}  // namespace
}  // namespace bise
