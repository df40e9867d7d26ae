// Pieces of llguidance's Lark dialect: literals, regexes, JSON schemas as the right side of a rule.
#pragma once

#include <optional>
#include <string>

#include "chat/python_json.h"
#include "server/api_error.h"

namespace bise {

// Blanks between the parts of JSON: a regex, or none at all; else what Mistral's models write, and not
// without end: a model can lose itself in blanks.
struct JsonBlanks {
  std::optional<std::string> pattern;
  bool none = false;
};

std::string lark_string(const std::string& text);
// The regex as it is, between slashes.
std::string lark_regex(const std::string& pattern);
// The text as a piece of a regex.
std::string regex_literal(const std::string& text);
// "%json {…}" of a schema as it came: an object, a boolean, or text of either. `param` names it in messages.
ApiResult<std::string> lark_json(const std::string& schema, const JsonBlanks& blanks, const std::string& param);

}  // namespace bise
