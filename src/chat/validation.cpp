#include "chat/validation.h"

#include <algorithm>
#include <unordered_set>

#include "chat/json_schema.h"
#include "chat/request.h"

namespace bise {
namespace {

using Kind = ContentPart::Kind;

std::string place_of(const Message& message) {
  return "messages[" + std::to_string(message.index) + "]";
}
std::string shown(const std::string& text) { return "\"" + text.substr(0, 80) + "\""; }
bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
// Python's `$` lets one line feed at the end pass; so does this.
std::string_view without_last_newline(std::string_view text) {
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

bool is_function_name(std::string_view name) {
  name = without_last_newline(name);
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return is_letter_or_digit(c) || c == '_' || c == '-';
  });
}
bool is_nine_character_id(std::string_view id) {
  id = without_last_newline(id);
  return id.size() == 9 && std::all_of(id.begin(), id.end(), is_letter_or_digit);
}

const char* const kNameRule = "expected 1 to 64 of a-z, A-Z, 0-9, underscore and dash";

class Validator {
 public:
  Validator(const ChatRequest& request, TekkenVersion version)
      : request_(request), messages_(request.messages), version_(version) {}

  Result<void> run() const {
    if (!request_.has_model) {
      return refused("request", "model", "model is missing; strict requests name one");
    }
    TRY(structure());
    for (const Message& message : messages_) TRY(content(message));
    TRY(tools());
    if (request_.reasoning_effort && version_ < TekkenVersion::v15) {
      return refused("request", "reasoning_effort",
                     std::string("reasoning_effort is not supported by tokenizer version ") +
                         tekken_version_name(version_));
    }
    return {};
  }

 private:
  static Error bad_structure(const std::string& param, const std::string& message) {
    return refused("message_structure", param, message);
  }

  Result<void> structure() const {
    if (messages_.empty()) {
      return bad_structure("messages", "messages is empty; expected at least one message");
    }
    const Message& last = messages_.back();
    if (messages_.size() == 1 && last.role != Role::user && last.role != Role::system) {
      return bad_structure("messages", "a lone message must come from user or system");
    }
    if (messages_.size() > 1 && last.role == Role::assistant && !last.prefix) {
      return bad_structure(place_of(last),
                           "the last message is an assistant message; expected user or tool, or "
                           "prefix to continue it");
    }
    TRY(role_order());
    if (version_ >= TekkenVersion::v11) {
      TRY(paired_by_id());
    } else {
      TRY(paired_by_count());
    }
    if (version_ == TekkenVersion::v7) TRY(no_system_beside_audio());
    return {};
  }

  Result<void> role_order() const {
    for (size_t i = 1; i < messages_.size(); ++i) {
      Role before = messages_[i - 1].role;
      Role role = messages_[i].role;
      bool ok = true;
      switch (before) {
        case Role::system:
        case Role::user: ok = role != Role::tool; break;
        case Role::assistant:
        case Role::tool: ok = role != Role::system; break;
      }
      if (!ok) {
        return bad_structure(place_of(messages_[i]), place_of(messages_[i]) + " is a " +
                                                         role_name(role) + " message after a " +
                                                         role_name(before) + " message");
      }
    }
    return {};
  }

  Error unequal(const Message& at) const {
    return bad_structure(place_of(at), "not as many tool results as tool calls before " +
                                           place_of(at) + " or the end");
  }

  // The reference does not look at the very first message, neither here nor in paired_by_id.
  Result<void> paired_by_count() const {
    int64_t expected = 0;
    for (size_t i = 1; i < messages_.size(); ++i) {
      const Message& message = messages_[i];
      if (message.role == Role::tool) --expected;
      if (message.role != Role::assistant) continue;
      if (expected != 0) return unequal(message);
      expected = static_cast<int64_t>(message.tool_calls.size());
    }
    if (expected != 0) return unequal(messages_.back());
    return {};
  }

  Result<void> paired_by_id() const {
    std::unordered_set<std::string_view> expected, seen;
    for (size_t i = 1; i < messages_.size(); ++i) {
      const Message& message = messages_[i];
      if (message.role == Role::tool) {
        // A null id passes as long as it is unique; the content rules refuse it later.
        std::string_view id = message.tool_call_id ? *message.tool_call_id : std::string_view();
        std::string param = place_of(message) + ".tool_call_id";
        if (message.tool_call_id && seen.count(id) != 0) {
          return bad_structure(param,
                               param + " " + shown(std::string(id)) + " already has a result");
        }
        if (!message.tool_call_id || expected.count(id) == 0) {
          return bad_structure(param, param + " " + shown(std::string(id)) +
                                          " is no call of the assistant message before");
        }
        seen.insert(id);
      } else if (message.role == Role::assistant) {
        if (expected.size() != seen.size()) return unequal(message);
        expected.clear();
        seen.clear();
        for (const ToolCall& call : message.tool_calls) {
          if (!expected.insert(call.id).second) {
            std::string param = place_of(message) + ".tool_calls";
            return bad_structure(param, param + " holds the id " + shown(call.id) + " twice");
          }
        }
      }
    }
    if (expected.size() != seen.size()) return unequal(messages_.back());
    return {};
  }

  Result<void> no_system_beside_audio() const {
    bool has_system = false, has_audio = false;
    for (const Message& message : messages_) {
      has_system |= message.role == Role::system;
      for (const ContentPart& part : message.content) {
        has_audio |= message.role == Role::user && part.kind == Kind::audio;
      }
    }
    if (has_system && has_audio) {
      return refused("malformed", "messages", "a v7 request cannot hold system messages and audio");
    }
    return {};
  }

