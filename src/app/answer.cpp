#include "app/answer.h"

#include "app/machine.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "text/detokenizer.h"

namespace bise {
namespace {

// Turns ids into events. Both forms of an answer, parsed and plain, end here.
using PushToken = std::function<std::vector<ChatEvent>(TokenId)>;

class Collector {
 public:
  Collector(Answer& answer, const EventSink& sink) : answer_(answer), sink_(sink) {}

  void take(const std::vector<ChatEvent>& events) {
    for (const ChatEvent& event : events) {
      add(event);
      if (!failure_ && sink_) {
        Result<void> written = sink_(event);
        if (!written) failure_ = written.error();
      }
    }
  }
  const std::optional<Error>& failure() const { return failure_; }

 private:
  void add(const ChatEvent& event) {
    switch (event.kind) {
      case ChatEvent::Kind::content: answer_.content += event.text; break;
      case ChatEvent::Kind::reasoning: answer_.reasoning += event.text; break;
      case ChatEvent::Kind::tool_call_begin:
        answer_.tool_calls.push_back({event.call_id, event.call_name, ""});
        break;
      case ChatEvent::Kind::tool_call_arguments:
        answer_.tool_calls.at(static_cast<size_t>(event.call_index)).arguments += event.text;
        break;
      case ChatEvent::Kind::finish: answer_.finish_reason = event.finish_reason; break;
    }
  }
  Answer& answer_;
  const EventSink& sink_;
  std::optional<Error> failure_;
};

// The engine ends an answer where the context does; a larger number is said, not silently cut.
void say_if_cut(const Session& session, const NewSequence& sequence) {
  const int64_t room = session.engine->context() - static_cast<int64_t>(sequence.ids.size());
  if (room <= 0 || sequence.params.max_tokens <= room) return;
  session.log.warning("--max-tokens " + std::to_string(sequence.params.max_tokens) + ": after the " +
                      std::to_string(sequence.ids.size()) + " tokens of the prompt the context has room for " +
                      std::to_string(room) + "; the answer ends there");
}

Result<void> run_engine(Session& session, NewSequence sequence, const PushToken& push,
                        Collector& collector, Answer& answer) {
  say_if_cut(session, sequence);
  ProgressBar bar("reading the prompt");
  GenerateCallbacks callbacks;
  callbacks.on_prefill = [&bar](int64_t done, int64_t total) {
    bar.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    return !interrupted();
  };
  callbacks.on_token = [&](const SampledToken& token) {
    bar.clear();
    collector.take(push(token.id));
    return !interrupted() && !collector.failure();
  };
  answer.generated = TRY(session.engine->generate(std::move(sequence), callbacks));
  bar.clear();
  answer.was_interrupted = interrupted();
  if (collector.failure()) return *collector.failure();
  return {};
}

}  // namespace

Result<Answer> generate_answer(Session& session, const Prompt& prompt, const SamplingParams& params,
                               const EventSink& sink) {
  NewSequence sequence;
  sequence.ids = prompt.ids;
  sequence.params = params;
  for (const Prompt::Image& image : prompt.images) {
    sequence.images.push_back(TRY(process_picture(session, as_bytes(image.bytes))));
  }
  Answer answer;
  Collector collector(answer, sink);
  std::unique_ptr<ChatStream> stream =
      session.chat.service->start(prompt.starts_in_thinking, params.seed);
  TRY(run_engine(
      session, std::move(sequence), [&](TokenId id) { return stream->push(id); }, collector,
      answer));
  bool stopped = answer.generated.finish == FinishReason::stop;
  collector.take(stream->finish(stopped ? "stop" : "length"));
  if (answer.generated.finish == FinishReason::cancelled) answer.finish_reason = "cancelled";
  if (collector.failure()) return *collector.failure();
  return answer;
}

Result<Answer> generate_raw(Session& session, std::vector<TokenId> ids,
                            const SamplingParams& params, const EventSink& sink) {
  NewSequence sequence;
  sequence.ids = std::move(ids);
  sequence.params = params;
  Answer answer;
  Collector collector(answer, sink);
  Detokenizer detokenizer(session.chat.service->tokenizer());
  auto events = [](std::string text) {
    std::vector<ChatEvent> list;
    if (!text.empty()) list.push_back({ChatEvent::Kind::content, std::move(text), -1, "", "", ""});
    return list;
  };
  TRY(run_engine(
      session, std::move(sequence), [&](TokenId id) { return events(detokenizer.push(id)); },
      collector, answer));
  collector.take(events(detokenizer.flush()));
  answer.finish_reason = finish_reason_name(answer.generated.finish);
  if (collector.failure()) return *collector.failure();
  return answer;
}

Speed measure_speed(const Session& session, const Generated& generated) {
  constexpr double kMeasureSeconds = 0.15;
  Speed speed;
  speed.prompt_tokens = generated.prompt_tokens;
  speed.generated_tokens = static_cast<int64_t>(generated.ids.size());
  speed.load_s = session.load_seconds;
  speed.prefill_s = generated.prefill_seconds;
  speed.decode_s = generated.decode_seconds;
  speed.peak_memory_bytes = peak_memory();  // before the measurement below takes its buffer
  if (generated.prefill_seconds > 0) {
    speed.prompt_per_s = static_cast<double>(generated.prompt_tokens) / generated.prefill_seconds;
  }
  const MemoryPlan& plan = session.model->memory_plan();
  int64_t steps = speed.generated_tokens - 1;  // the first token comes out of the prefill
  if (steps > 0 && generated.decode_seconds > 0) {
    speed.generated_per_s = static_cast<double>(steps) / generated.decode_seconds;
    int64_t middle = generated.prompt_tokens + speed.generated_tokens / 2;
    uint64_t step_bytes = session.model->step_bytes() + session.engine->kv_step_bytes(middle);
    speed.gb_per_s = static_cast<double>(step_bytes) * speed.generated_per_s / 1e9;
    // The measurement's own buffer could break a ceiling, and of two memories neither is the limit.
    const bool is_split = plan.device && plan.device->host_layers > 0;
    if (!plan.bounded && !is_split) speed.read_gb_per_s = session.backend->probe_reads(kMeasureSeconds)->best();
  }
  if (plan.streams) {
    const StreamStats disk = session.backend->stream_stats();
    speed.streamed_bytes = plan.streamed_bytes;
    if (disk.seconds > 0) speed.disk_gb_per_s = static_cast<double>(disk.bytes) / disk.seconds / 1e9;
    speed.expected_s = session.forecast.step_seconds();
    if (speed.generated_per_s > 0) speed.seen_s = 1 / speed.generated_per_s;
  }
  return speed;
}

std::string speed_line(const Speed& speed) {
  std::string line = "prompt " + std::to_string(speed.prompt_tokens) + " tokens, " +
                     format_fixed(speed.prompt_per_s, 1) + " tok/s; generated " +
                     std::to_string(speed.generated_tokens) + " tokens";
  if (speed.generated_per_s > 0) line += ", " + format_fixed(speed.generated_per_s, 1) + " tok/s";
  if (speed.gb_per_s > 0 && speed.read_gb_per_s > 0) {
    line += "; " + format_fixed(speed.gb_per_s, 2) + " GB/s, " +
            format_fixed(100 * speed.gb_per_s / speed.read_gb_per_s, 0) + " % of the measured " +
            format_fixed(speed.read_gb_per_s, 1) + " GB/s";
  }
  if (speed.streamed_bytes > 0) {
    line += "; " + format_bytes(speed.streamed_bytes) + " from the disk per token at " +
            format_fixed(speed.disk_gb_per_s, 2) + " GB/s";
    if (speed.seen_s > 0) {
      line += ", " + format_fixed(speed.seen_s, 3) + " s per token, " + format_fixed(speed.expected_s, 3) + " expected";
    }
  }
  return line + "; peak memory " + format_bytes(speed.peak_memory_bytes);
}

}  // namespace bise
