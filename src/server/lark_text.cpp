#include "server/lark_text.h"

#include "server/json_writer.h"

namespace bise {
namespace {

std::string json_options(const JsonBlanks& blanks) {
  if (blanks.none) return R"("x-guidance":{"whitespace_flexible":false})";
  std::string out = R"("x-guidance":{"whitespace_pattern":)";
  append_json_string(out, blanks.pattern.value_or("[ \\t\\n\\r]{0,8}"));
  return out + "}";
}

}  // namespace

std::string lark_string(const std::string& text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

std::string lark_regex(const std::string& pattern) {
  std::string out = "/";
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) out += pattern[i++];
    else if (pattern[i] == '/') out += '\\';
    if (pattern[i] == '\n') out += "\\n";
    else out += pattern[i];
  }
  return out + "/";
}

std::string regex_literal(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$&-~#").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

ApiResult<std::string> lark_json(const std::string& text, const JsonBlanks& blanks, const std::string& param) {
  Result<PyJson> schema = parse_python_json(text);
  if (!schema) return ApiError::invalid(param, param + " is not JSON: " + schema.error().message());
  if (schema->boolean() != nullptr) {
    if (!*schema->boolean()) return ApiError::invalid(param, param + " is false: no value satisfies it");
    return "%json {" + json_options(blanks) + "}";
  }
  if (schema->object() == nullptr) return ApiError::invalid(param, param + " must be an object (a JSON schema)");
  if (schema->find("x-guidance") != nullptr) return "%json " + text;
  // Our options in front of its own fields.
  const size_t brace = text.find('{');
  return "%json {" + json_options(blanks) + (schema->object()->empty() ? "" : ",") + text.substr(brace + 1);
}

}  // namespace bise
