// One answer of a session: a prompt in, events out while they arise, and the figures of its speed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "app/session.h"
#include "base/error.h"
#include "chat/chat_service.h"
#include "engine/engine.h"

namespace bise {

struct AnswerCall {
  std::string id, name, arguments;
};

struct Answer {
  std::string content, reasoning;
  std::vector<AnswerCall> tool_calls;
  std::string finish_reason;  // stop | length | tool_calls | cancelled
  bool was_interrupted = false;
  Generated generated;
};

// Gets every event as it arises; an Error (stdout is gone) ends the answer.
using EventSink = std::function<Result<void>(const ChatEvent&)>;

// Pictures of the prompt are processed here. Prefill shows a progress bar on a terminal. Ctrl-C
// ends the answer with was_interrupted; what was said until then is in it.
Result<Answer> generate_answer(Session& session, const Prompt& prompt, const SamplingParams& params,
                               const EventSink& sink);
// Plain continuation of `ids` without the chat format: content events only.
Result<Answer> generate_raw(Session& session, std::vector<TokenId> ids,
                            const SamplingParams& params, const EventSink& sink);

struct Speed {
  int64_t prompt_tokens = 0, generated_tokens = 0;
  double prompt_per_s = 0, generated_per_s = 0;  // 0: too few tokens to say
  double gb_per_s = 0, read_gb_per_s = 0;        // decode traffic; what this machine can read
  uint64_t peak_memory_bytes = 0;
  double load_s = 0, prefill_s = 0, decode_s = 0;
  // While weights stream: bytes of a step, the disk's rate while it worked, and seconds per token.
  uint64_t streamed_bytes = 0;
  double disk_gb_per_s = 0, expected_s = 0, seen_s = 0;
};
// Measures the machine's read bandwidth for a moment when there is a decode speed to compare.
Speed measure_speed(const Session& session, const Generated& generated);
std::string speed_line(const Speed& speed);

}  // namespace bise
