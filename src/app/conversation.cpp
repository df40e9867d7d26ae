#include "app/conversation.h"

#include <filesystem>
#include <system_error>

#include "base/json.h"

namespace bise {
namespace {

Json text_part(const std::string& text) { return {{"type", "text"}, {"text", text}}; }

std::string file_url(const std::string& path) {
  std::error_code ec;
  std::string absolute = std::filesystem::absolute(path, ec).string();
  return "file://" + (ec ? path : absolute);
}

}  // namespace

struct Conversation::State {
  Json system;  // content of the system message, null for none
  Json messages = Json::array();
  Json tools = Json::array();
  std::string reasoning;

  Json all() const {
    Json list = Json::array();
    if (!system.is_null()) list.push_back({{"role", "system"}, {"content", system}});
    for (const Json& message : messages) list.push_back(message);
    return list;
  }
};

Conversation::Conversation() : state_(std::make_unique<State>()) {}
Conversation::~Conversation() = default;
Conversation::Conversation(Conversation&&) noexcept = default;
Conversation& Conversation::operator=(Conversation&&) noexcept = default;

void Conversation::set_system(const std::string& text) {
  state_->system = text.empty() ? Json() : Json(text);
}

Result<void> Conversation::set_system_content(const std::string& json) {
  state_->system = TRY(parse_json(json));
  return {};
}

void Conversation::set_reasoning(const std::string& effort) { state_->reasoning = effort; }

Result<void> Conversation::set_tools(const std::string& json) {
  Json tools = TRY(parse_json(json));
  if (!tools.is_array()) {
    return Error(ErrorCode::invalid_argument,
                 "expected a JSON list of tools, [{\"type\": \"function\", \"function\": …}]");
  }
  state_->tools = std::move(tools);
  return {};
}

void Conversation::add_user(const std::string& text, const std::vector<std::string>& image_files) {
  if (image_files.empty()) {
    state_->messages.push_back({{"role", "user"}, {"content", text}});
    return;
  }
  Json parts = Json::array();
  for (const std::string& file : image_files) {
    parts.push_back({{"type", "image_url"}, {"image_url", {{"url", file_url(file)}}}});
  }
  if (!text.empty()) parts.push_back(text_part(text));
  state_->messages.push_back({{"role", "user"}, {"content", parts}});
}

void Conversation::add_assistant(const std::string& content, const std::string& reasoning) {
  Json message = {{"role", "assistant"}, {"content", content}};
  if (!reasoning.empty()) message["reasoning_content"] = reasoning;
  state_->messages.push_back(message);
}

void Conversation::drop_last() {
  if (!state_->messages.empty()) state_->messages.erase(state_->messages.size() - 1);
}
void Conversation::clear() { state_->messages = Json::array(); }
size_t Conversation::num_messages() const { return state_->messages.size(); }

std::string Conversation::request_body() const {
  Json body = {{"messages", state_->all()}};
  if (!state_->reasoning.empty()) body["reasoning_effort"] = state_->reasoning;
  if (!state_->tools.empty()) body["tools"] = state_->tools;
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Conversation::saved_form() const {
  return Json{{"messages", state_->all()}}.dump(2, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

}  // namespace bise
