// ChatML behind the ChatService door: <|im_start|>role\ncontent<|im_end|>\n for each message. It
// knows no tools, pictures or thinking and refuses them by name. Structure is written as ids and
// text as text, so nothing a client sends can become a control token.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "chat/chat_service.h"

namespace bise {

struct ChatmlFormat {
  // The text of the system turn that a conversation without one begins with; nullopt: none.
  std::optional<std::string> default_system;
};

// What a ChatML chat template (Jinja) says about the default system turn: the text it puts between
// "<|im_start|>system\n" and "<|im_end|>" itself. Other templates give nothing.
ChatmlFormat read_chatml_template(std::string_view chat_template);

// An Error when the vocabulary lacks <|im_start|> or <|im_end|>.
Result<std::unique_ptr<ChatService>> make_chatml_chat(std::unique_ptr<Tokenizer> tokenizer,
                                                      ChatmlFormat format);

}  // namespace bise
