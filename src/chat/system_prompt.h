// The default system prompt that a model folder may bring along: SYSTEM_PROMPT.txt, else
// CHAT_SYSTEM_PROMPT.txt. Nothing adds it by itself, as with the reference; the caller puts it in
// front of a conversation that has no system message, if its user wants that.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bise {

// The `content` of a system message as JSON text, or nothing when the folder has no such file.
// Filled in: {name} (the folder's name, or the repository's in an HF cache), {today} and
// {yesterday} (YYYY-MM-DD). It is a string, or, where the file shows [THINK]…[/THINK], a list of
// text and thinking parts, which is how models of v13 are told to think.
Result<std::optional<std::string>> default_system_prompt(const std::string& folder,
                                                         std::chrono::sys_days today);

// The same from the file's text.
std::string system_prompt_content(std::string_view text, std::string_view name,
                                  std::chrono::sys_days today);

}  // namespace bise
