#include "app/model_defaults.h"

#include <chrono>
#include <ctime>

#include "chat/system_prompt.h"

namespace bise {
namespace {

// The day where the user is; the prompt says "today" to them.
std::chrono::sys_days local_today() {
  std::time_t now = std::time(nullptr);
  std::tm parts = {};
  localtime_r(&now, &parts);
  return std::chrono::year(parts.tm_year + 1900) / (parts.tm_mon + 1) / parts.tm_mday;
}

}  // namespace

Result<void> apply_default_system(const Session& session, Conversation& conversation) {
  std::string folder = folder_exists(session.path) ? session.path : parent_folder(session.path);
  std::optional<std::string> content = TRY(default_system_prompt(folder, local_today()));
  if (!content) return {};
  return conversation.set_system_content(*content);
}

Result<void> check_reasoning(const Session& session, const std::string& effort) {
  if (!effort.empty() && effort != "none" && session.chat.service->reasoning_efforts().empty()) {
    session.log.warning("the chat format of this model (" + session.chat.service->format_name() +
                        ") has no reasoning setting; --reasoning " + effort + " changes nothing");
  }
  return {};
}

Result<Prompt> encode_conversation(const Session& session, const Conversation& conversation) {
  ChatRequestOptions options;
  options.allow_files = true;
  options.image_processing = session.processing;
  return session.chat.service->encode(conversation.request_body(), options);
}

std::vector<TokenId> raw_prompt(const Session& session, const std::string& text) {
  std::vector<TokenId> ids;
  TokenId bos = session.chat.service->bos();
  if (bos >= 0) ids.push_back(bos);
  session.chat.service->tokenizer().encode(text, ids);
  return ids;
}

}  // namespace bise
