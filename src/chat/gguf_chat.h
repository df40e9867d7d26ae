// Which chat format a GGUF's vocabulary and chat template stand for. The file carries no
// tekken.json, so version and settings are found from what is there; see chat_service.h for the
// door.
#pragma once

#include <string_view>

#include "base/log.h"
#include "chat/chat_template.h"

namespace bise {

// The Mistral format of a vocabulary with tekken's special tokens. `chat_template` may be empty;
// then what only it can tell is assumed and logged as a warning.
//   [MODEL_SETTINGS]                 v15, with the efforts that the template lists
//   [ARGS], template has [CALL_ID]   v11
//   [ARGS], template has not         v13
//   [SYSTEM_PROMPT]                  v7
//   none of them                     v3
MistralFormat find_mistral_format(const Tokenizer& tokenizer, std::string_view chat_template,
                                  const Log& log);

}  // namespace bise
