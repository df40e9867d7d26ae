#include <gtest/gtest.h>

#include "chat/json_schema.h"
#include "chat/lax_types.h"
#include "chat/tekken_variants.h"

namespace bise {
namespace {

std::string fault_of(const std::string& schema) {
  std::optional<SchemaFault> fault = find_schema_fault(*parse_python_json(schema));
  return fault ? fault->path + "!" : "";
}

TEST(JsonSchema, sound_schemas_of_draft_7_pass) {
  for (const char* schema :
       {"{}", "true", "false", R"({"type": ["string", "null"]})", R"({"enum": []})",
        R"({"enum": [1, 1.0, 1]})", R"({"minLength": 1.0})", R"({"items": [true, {}]})",
        R"({"properties": {"type": {"type": "integer"}}})", R"({"x-own": {"type": 7}})",
        R"({"default": {"type": 7}, "const": {"type": 7}})", R"({"required": []})",
        R"({"dependencies": {"a": ["b"], "c": {"type": "null"}, "d": []}})",
        R"({"if": {"const": 1}, "then": false, "else": {}})", R"({"multipleOf": 1e-9})",
        R"({"minimum": -12345678901234567890, "maximum": NaN})", R"({"exclusiveMinimum": 5})",
        R"({"$ref": "#/definitions/a", "definitions": {"a": true}})"}) {
    EXPECT_EQ(fault_of(schema), "") << schema;
  }
}

TEST(JsonSchema, faults_are_found_and_placed) {
  const std::pair<const char*, const char*> cases[] = {
      {"5", "!"},
      {R"({"type": "objekt"})", ".type!"},
      {R"({"type": []})", ".type!"},
      {R"({"type": ["null", "null"]})", ".type!"},
      {R"({"properties": {"a": {"items": [{}, {"not": 5}]}}})", ".properties.a.items[1].not!"},
      {R"({"properties": []})", ".properties!"},
      {R"({"required": ["a", "a"]})", ".required!"},
      {R"({"required": true})", ".required!"},
      {R"({"items": []})", ".items!"},
      {R"({"anyOf": []})", ".anyOf!"},
      {R"({"allOf": {}})", ".allOf!"},
      {R"({"minLength": -1})", ".minLength!"},
      {R"({"minLength": 1.5})", ".minLength!"},
      {R"({"minLength": true})", ".minLength!"},
      {R"({"maxItems": Infinity})", ".maxItems!"},
      {R"({"multipleOf": 0})", ".multipleOf!"},
      {R"({"multipleOf": -0.5})", ".multipleOf!"},
      {R"({"exclusiveMinimum": true})", ".exclusiveMinimum!"},
      {R"({"minimum": "1"})", ".minimum!"},
      {R"({"uniqueItems": 1})", ".uniqueItems!"},
      {R"({"enum": {}})", ".enum!"},
      {R"({"title": 5})", ".title!"},
      {R"({"pattern": 5})", ".pattern!"},
      {R"({"dependencies": {"a": ["b", "b"]}})", ".dependencies.a!"},
      {R"({"definitions": {"a": 5}})", ".definitions.a!"},
      {R"({"additionalProperties": null})", ".additionalProperties!"},
  };
  for (const auto& [schema, path] : cases) EXPECT_EQ(fault_of(schema), path) << schema;
}

TEST(JsonSchema, deep_and_wide_schemas_take_linear_time) {
  std::string deep = "true";
  for (int i = 0; i < 890; ++i) deep = "{\"not\":" + deep + "}";
  EXPECT_EQ(fault_of(deep), "");
  std::string names = "[\"0\"";
  for (int i = 1; i < 200000; ++i) names += ",\"" + std::to_string(i) + "\"";
  EXPECT_EQ(fault_of("{\"required\": " + names + "]}"), "");
}

TEST(LaxTypes, booleans_and_numbers_are_read_as_the_reference_reads_them) {
  auto value = [](const char* text) { return *parse_python_json(text); };
  for (const char* yes : {"true", "1", "1.0", "\"yes\"", "\"On\"", "\"T\"", "\"1\""}) {
    EXPECT_EQ(lax_bool(value(yes)), true) << yes;
  }
  for (const char* no : {"false", "0", "0.0", "\"no\"", "\"OFF\"", "\"f\"", "\"0\""}) {
    EXPECT_EQ(lax_bool(value(no)), false) << no;
  }
  for (const char* neither : {"null", "2", "\"\"", "\"maybe\"", "[]", "{}"}) {
    EXPECT_EQ(lax_bool(value(neither)), std::nullopt) << neither;
  }
  EXPECT_EQ(lax_number(value("\" 0.5 \"")), 0.5);
  EXPECT_EQ(lax_number(value("true")), 1.0);
  EXPECT_EQ(lax_number(value("\"x\"")), std::nullopt);
  EXPECT_EQ(lax_integer_sign(value("-99999999999999999999")), -1);
  EXPECT_EQ(lax_integer_sign(value("2.0")), 1);
  EXPECT_EQ(lax_integer_sign(value("2.5")), std::nullopt);
}

struct Refusal {
  const char* variant;
  const char* body;
  const char* kind;
  const char* param;
};

TEST(Validation, strict_refusals_have_a_kind_and_name_the_field) {
  const Refusal cases[] = {
      {"v15", R"({"messages": [{"role": "user", "content": "a"}]})", "request", "model"},
      {"v15", R"({"model": "m", "messages": []})", "message_structure", "messages"},
      {"v15",
       R"({"model": "m", "messages": [{"role": "tool", "tool_call_id": "a", "content": ""}]})",
       "message_structure", "messages"},
      {"v11",
       R"({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant",
          "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "tool_call_id": "call_1", "content": "r"}]})",
       "function_call", "messages[1].tool_calls[0].id"},
      {"v15",
       R"({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant",
          "tool_calls": [{"id": "k", "function": {"name": "f.g", "arguments": "{}"}}]},
          {"role": "tool", "tool_call_id": "k", "content": "r"}]})",
       "function_call", "messages[1].tool_calls[0].function.name"},
      {"v15",
       R"({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant",
          "tool_calls": [{"id": "k", "function": {"name": "f", "arguments": "{}"}},
          {"id": "k", "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "tool_call_id": "k", "content": "r"}]})",
       "message_structure", "messages[1].tool_calls"},
      {"v15",
       R"({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant",
          "tool_calls": [{"id": "k", "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "tool_call_id": "l", "content": "r"}]})",
       "message_structure", "messages[2].tool_call_id"},
      {"v15",
       R"({"model": "m", "messages": [{"role": "system", "content": [{"type": "thinking",
          "thinking": "t"}]}, {"role": "user", "content": "a"}]})",
       "system_message", "messages[0].content[0]"},
      {"v15",
       R"({"model": "m", "messages": [{"role": "user", "content": "a"}], "tools": [{"function":
          {"name": "f", "parameters": {"properties": {"x": {"type": "nummer"}}}}}]})",
       "tool_schema", "tools[0].function.parameters.properties.x.type"},
      {"v13", R"({"model": "m", "messages": [{"role": "user", "content": "a"}],
          "reasoning_effort": "high"})",
       "request", "reasoning_effort"},
      {"v15", R"({"model": "m", "messages": [{"role": "user", "content": "a"}],
          "reasoning_effort": "low"})",
       "request", "reasoning_effort"},
      {"v15", R"({"model": "m", "messages": [{"role": "user", "content": "a"}],
          "temperature": 1.5})",
       "malformed", "temperature"},
  };
  ChatRequestOptions strict;
  strict.strict = true;
  for (const Refusal& c : cases) {
    Result<Prompt> prompt = chat_of(c.variant).encode(c.body, strict);
    ASSERT_FALSE(prompt) << c.body;
    EXPECT_EQ(prompt.error().kind(), c.kind) << prompt.error().message();
    EXPECT_EQ(prompt.error().param(), c.param) << prompt.error().message();
  }
}

TEST(Validation, lenient_requests_pass_where_the_prompt_is_still_clear) {
  for (const char* body :
       {R"({"messages": [{"role": "user", "content": "a"}], "temperature": 1.5})",
        R"({"messages": [{"role": "user", "content": null}]})",
        R"({"messages": [{"role": "assistant", "content": "a"}, {"role": "system"}]})",
        R"({"messages": [{"role": "tool", "content": "r"}], "response_format": null})",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]})",
        R"({"messages": [{"role": "user", "content": "a"}], "tool_choice": null, "tools":
              [{"function": {"name": "a.b", "parameters": {"type": "nummer"}}}]})"}) {
    Result<Prompt> prompt = chat_of("v15").encode(body, {});
    EXPECT_TRUE(prompt) << body << ": " << prompt.error().message();
  }
}

}  // namespace
}  // namespace bise
