#include "app/answer_writer.h"

namespace bise {

Result<void> AnswerWriter::operator()(const ChatEvent& event) {
  std::string text;
  switch (event.kind) {
    case ChatEvent::Kind::reasoning:
      if (!terminal_) return {};
      reasoned_ = true;
      text = dim_.set(true) + terminal_safe(event.text);
      break;
    case ChatEvent::Kind::content:
      text = dim_.set(false) + (reasoned_ && !answered_ ? "\n\n" : "") + shown(event.text);
      answered_ = true;
      break;
    case ChatEvent::Kind::tool_call_begin:
      text = dim_.set(false) + (answered_ || reasoned_ ? "\n" : "") + "[tool call] " +
             shown(event.call_name) + " ";
      answered_ = true;
      break;
    case ChatEvent::Kind::tool_call_arguments: text = shown(event.text); break;
    case ChatEvent::Kind::finish: text = dim_.set(false) + "\n"; break;
  }
  return write_output(text);
}

}  // namespace bise
