#include "chat/message_import.h"

#include <algorithm>

#include "chat/lax_types.h"

namespace bise {
namespace {

using Kind = ContentPart::Kind;

Error malformed(const std::string& param, const std::string& message) {
  return refused("malformed", param, message);
}
Error wrong_type(const std::string& place, const PyJson* found, const char* expected) {
  std::string is = found == nullptr ? "missing" : found->type_name();
  return malformed(place, place + " is " + is + "; expected " + expected);
}

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::text: return "text";
    case Kind::thinking: return "thinking";
    case Kind::image: return "image";
    case Kind::audio: return "audio";
  }
  return "";
}

bool is_empty_text(const PyJson* value) {
  return value != nullptr && value->string() != nullptr && value->string()->empty();
}

bool may_hold(Role role, Kind kind) {
  switch (role) {
    case Role::system: return kind != Kind::image;
    case Role::user: return kind != Kind::thinking;
    case Role::assistant: return kind == Kind::text || kind == Kind::thinking;
    case Role::tool: return kind != Kind::thinking;
  }
  return false;
}

class MessageImporter {
 public:
  explicit MessageImporter(const ImportRules& rules)
      : strict_(rules.strict), keeps_empty_reasoning_(rules.keep_empty_reasoning) {}

  Result<Message> message(const PyJson& json, size_t index) {
    place_ = "messages[" + std::to_string(index) + "]";
    const PyJson* role = json.find("role");
    if (role == nullptr || role->string() == nullptr) {
      return wrong_type(place_ + ".role", role, "system, developer, user, assistant or tool");
    }
    Message out;
    out.index = index;
    const std::string& word = *role->string();
    if (word == "user") {
      out.role = Role::user;
      out.content = TRY(needed_content(json));
    } else if (word == "system" || word == "developer") {
      out.role = Role::system;
      out.content = TRY(needed_content(json));
    } else if (word == "tool") {
      TRY(tool_message(json, out));
    } else if (word == "assistant") {
      TRY(assistant_message(json, out));
    } else {
      return malformed(place_ + ".role", place_ + ".role is \"" + word.substr(0, 40) +
                                             "\"; expected system, developer, user, assistant or "
                                             "tool");
    }
    TRY(check_kinds(out));
    return out;
  }

 private:
  Result<std::vector<ContentPart>> needed_content(const PyJson& json) {
    const PyJson* value = json.find("content");
    if (value == nullptr || value->is_null()) {
      if (!strict_) return std::vector<ContentPart>{};
      return wrong_type(place_ + ".content", value, "a string or a list of parts");
    }
    return content(*value);
  }

  Result<std::vector<ContentPart>> content(const PyJson& value) {
    std::string path = place_ + ".content";
    std::vector<ContentPart> parts;
    if (const std::string* text = value.string()) {
      if (!text->empty()) parts.push_back({Kind::text, *text, true});
      return parts;
    }
    if (value.array() == nullptr) return wrong_type(path, &value, "a string or a list of parts");
    parts.reserve(value.array()->size());
    for (size_t i = 0; i < value.array()->size(); ++i) {
      std::string part_path = path + "[" + std::to_string(i) + "]";
      parts.push_back(TRY(part((*value.array())[i], part_path)));
    }
    return parts;
  }

  Result<void> check_kinds(const Message& message) {
    for (size_t i = 0; i < message.content.size(); ++i) {
      if (may_hold(message.role, message.content[i].kind)) continue;
      std::string path = place_ + ".content[" + std::to_string(i) + "]";
      return malformed(path, path + " is a part of type " + kind_name(message.content[i].kind) +
                                 ", which a message of role " + role_name(message.role) +
                                 " cannot hold");
    }
    return {};
  }

  Result<ContentPart> part(const PyJson& json, const std::string& path) {
    const PyJson* type = json.find("type");
    if (type == nullptr || type->string() == nullptr) {
      return wrong_type(path + ".type", type, "text, image_url or thinking");
    }
    const std::string& word = *type->string();
    if (word == "text") {
      const PyJson* text = json.find("text");
      if (text == nullptr || text->string() == nullptr) {
        return wrong_type(path + ".text", text, "a string");
      }
      return ContentPart{Kind::text, *text->string(), true};
    }
    // "image" is what some clients write; mistral-common itself cannot read it from a request.
    if (word == "image_url" || (word == "image" && !strict_)) return image_url(json, path);
    if (word == "thinking") return thinking(json, path);
    if (word == "input_audio" || word == "audio_url") return audio(json, word, path);
    return malformed(path + ".type", path + ".type is \"" + word.substr(0, 40) +
                                         "\"; expected text, image_url or thinking");
  }

