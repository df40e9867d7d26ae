// The `messages` of a chat-completions body as Messages: roles, content parts, thinking in its
// three spellings, tool calls and results, prefix. request.h reads the fields around them.
#pragma once

#include <vector>

#include "chat/request.h"

namespace bise {

// `body` is an object. Reads messages, continue_final_message and (lenient) add_generation_prompt.
Result<std::vector<Message>> import_messages(const PyJson& body, const ImportRules& rules);
// Whether a message of `body` has reasoning that is the empty string.
bool has_empty_reasoning(const PyJson& body);

}  // namespace bise
