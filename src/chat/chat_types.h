// A chat-completions request as plain data, after its JSON was read and before anything is encoded.
// Content is always a list of parts; a plain string is one text part, an empty one no part.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "chat/python_json.h"

namespace bise {

enum class Role : uint8_t { system, user, assistant, tool };
const char* role_name(Role role);

struct ContentPart {
  enum class Kind : uint8_t { text, thinking, image, audio };
  Kind kind = Kind::text;
  std::string text;    // of a text or thinking part; of an image its URL
  bool closed = true;  // thinking only: false leaves out [/THINK]
};

struct ToolCall {
  std::string id;  // "null" when there was none
  std::string name;
  std::string arguments;  // as the client wrote it: JSON, or text that is not
};

struct Message {
  Role role = Role::user;
  std::vector<ContentPart> content;
  std::vector<ToolCall> tool_calls;         // assistant
  bool prefix = false;                      // assistant: to be continued
  std::optional<std::string> tool_call_id;  // tool
  std::optional<std::string> name;          // tool
  size_t index = 0;                         // in the request's list, for messages to the client
};

struct Tool {
  std::string name, description;
  PyJson parameters;  // an object
};

struct ToolChoice {
  enum class Kind : uint8_t { automatic, none, required, named };
  Kind kind = Kind::automatic;
  std::string name;  // named only
};

struct ResponseFormat {
  enum class Kind : uint8_t { text, json_object, json_schema };
  Kind kind = Kind::text;
  PyJson schema;  // json_schema only
};

struct ChatRequest {
  bool has_model = false;
  std::vector<Message> messages;
  std::vector<Tool> tools;
  ToolChoice tool_choice;
  ResponseFormat response_format;
  std::optional<std::string> reasoning_effort;
};

}  // namespace bise
