#include "chat/request.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "chat/chat_service.h"
#include "chat/json_schema.h"
#include "chat/lax_types.h"
#include "chat/message_import.h"

namespace bise {
namespace {

constexpr size_t kMaxBodyBytes = size_t{256} << 20;
// From least to most; what a model lacks is mapped to none (the first three) or high.
constexpr std::array<std::string_view, 7> kEfforts = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
constexpr std::string_view kOff = "off";  // what some agents say for none

Error malformed(const std::string& param, const std::string& message) {
  return refused("malformed", param, message);
}

// A required text field of an object at `place`.
Result<std::string> text_field(const PyJson& object, const char* key, const std::string& place) {
  std::string path = place + "." + key;
  const PyJson* value = object.find(key);
  if (value == nullptr) return malformed(path, path + " is missing; expected a string");
  if (value->string() == nullptr) {
    return malformed(path, path + " is " + value->type_name() + "; expected a string");
  }
  return *value->string();
}

Result<Tool> import_tool(const PyJson& tool, const std::string& place) {
  if (tool.object() == nullptr) {
    return malformed(place, place + " is " + tool.type_name() + "; expected an object");
  }
  const PyJson* type = tool.find("type");
  if (type != nullptr && (type->string() == nullptr || *type->string() != "function")) {
    return malformed(place + ".type", place + ".type must be \"function\"");
  }
  const PyJson* function = tool.find("function");
  std::string path = place + ".function";
  if (function == nullptr || function->object() == nullptr) {
    return malformed(path, path +
                               (function == nullptr ? std::string(" is missing")
                                                    : std::string(" is ") + function->type_name()) +
                               "; expected an object with a name");
  }
  Tool out;
  out.name = TRY(text_field(*function, "name", path));
  if (function->get("description") != nullptr) {
    out.description = TRY(text_field(*function, "description", path));
  }
  out.parameters = PyJson(PyJson::Object{});
  if (const PyJson* parameters = function->get("parameters")) {
    if (parameters->object() == nullptr) {
      return malformed(path + ".parameters", path + ".parameters is " + parameters->type_name() +
                                                 "; expected an object (a JSON schema)");
    }
    out.parameters = *parameters;
  }
  if (const PyJson* strict = function->get("strict"); strict != nullptr && !lax_bool(*strict)) {
    return malformed(path + ".strict", path + ".strict must be true or false");
  }
  return out;
}

// Where clients put the effort; the first place counts.
const PyJson* find_effort(const PyJson& body) {
  static const PyJson kNone(std::string("none"));
  static const PyJson kHigh(std::string("high"));
  if (const PyJson* effort = body.get("reasoning_effort")) return effort;
  if (const PyJson* reasoning = body.get("reasoning")) {
    if (const PyJson* effort = reasoning->get("effort")) return effort;
  }
  if (const PyJson* arguments = body.get("chat_template_kwargs")) {
    if (const PyJson* effort = arguments->get("reasoning_effort")) return effort;
    if (const PyJson* thinking = arguments->get("enable_thinking")) {
      if (thinking->boolean() != nullptr) return *thinking->boolean() ? &kHigh : &kNone;
    }
  }
  const PyJson* mode = body.get("prompt_mode");
  if (mode != nullptr && mode->string() != nullptr && *mode->string() == "reasoning") return &kHigh;
  return nullptr;
}

class Importer {
 public:
  Importer(const PyJson& body, const ImportRules& rules) : body_(body), rules_(rules) {}

  Result<ChatRequest> run() {
    request_.messages = TRY(import_messages(body_, rules_));
    TRY(tools());
    TRY(response_format());
    TRY(tool_choice());
    TRY(reasoning_effort());
    TRY(flag("parallel_tool_calls", true));
    TRY(flag("truncate_for_context_length", false));
    TRY(model());
    if (rules_.strict) TRY(sampling());
    return std::move(request_);
  }

 private:
  // A missing field gives nullptr; lenient takes null as missing.
  const PyJson* field(const char* key) const {
    return rules_.strict ? body_.find(key) : body_.get(key);
  }

  Result<void> flag(const char* key, bool accepts_null) {
    const PyJson* value = accepts_null ? body_.get(key) : field(key);
    if (value != nullptr && !lax_bool(*value)) {
      return malformed(key,
                       std::string(key) + " is " + value->type_name() + "; expected true or false");
    }
    return {};
  }

