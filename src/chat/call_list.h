// The old form of tool calls, one JSON list behind [TOOL_CALLS] (tokenizer versions before v11):
// [{"name": …, "arguments": {…}}, …].
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

struct ListedCall {
  std::string name;
  std::string arguments;  // JSON as Python writes it: ", " and ": ", nothing escaped beyond need
};

// nullopt when the text is not wholly such a list.
std::optional<std::vector<ListedCall>> parse_call_list(std::string_view text);

}  // namespace bise
