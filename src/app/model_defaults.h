// What a model brings along for a conversation: its default system prompt, its reasoning words, and
// the way from a conversation to a prompt.
#pragma once

#include <string>
#include <vector>

#include "app/conversation.h"
#include "app/session.h"
#include "base/error.h"

namespace bise {

// SYSTEM_PROMPT.txt (or CHAT_SYSTEM_PROMPT.txt) of the model folder, where there is one.
Result<void> apply_default_system(const Session& session, Conversation& conversation);
// Says (as a warning) that a model has no reasoning setting when one is asked for.
Result<void> check_reasoning(const Session& session, const std::string& effort);
Result<Prompt> encode_conversation(const Session& session, const Conversation& conversation);
// Plain text behind the BOS that the model expects.
std::vector<TokenId> raw_prompt(const Session& session, const std::string& text);

}  // namespace bise
