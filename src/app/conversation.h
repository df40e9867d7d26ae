// A conversation as the chat-completions body that the chat floor reads: messages in the order they
// were said, pictures as files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace bise {

class Conversation {
 public:
  Conversation();
  ~Conversation();
  Conversation(Conversation&&) noexcept;
  Conversation& operator=(Conversation&&) noexcept;

  // Empty text: no system message.
  void set_system(const std::string& text);
  // Content of the system message as JSON text: a string or a list of parts. Error: not JSON.
  Result<void> set_system_content(const std::string& json);
  void set_reasoning(const std::string& effort);  // empty: not sent
  // Tools in OpenAI's form as JSON text, a list. Error: not JSON, not a list.
  Result<void> set_tools(const std::string& json);

  // Pictures come before the text. Files are checked for being readable by the caller.
  void add_user(const std::string& text, const std::vector<std::string>& image_files);
  void add_assistant(const std::string& content, const std::string& reasoning);
  void drop_last();  // of a turn that was refused
  void clear();      // the system message stays
  size_t num_messages() const;

  std::string request_body() const;  // for ChatService::encode
  std::string saved_form() const;    // for people: indented JSON

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
