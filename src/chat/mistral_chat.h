// The Mistral chat format behind the ChatService door, for tokenizers from any source: tekken.json
// through create_mistral_chat(), or a GGUF whose vocabulary is tekken's.
#pragma once

#include <memory>

#include "chat/chat_service.h"
#include "chat/chat_template.h"

namespace bise {

Result<std::unique_ptr<ChatService>> make_mistral_chat(std::unique_ptr<Tokenizer> tokenizer,
                                                       const MistralFormat& format);

}  // namespace bise
