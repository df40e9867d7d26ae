// ServerMetrics: what /metrics tells, in Prometheus' text form. Names that vLLM has keep vLLM's names
// (dashboards and autoscalers read them); what only we have begins with bise_.
#pragma once

#include <memory>
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
  void http_answer(int status);
  void mask_seconds(double seconds);

  std::string text(const EngineStats& engine, const HttpServerStats& http) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
