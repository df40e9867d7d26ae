// The door of a chat-completions body: JSON text in, a ChatRequest out, or an Error whose kind()
// and param() say what is wrong and where. Strict reads as mistral-common's OpenAI import does;
// lenient forgives what clients really send (null content, thinking as a list, any effort word,
// missing ids). Rules about the conversation as a whole are validation.h's; sampling fields are the
// caller's, but strict mode checks their types and ranges as the reference does.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/chat_types.h"

namespace bise {

struct ImportRules {
  bool strict = false;
  // The effort words of the tokenizer; nullopt: it has no such setting.
  std::optional<std::vector<std::string>> efforts;
  // Lenient: empty reasoning is a thinking part without text, as it is when strict; else it counts as absent.
  bool keep_empty_reasoning = false;
};

// Bounded in bytes, depth and number of values; linear in the body.
Result<ChatRequest> import_chat_request(std::string_view body, const ImportRules& rules);
Result<ChatRequest> import_chat_request(const PyJson& body, const ImportRules& rules);
// The first half of it: bounded JSON text to an object.
Result<PyJson> parse_chat_body(std::string_view body, const PyJsonLimits& limits = {});

// The effort word as sent, in whichever of its places (lenient); nullopt when there is none.
std::optional<std::string> asked_effort(const PyJson& body);
// What a model that lists these efforts is given for a known word: the word itself, none or high.
std::string mapped_effort(const std::string& word, const std::vector<std::string>& listed);

// A refused request: ErrorCode::invalid_argument with the kind and the field at fault.
Error refused(const char* kind, const std::string& param, const std::string& message);

}  // namespace bise