  Result<void> model() {
    const PyJson* value = body_.get("model");
    if (value != nullptr && value->string() == nullptr) {
      return malformed("model",
                       std::string("model is ") + value->type_name() + "; expected a string");
    }
    request_.has_model = value != nullptr;
    return {};
  }

  Result<void> tools() {
    const PyJson* list = body_.get("tools");
    if (list == nullptr) return {};
    if (list->array() == nullptr) {
      return malformed("tools", std::string("tools is ") + list->type_name() + "; expected a list");
    }
    for (size_t i = 0; i < list->array()->size(); ++i) {
      request_.tools.push_back(
          TRY(import_tool((*list->array())[i], "tools[" + std::to_string(i) + "]")));
    }
    return {};
  }

  Result<void> tool_choice() {
    const PyJson* value = field("tool_choice");
    if (value == nullptr) return {};
    using Kind = ToolChoice::Kind;
    if (const std::string* word = value->string()) {
      static constexpr std::pair<const char*, Kind> kWords[] = {{"auto", Kind::automatic},
                                                                {"none", Kind::none},
                                                                {"any", Kind::required},
                                                                {"required", Kind::required}};
      for (const auto& [name, kind] : kWords) {
        if (*word == name) {
          request_.tool_choice.kind = kind;
          return {};
        }
      }
    } else if (value->object() != nullptr) {
      const PyJson* type = value->find("type");
      bool is_function =
          type == nullptr || (type->string() != nullptr && *type->string() == "function");
      const PyJson* function = value->find("function");
      if (is_function && function != nullptr && function->object() != nullptr) {
        request_.tool_choice.kind = Kind::named;
        request_.tool_choice.name = TRY(text_field(*function, "name", "tool_choice.function"));
        return {};
      }
    }
    return malformed("tool_choice",
                     "tool_choice must be \"auto\", \"none\", \"required\" or {\"type\": "
                     "\"function\", \"function\": {\"name\": …}}");
  }

  Result<void> response_format() {
    const PyJson* format = field("response_format");
    if (format == nullptr) return {};
    if (format->object() == nullptr) {
      return malformed("response_format", std::string("response_format is ") + format->type_name() +
                                              "; expected an object");
    }
    using Kind = ResponseFormat::Kind;
    ResponseFormat& out = request_.response_format;
    if (const PyJson* type = format->find("type")) {
      // vLLM's; it says nothing of the prompt.
      if (!rules_.strict && type->string() != nullptr && *type->string() == "structural_tag") return {};
      static constexpr std::pair<const char*, Kind> kTypes[] = {{"text", Kind::text},
                                                                {"json_object", Kind::json_object},
                                                                {"json_schema", Kind::json_schema}};
      const auto* known =
          std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& entry) {
            return type->string() != nullptr && *type->string() == entry.first;
          });
      if (known == std::end(kTypes)) {
        return malformed("response_format.type",
                         "response_format.type must be \"text\", \"json_object\" or "
                         "\"json_schema\"");
      }
      out.kind = known->second;
    }
    const PyJson* holder = format->get("json_schema");
    if (holder == nullptr) {
      if (out.kind != Kind::json_schema) return {};
      return malformed("response_format.json_schema",
                       "response_format.json_schema is missing; type \"json_schema\" needs it");
    }
    return json_schema(*holder);
  }

  Result<void> json_schema(const PyJson& holder) {
    const std::string place = "response_format.json_schema";
    if (holder.object() == nullptr) {
      return malformed(place, place + " is " + holder.type_name() + "; expected an object");
    }
    TRY(text_field(holder, "name", place));
    if (holder.get("description") != nullptr) TRY(text_field(holder, "description", place));
    const PyJson* strict = rules_.strict ? holder.find("strict") : holder.get("strict");
    if (strict != nullptr && !lax_bool(*strict)) {
      return malformed(place + ".strict", place + ".strict must be true or false");
    }
    const PyJson* schema = holder.find("schema");
    if (schema == nullptr) schema = holder.find("custom_schema");
    if (schema == nullptr || schema->object() == nullptr) {
      return malformed(place + ".schema", place + ".schema must be an object (a JSON schema)");
    }
    if (std::optional<SchemaFault> fault = find_schema_fault(*schema)) {
      return malformed(place + ".schema" + fault->path,
                       place + ".schema" + fault->path +
                           " is not valid in JSON Schema draft 7: " + fault->expected);
    }
    request_.response_format.schema = *schema;
    return {};
  }

