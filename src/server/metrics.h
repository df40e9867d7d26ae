// ServerMetrics: what /metrics tells, in Prometheus' text form. Names that vLLM has keep vLLM's names
// (dashboards and autoscalers read them); what only we have begins with bise_.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine_stats.h"
#include "server/http_server.h"

namespace bise {

class ServerMetrics {
 public:
  explicit ServerMetrics(const std::string& model_name);
  ~ServerMetrics();

  // From any thread; cheap.
  void first_token(const SequenceTimes& times);
  void next_token(EngineClock::time_point before, EngineClock::time_point now);
  // `reason`: stop, length, tool_calls, abort, error
  void sequence_ended(const std::string& reason, const SequenceTimes& times, size_t prompt_tokens, int32_t tokens);
  void request(int32_t answers, std::optional<int32_t> max_tokens);
  void http_answer(int status);
  // For timed(): may be called after this is gone.
  std::function<void(double)> mask_timer() const;

  std::string text(const EngineStats& engine, const HttpServerStats& http) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace bise
