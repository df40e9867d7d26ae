// Streams an answer to stdout: reasoning dimmed on a terminal and left out of a pipe, where only
// the answer itself is wanted.
#pragma once

#include <string>

#include "app/terminal.h"
#include "base/error.h"
#include "chat/chat_service.h"

namespace bise {

class AnswerWriter {
 public:
  AnswerWriter() : terminal_(stdout_is_terminal()), dim_(terminal_) {}
  Result<void> operator()(const ChatEvent& event);

 private:
  std::string shown(const std::string& text) const {
    return terminal_ ? terminal_safe(text) : text;
  }
  bool terminal_, reasoned_ = false, answered_ = false;
  DimText dim_;
};

}  // namespace bise
