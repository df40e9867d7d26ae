// Joins the events of a ChatStream as a client joins deltas, and says where they break the rules of
// a stream: id and name of a call once and first, indices from 0 without gaps, whole characters
// only.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "chat/chat_service.h"

namespace bise {

struct JoinedAnswer {
  struct Call {
    std::string id, name, arguments;
  };
  std::string content, reasoning, finish_reason;
  std::vector<Call> calls;
  std::string broken_rule;  // empty: none
};

inline bool is_call_id(const std::string& id) {
  if (id.size() != 9) return false;
  for (char c : id) {
    bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!is_letter && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}

inline void join_events(const std::vector<ChatEvent>& events, JoinedAnswer& answer) {
  auto broken = [&answer](const char* rule) {
    if (answer.broken_rule.empty()) answer.broken_rule = rule;
  };
  for (const ChatEvent& event : events) {
    if (!answer.finish_reason.empty()) broken("nothing follows finish");
    if (!is_valid_utf8(event.text)) broken("every text is whole characters");
    switch (event.kind) {
      case ChatEvent::Kind::content:
        if (event.text.empty()) broken("no empty texts");
        answer.content += event.text;
        break;
      case ChatEvent::Kind::reasoning:
        if (event.text.empty()) broken("no empty texts");
        answer.reasoning += event.text;
        break;
      case ChatEvent::Kind::tool_call_begin:
        if (event.call_index != static_cast<int32_t>(answer.calls.size())) broken("indices from 0");
        if (!is_call_id(event.call_id)) broken("ids are nine letters and digits");
        if (event.call_name.empty() || !is_valid_utf8(event.call_name)) broken("a call has a name");
        answer.calls.push_back({event.call_id, event.call_name, ""});
        break;
      case ChatEvent::Kind::tool_call_arguments:
        if (event.call_index + 1 != static_cast<int32_t>(answer.calls.size()) ||
            event.text.empty()) {
          broken("arguments belong to the last call");
          break;
        }
        answer.calls.back().arguments += event.text;
        break;
      case ChatEvent::Kind::finish:
        if (event.finish_reason.empty()) broken("finish has a reason");
        answer.finish_reason = event.finish_reason;
        break;
    }
  }
}

inline JoinedAnswer join_stream(ChatStream& stream, const std::vector<TokenId>& ids,
                                const std::string& reason) {
  JoinedAnswer answer;
  for (TokenId id : ids) join_events(stream.push(id), answer);
  join_events(stream.finish(reason), answer);
  std::set<std::string> call_ids;
  for (const auto& call : answer.calls) {
    if (!call_ids.insert(call.id).second) answer.broken_rule = "call ids are distinct";
    if (call.arguments.empty()) answer.broken_rule = "a call has arguments";
  }
  if (answer.finish_reason.empty()) answer.broken_rule = "the last event is finish";
  return answer;
}

}  // namespace bise
