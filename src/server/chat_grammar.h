// What a request's tools, tool_choice and response format allow the model to write, as a grammar over
// token ids and text. Thinking, where the model has it, comes first and is free: the grammar begins
// behind [/THINK].
#pragma once

#include <string>
#include <vector>

#include "chat/chat_service.h"
#include "server/api_error.h"
#include "server/parameters.h"

namespace bise {

struct ChatConstraint {
  std::string lark;                    // empty: free
  std::string param;                   // the field that asked for it
  std::vector<int32_t> banned_tokens;  // never drawn
  std::vector<int32_t> stop_tokens;    // end the answer, and are not part of it
};

ApiResult<ChatConstraint> chat_constraint(const PyJson& body, const GenerationParameters& parameters,
                                          const ChatService& chat);

// The structure alone, for an answer without a chat format.
ApiResult<std::string> structure_grammar(const Structure& structure);

}  // namespace bise