  Result<void> reasoning_effort() {
    if (!rules_.strict && !rules_.efforts) return {};  // a setting this model does not have
    const PyJson* effort = rules_.strict ? body_.get("reasoning_effort") : find_effort(body_);
    if (effort == nullptr) return {};
    const bool known = effort->string() != nullptr &&
                       (std::find(kEfforts.begin(), kEfforts.end(), *effort->string()) != kEfforts.end() ||
                        (!rules_.strict && *effort->string() == kOff));
    if (!known) {
      return malformed("reasoning_effort",
                       "reasoning_effort must be one of none, minimal, low, medium, high, xhigh, "
                       "max");
    }
    request_.reasoning_effort = *effort->string();
    if (!rules_.strict) request_.reasoning_effort = mapped_effort(*effort->string(), *rules_.efforts);
    return {};
  }

  Result<void> sampling() {
    for (const char* key : {"temperature", "top_p"}) {
      const PyJson* value = body_.find(key);
      if (value == nullptr) continue;
      std::optional<double> number = lax_number(*value);
      if (!number || !(*number >= 0 && *number <= 1)) {
        return malformed(key, std::string(key) + " must be a number from 0 to 1");
      }
    }
    const PyJson* seed = body_.get("seed");
    if (body_.find("seed") != nullptr && body_.find("random_seed") != nullptr) {
      return malformed("seed", "seed and random_seed cannot both be given");
    }
    if (seed == nullptr) seed = body_.get("random_seed");
    for (const auto& [key, value] :
         {std::pair{"seed", seed}, std::pair{"max_tokens", body_.get("max_tokens")}}) {
      if (value == nullptr) continue;
      std::optional<int> sign = lax_integer_sign(*value);
      if (!sign || *sign < 0) {
        return malformed(key, std::string(key) + " must be a whole number from 0 up");
      }
    }
    return {};
  }

  const PyJson& body_;
  const ImportRules& rules_;
  ChatRequest request_;
};

}  // namespace

Error refused(const char* kind, const std::string& param, const std::string& message) {
  // Both may quote the client, cut anywhere.
  return Error(ErrorCode::invalid_argument, repair_utf8(message))
      .with_kind(kind)
      .with_param(repair_utf8(param));
}

std::optional<std::string> asked_effort(const PyJson& body) {
  const PyJson* effort = find_effort(body);
  if (effort == nullptr || effort->string() == nullptr) return std::nullopt;
  return *effort->string();
}

std::string mapped_effort(const std::string& word, const std::vector<std::string>& listed) {
  if (std::find(listed.begin(), listed.end(), word) != listed.end()) return word;
  if (word == kOff) return "none";
  const auto at = std::find(kEfforts.begin(), kEfforts.end(), word);
  return at - kEfforts.begin() < 3 ? "none" : "high";
}

Result<PyJson> parse_chat_body(std::string_view body, const PyJsonLimits& limits) {
  if (body.size() > kMaxBodyBytes) {
    return Error(ErrorCode::too_large, "the request has " + std::to_string(body.size()) +
                                           " bytes; at most " + std::to_string(kMaxBodyBytes) +
                                           " are allowed")
        .with_kind("malformed");
  }
  if (!is_valid_utf8(body)) return malformed("", "the request is not valid UTF-8");
  Result<PyJson> json = parse_python_json(body, limits);
  if (!json) return std::move(json).error().with_context("request").with_kind("malformed");
  if (json->object() == nullptr) {
    return malformed(
        "", std::string("the request is ") + json->type_name() + "; expected a JSON object");
  }
  return json;
}

Result<ChatRequest> import_chat_request(const PyJson& body, const ImportRules& rules) {
  return Importer(body, rules).run();
}

Result<ChatRequest> import_chat_request(std::string_view body, const ImportRules& rules) {
  return import_chat_request(TRY(parse_chat_body(body)), rules);
}

Result<Prompt> ChatService::encode(std::string_view body, const ChatRequestOptions& options) const {
  return encode(TRY(parse_chat_body(body)), options);
}

const char* role_name(Role role) {
  switch (role) {
    case Role::system: return "system";
    case Role::user: return "user";
    case Role::assistant: return "assistant";
    case Role::tool: return "tool";
  }
  return "";
}

}  // namespace bise
