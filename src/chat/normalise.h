// The messages of a request in the form the encoder writes: neighbours of one role merged, touching
// texts joined, results in the order of their calls, arguments in Python's JSON form. One function
// per request; the rules differ by tokenizer version.
#pragma once

#include <string>
#include <vector>

#include "chat/chat_types.h"
#include "text/tekken.h"

namespace bise {

struct NormalisedMessages {
  std::vector<Message> messages;
  std::string system_prompt;  // below v7 only: goes in front of the last user text
};

Result<NormalisedMessages> normalise_messages(std::vector<Message> messages, TekkenVersion version);

// Valid JSON as Python writes it; text that is not JSON stays; nothing becomes "{}". An Error only
// for JSON beyond the limits of python_json.h.
Result<std::string> normalise_json(const std::string& text);

}  // namespace bise
