// Generation: one request while it runs. It submits the prompts, turns the engine's tokens into
// deltas (content, reasoning, pieces of calls, the end) and counts. The same deltas feed a stream and a
// whole answer, so both say the same.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "chat/chat_service.h"
#include "engine/engine_thread.h"
#include "server/api_error.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/parameters.h"
#include "server/served_model.h"
#include "server/stop_matcher.h"
#include "text/detokenizer.h"

namespace bise {

struct OutputDelta {
  enum class Kind : uint8_t { content, reasoning, call_begin, call_arguments, finish };
  int32_t choice = 0;
  Kind kind = Kind::content;
  std::string text;  // content, reasoning, a piece of arguments
  int32_t call_index = -1;
  std::string call_id, call_name;          // call_begin
  std::string finish_reason;               // finish: stop, length, tool_calls, abort
  std::optional<std::string> stop_string;  // finish: what stopped it
  std::optional<int32_t> stop_token;
  std::vector<SampledToken> tokens;  // generated since the choice's last delta, but not those that ended it
};

struct GenerationUsage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
  int64_t cached_tokens = 0, reasoning_tokens = 0, image_tokens = 0;
};

struct GenerationPrompt {
  std::vector<int32_t> ids;
  std::vector<ProcessedImage> images;
  bool starts_in_thinking = false;
};

struct GenerationPlan {
  std::vector<GenerationPrompt> prompts;
  bool is_chat = false;
  SamplingParams sampling;  // complete: with the model's stop tokens
  int32_t n = 1;            // answers to each prompt; choice = prompt * n + answer
  bool prompt_only = false;
  std::shared_ptr<const StopPatterns> stop;  // nullptr: none
  bool include_stop = false;
  std::vector<int32_t> client_stop_tokens;
  bool one_call_only = false;
  TokenMaskFactory make_mask;
  std::string tenant, cache_salt;
};

class Generation {
 public:
  // Everything that can be refused is refused here, before an answer begins.
  static ApiResult<std::unique_ptr<Generation>> submit(const ServedModel& model, GenerationPlan plan,
                                                       ServerMetrics& metrics);
  ~Generation();

  using DeltaSink = std::function<void(const std::vector<OutputDelta>&)>;
  // Called about every second while nothing comes; with the seconds since something came.
  using SilenceSink = std::function<void(double)>;
  // Runs until all choices have ended, the client is gone (the rest is cancelled) or one failed.
  ApiStatus run(HttpReply& reply, const DeltaSink& on_deltas, const SilenceSink& on_silence);
  // From any thread: ends all choices with finish reason "abort"; false when all have ended already.
  bool cancel();

  int32_t num_choices() const;
  GenerationUsage usage() const { return usage_; }
  const std::vector<int32_t>& prompt_ids(size_t prompt) const { return prompt_ids_[prompt]; }
  // Of the tokens from the second on, when they were asked for.
  const std::vector<SampledToken>& prompt_logprobs(size_t prompt) const { return prompt_logprobs_[prompt]; }

 private:
  struct Choice;
  struct Signal;
  Generation(const ServedModel& model, GenerationPlan plan, ServerMetrics& metrics);
  void take(size_t prompt, SequenceEvent& event, std::vector<OutputDelta>& out);
  void add_token(Choice& choice, SampledToken token, std::vector<OutputDelta>& out);
  void add_events(Choice& choice, std::vector<ChatEvent> events, std::vector<OutputDelta>& out);
  void add_content(Choice& choice, std::string_view text, std::vector<OutputDelta>& out);
  void emit(Choice& choice, OutputDelta delta, std::vector<OutputDelta>& out);
  void emit_held(Choice& choice, std::vector<OutputDelta>& out);
  void end_choice(Choice& choice, const std::string& reason, std::vector<OutputDelta>& out);
  void stop_early(Choice& choice, std::vector<OutputDelta>& out);

  const ServedModel& model_;
  GenerationPlan plan_;
  ServerMetrics& metrics_;
  std::shared_ptr<Signal> signal_;
  std::vector<TokenStream> streams_;  // by prompt
  std::vector<Choice> choices_;
  std::vector<std::vector<int32_t>> prompt_ids_;
  std::vector<std::vector<SampledToken>> prompt_logprobs_;
  GenerationUsage usage_;
  size_t open_choices_ = 0;
  std::optional<ApiError> failure_;
  std::optional<int32_t> think_, think_end_;
};

}  // namespace bise
