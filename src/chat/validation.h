// The rules of mistral-common's validators in serving mode, version by version: order of roles,
// pairing of calls and results, ids, names, kinds of content, schemas of tools. Only strict
// requests pass through here; what cannot be encoded at all is refused by the encoder in any mode.
#pragma once

#include "chat/chat_types.h"
#include "text/tekken.h"

namespace bise {

// The first broken rule, in the reference's order of looking.
Result<void> validate_request(const ChatRequest& request, TekkenVersion version);

// tool_choice against the tools and response_format: contradictions are refused in every mode.
Result<void> validate_tool_choice(const ChatRequest& request);

}  // namespace bise