  Result<ContentPart> image_url(const PyJson& json, const std::string& path) {
    const PyJson* url = json.find("image_url");
    std::string url_path = path + ".image_url";
    if (url != nullptr && url->object() != nullptr) {
      if (strict_) {
        for (const PyJson::Member& member : *url->object()) {
          if (member.key == "url") continue;
          bool is_detail = member.key == "detail" &&
                           (member.value.is_null() || member.value.string() != nullptr);
          if (!is_detail) {
            return malformed(url_path + "." + member.key,
                             url_path + " may hold url and detail only");
          }
        }
      }
      url = url->find("url");
      url_path += ".url";
    }
    if (url == nullptr || url->string() == nullptr) return wrong_type(url_path, url, "a string");
    return ContentPart{Kind::image, *url->string(), true};
  }

  Result<ContentPart> thinking(const PyJson& json, const std::string& path) {
    ContentPart out{Kind::thinking, "", true};
    const PyJson* text = json.find("thinking");
    if (text != nullptr && text->string() != nullptr) {
      out.text = *text->string();
    } else if (text != nullptr && text->array() != nullptr && !strict_) {
      for (const PyJson& chunk : *text->array()) {
        const PyJson* piece = chunk.object() != nullptr ? chunk.find("text") : &chunk;
        if (piece == nullptr && chunk.object() != nullptr) continue;
        if (piece->string() == nullptr) {
          return wrong_type(path + ".thinking", &chunk, "text parts in the list");
        }
        out.text += *piece->string();
      }
    } else {
      return wrong_type(path + ".thinking", text, "a string");
    }
    if (const PyJson* closed = json.find("closed")) {
      std::optional<bool> flag = lax_bool(*closed);
      if (!flag) return wrong_type(path + ".closed", closed, "true or false");
      out.closed = *flag;
    }
    return out;
  }

  // Read only to say no at the right place: no model of this family here hears.
  Result<ContentPart> audio(const PyJson& json, const std::string& type, const std::string& path) {
    const PyJson* value = json.find(type);
    if (value != nullptr && value->object() != nullptr) {
      value = value->find(type == "audio_url" ? "url" : "data");
    }
    if (value == nullptr || value->string() == nullptr) {
      return wrong_type(path + "." + type, value, "a string");
    }
    if (type == "input_audio" &&
        value->string()->find_first_not_of(" \t\r\n\f\v") == std::string::npos) {
      return malformed(path + ".input_audio", path + ".input_audio is empty");
    }
    return ContentPart{Kind::audio, *value->string(), true};
  }

  Result<void> tool_message(const PyJson& json, Message& out) {
    out.role = Role::tool;
    out.content = TRY(needed_content(json));
    const PyJson* id = json.find("tool_call_id");
    if (!strict_ && (id == nullptr || !id->truthy())) {
      out.tool_call_id = "null";
    } else if (id == nullptr || (!id->is_null() && id->string() == nullptr)) {
      return wrong_type(place_ + ".tool_call_id", id, "a string");
    } else if (!id->is_null()) {
      out.tool_call_id = *id->string();
    }
    if (const PyJson* name = json.get("name")) {
      if (name->string() == nullptr) return wrong_type(place_ + ".name", name, "a string");
      out.name = *name->string();
    }
    return {};
  }

  Result<void> assistant_message(const PyJson& json, Message& out) {
    out.role = Role::assistant;
    if (const PyJson* calls = json.get("tool_calls")) {
      std::string path = place_ + ".tool_calls";
      if (calls->array() == nullptr) return wrong_type(path, calls, "a list");
      for (size_t i = 0; i < calls->array()->size(); ++i) {
        out.tool_calls.push_back(
            TRY(tool_call((*calls->array())[i], path + "[" + std::to_string(i) + "]")));
      }
    }
    if (const PyJson* value = json.get("content")) out.content = TRY(content(*value));
    return reasoning(json, out);
  }

  Result<void> reasoning(const PyJson& json, Message& out) {
    const PyJson* first = json.get("reasoning_content");
    const PyJson* second = json.get("reasoning");
    if (!strict_) {
      if (!keeps_empty_reasoning_ && is_empty_text(first)) first = nullptr;
      if (!keeps_empty_reasoning_ && is_empty_text(second)) second = nullptr;
      if (first != nullptr) second = nullptr;
    }
    const PyJson* value = first != nullptr ? first : second;
    if (value == nullptr) return {};
    std::string path = place_ + (first != nullptr ? ".reasoning_content" : ".reasoning");
    if (value->string() == nullptr) return wrong_type(path, value, "a string");
    if (first != nullptr && second != nullptr &&
        (second->string() == nullptr || *first->string() != *second->string())) {
      return malformed(path, place_ + ": reasoning_content and reasoning differ; send one of them");
    }
    for (const ContentPart& part : out.content) {
      if (part.kind == Kind::thinking) {
        return refused("assistant_message", path,
                       path + " stands beside thinking parts in content; send one of them");
      }
    }
    out.content.insert(out.content.begin(), {Kind::thinking, *value->string(), true});
    return {};
  }

