// Structural tags, as vLLM and SGLang take them in xgrammar's JSON: free text in which tags hold to a
// schema, a regex or a fixed text. Both forms are read: {"structures": […], "triggers": […]} and
// {"format": {"type": …}}.
#pragma once

#include <string>

#include "server/api_error.h"

namespace bise {

// A whole grammar in llguidance's Lark dialect. Errors name the place in the JSON; `param` is its field.
ApiResult<std::string> structural_tag_grammar(const std::string& json, const std::string& param);

}  // namespace bise