  // Whether messages of this role may hold this kind of part in this version.
  bool allowed(Role role, Kind kind) const {
    if (kind == Kind::text) return true;
    switch (role) {
      case Role::user:
        return kind == Kind::image || (kind == Kind::audio && version_ >= TekkenVersion::v7);
      case Role::assistant: return kind == Kind::thinking && version_ >= TekkenVersion::v11;
      case Role::system:
        if (kind == Kind::thinking) {
          return version_ >= TekkenVersion::v7 && version_ < TekkenVersion::v15;
        }
        return kind == Kind::audio && version_ >= TekkenVersion::v7;
      case Role::tool: return version_ >= TekkenVersion::v15;
    }
    return false;
  }

  Result<void> content(const Message& message) const {
    static constexpr const char* kErrorKinds[] = {"system_message", "user_message",
                                                  "assistant_message", "tool_message"};
    for (size_t i = 0; i < message.content.size(); ++i) {
      if (allowed(message.role, message.content[i].kind)) continue;
      std::string param = place_of(message) + ".content[" + std::to_string(i) + "]";
      return refused(kErrorKinds[static_cast<size_t>(message.role)], param,
                     param + " is of a kind that a " + role_name(message.role) +
                         " message cannot hold in tokenizer version " +
                         tekken_version_name(version_));
    }
    if (message.role == Role::assistant) return assistant(message);
    if (message.role == Role::tool) return tool(message);
    return {};
  }

  Result<void> assistant(const Message& message) const {
    if (version_ < TekkenVersion::v7 && message.content.empty() == message.tool_calls.empty()) {
      return refused("assistant_message", place_of(message),
                     place_of(message) + " must have either content or tool_calls");
    }
    for (size_t i = 0; i < message.tool_calls.size(); ++i) {
      const ToolCall& call = message.tool_calls[i];
      std::string place = place_of(message) + ".tool_calls[" + std::to_string(i) + "]";
      if (call.id == "null" || !is_call_id(call.id)) {
        return refused("function_call", place + ".id",
                       place + ".id is " + shown(call.id) + "; " + id_rule());
      }
      if (!is_function_name(call.name)) {
        return refused("function_call", place + ".function.name",
                       place + ".function.name is " + shown(call.name) + "; " + kNameRule);
      }
    }
    return {};
  }

  Result<void> tool(const Message& message) const {
    if (message.name && !is_function_name(*message.name)) {
      std::string param = place_of(message) + ".name";
      return refused("tool_message", param,
                     param + " is " + shown(*message.name) + "; " + kNameRule);
    }
    std::string param = place_of(message) + ".tool_call_id";
    if (!message.tool_call_id) {
      return refused(version_ < TekkenVersion::v13 ? "request" : "tool_message", param,
                     param + " is null; " + id_rule());
    }
    const std::string& id = *message.tool_call_id;
    if (!is_call_id(id) || (version_ >= TekkenVersion::v13 && id == "null")) {
      return refused("tool_message", param, param + " is " + shown(id) + "; " + id_rule());
    }
    return {};
  }

  bool is_call_id(const std::string& id) const {
    return version_ >= TekkenVersion::v13 ? !id.empty() : is_nine_character_id(id);
  }
  const char* id_rule() const {
    return version_ >= TekkenVersion::v13 ? "expected a string that is neither empty nor \"null\""
                                          : "expected nine of a-z, A-Z, 0-9";
  }

  Result<void> tools() const {
    for (size_t i = 0; i < request_.tools.size(); ++i) {
      const Tool& tool = request_.tools[i];
      std::string place = "tools[" + std::to_string(i) + "].function";
      if (std::optional<SchemaFault> fault = find_schema_fault(tool.parameters)) {
        std::string param = place + ".parameters" + fault->path;
        return refused("tool_schema", param,
                       param + " is not valid in JSON Schema draft 7: " + fault->expected);
      }
      if (!is_function_name(tool.name)) {
        return refused("tool", place + ".name",
                       place + ".name is " + shown(tool.name) + "; " + kNameRule);
      }
    }
    return {};
  }

  const ChatRequest& request_;
  const std::vector<Message>& messages_;
  TekkenVersion version_;
};

}  // namespace

Result<void> validate_request(const ChatRequest& request, TekkenVersion version) {
  return Validator(request, version).run();
}

Result<void> validate_tool_choice(const ChatRequest& request) {
  using Choice = ToolChoice::Kind;
  const ToolChoice& choice = request.tool_choice;
  bool wants_json = request.response_format.kind != ResponseFormat::Kind::text;
  bool is_free = choice.kind == Choice::automatic || choice.kind == Choice::none;
  if (is_free) return {};
  if (request.tools.empty()) {
    // With a JSON format the reference lets a choice without tools pass unnoticed.
    if (wants_json) return {};
    return refused("request", "tool_choice", "tool_choice asks for a call but tools is empty");
  }
  if (wants_json) {
    return refused("request", "tool_choice",
                   "with tools and a JSON response_format, tool_choice must be \"auto\" or "
                   "\"none\"");
  }
  if (choice.kind == Choice::named &&
      std::none_of(request.tools.begin(), request.tools.end(),
                   [&](const Tool& tool) { return tool.name == choice.name; })) {
    return refused("request", "tool_choice.function.name",
                   "tool_choice names " + shown(choice.name) + ", which is not among the tools");
  }
  return {};
}

}  // namespace bise