  Result<ToolCall> tool_call(const PyJson& json, const std::string& path) {
    if (json.object() == nullptr) return wrong_type(path, &json, "an object");
    ToolCall out;
    const PyJson* id = json.find("id");
    bool has_id =
        id != nullptr && id->truthy() && !(id->string() != nullptr && *id->string() == "null");
    if (!strict_ && !has_id) {
      std::string number = std::to_string(num_made_ids_++);
      out.id = "made" + std::string(number.size() < 5 ? 5 - number.size() : 0, '0') + number;
    } else if (id == nullptr) {
      out.id = "null";
    } else if (id->string() == nullptr) {
      return wrong_type(path + ".id", id, "a string");
    } else {
      out.id = *id->string();
    }
    const PyJson* type = json.find("type");
    if (type != nullptr && (type->string() == nullptr || *type->string() != "function")) {
      return malformed(path + ".type", path + ".type must be \"function\"");
    }
    const PyJson* function = json.find("function");
    std::string function_path = path + ".function";
    if (function == nullptr || function->object() == nullptr) {
      return wrong_type(function_path, function, "an object with name and arguments");
    }
    const PyJson* name = function->find("name");
    if (name == nullptr || name->string() == nullptr) {
      return wrong_type(function_path + ".name", name, "a string");
    }
    out.name = *name->string();
    const PyJson* arguments = function->find("arguments");
    if (arguments == nullptr) return wrong_type(function_path + ".arguments", nullptr, "a string");
    if (const std::string* text = arguments->string()) {
      out.arguments = *text;
    } else if (arguments->is_null()) {
      out.arguments = "{}";
    } else if (arguments->object() != nullptr || !strict_) {
      out.arguments = dump_python_json(*arguments);
    } else {
      return wrong_type(function_path + ".arguments", arguments, "a string or an object");
    }
    return out;
  }

  bool strict_;
  bool keeps_empty_reasoning_;
  std::string place_;
  size_t num_made_ids_ = 0;
};

// An assistant message without content, calls and reasoning: lenient leaves it out, and its prefix.
bool says_nothing(const PyJson& message) {
  const PyJson* role = message.find("role");
  if (role == nullptr || role->string() == nullptr || *role->string() != "assistant") return false;
  auto holds = [&](const char* key) {
    const PyJson* value = message.find(key);
    return value != nullptr && value->truthy();
  };
  return !holds("content") && !holds("tool_calls") && message.get("reasoning_content") == nullptr &&
         message.get("reasoning") == nullptr;
}

bool prefix_of(const PyJson& message) {
  const PyJson* prefix = message.find("prefix");
  return prefix != nullptr && prefix->truthy();
}

// Whether the last message is to be continued.
Result<bool> continues(const PyJson& body, bool strict) {
  const PyJson* flag =
      strict ? body.find("continue_final_message") : body.get("continue_final_message");
  if (flag != nullptr) {
    std::optional<bool> value = lax_bool(*flag);
    if (!value) return wrong_type("continue_final_message", flag, "true or false");
    if (*value) return true;
  }
  return false;
}

}  // namespace

bool has_empty_reasoning(const PyJson& body) {
  const PyJson* list = body.find("messages");
  if (list == nullptr || list->array() == nullptr) return false;
  return std::any_of(list->array()->begin(), list->array()->end(), [](const PyJson& message) {
    return is_empty_text(message.find("reasoning_content")) || is_empty_text(message.find("reasoning"));
  });
}

Result<std::vector<Message>> import_messages(const PyJson& body, const ImportRules& rules) {
  const PyJson* list = body.find("messages");
  if (list == nullptr || list->array() == nullptr) return wrong_type("messages", list, "a list");
  const PyJson::Array& items = *list->array();
  auto place = [](size_t i) { return "messages[" + std::to_string(i) + "]"; };
  std::vector<size_t> kept;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].object() == nullptr) return wrong_type(place(i), &items[i], "an object");
    if (rules.strict || !says_nothing(items[i])) kept.push_back(i);
  }
  for (size_t i : kept) {
    if (i != kept.back() && prefix_of(items[i])) {
      return refused("assistant_message", place(i) + ".prefix",
                     place(i) + ".prefix is true; only the last message can be continued");
    }
  }
  // A message's own prefix overrides the request's flag, even one of a wrong type.
  bool go_on = !kept.empty() && prefix_of(items[kept.back()]);
  std::vector<Message> messages;
  messages.reserve(kept.size());
  MessageImporter importer(rules);
  for (size_t i : kept) messages.push_back(TRY(importer.message(items[i], i)));
  if (!go_on) go_on = TRY(continues(body, rules.strict));
  bool ends_with_assistant = !messages.empty() && messages.back().role == Role::assistant;
  if (!rules.strict && !go_on && ends_with_assistant) {
    const PyJson* generation = body.get("add_generation_prompt");
    go_on = generation != nullptr && generation->boolean() && !*generation->boolean();
  }
  if (go_on && !ends_with_assistant) {
    return refused("message_structure", "continue_final_message",
                   "the last message is to be continued but is not an assistant message");
  }
  if (go_on) messages.back().prefix = true;
  return messages;
}

}  // namespace bise
