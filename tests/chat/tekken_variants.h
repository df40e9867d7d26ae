// The tokenizers of the chat goldens, made in memory from tekken.json.gz by the rules of the
// make.py beside it: one vocabulary, the special tokens and settings of v3, v7, v11, v13, v15 and
// v15x.
#pragma once

#include <memory>
#include <string>

#include "chat/chat_service.h"

namespace bise {

// Loaded once per test program; aborts the test when the golden file is missing.
const ChatService& chat_of(const std::string& variant);

}  // namespace bise
