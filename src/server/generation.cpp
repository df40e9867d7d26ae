#include "server/generation.h"

#include <algorithm>

namespace bise {

// One answer while it grows.
struct Generation::Choice {
  int32_t index = 0;
  SequenceId sequence = 0;
  std::unique_ptr<ChatStream> parser;       // chat
  std::unique_ptr<Detokenizer> detokenizer; // completions
  StopMatcher stops;
  int32_t tokens = 0;
  bool thinking = false, ending = false, ended = false;
  std::vector<SampledToken> pending;  // tokens that no delta has carried yet
  std::optional<int32_t> stop_token;
  SequenceTimes times;
  size_t prompt_tokens = 0;
};

// Wakes the handler's thread: tokens are there, the client went, or someone aborted.
struct Generation::Signal {
  std::mutex mutex;
  std::condition_variable changed;
  bool raised = false, aborted = false, over = false;

  // Gives whether there was something left to wake for.
  bool raise(bool abort = false) {
    std::lock_guard lock(mutex);
    raised = true;
    aborted = aborted || abort;
    changed.notify_one();
    return !over;
  }
  void end() {
    std::lock_guard lock(mutex);
    over = true;
  }
};

Generation::Generation(const ServedModel& model, GenerationPlan plan, ServerMetrics& metrics)
    : model_(model), plan_(std::move(plan)), metrics_(metrics), signal_(std::make_shared<Signal>()) {
  think_ = model.chat->tokenizer().special("[THINK]");
  think_end_ = model.chat->tokenizer().special("[/THINK]");
}

Generation::~Generation() = default;

int32_t Generation::num_choices() const { return static_cast<int32_t>(choices_.size()); }

ApiResult<std::unique_ptr<Generation>> Generation::submit(const ServedModel& model, GenerationPlan plan,
                                                          ServerMetrics& metrics) {
  std::unique_ptr<Generation> self(new Generation(model, std::move(plan), metrics));
  const GenerationPlan& p = self->plan_;
  const auto image_token = model.chat->tokenizer().special("[IMG]");
  for (size_t i = 0; i < p.prompts.size(); ++i) {
    GenerationPrompt& prompt = self->plan_.prompts[i];
    NewSequence sequence;
    self->prompt_ids_.push_back(prompt.ids);
    self->prompt_logprobs_.emplace_back();
    self->usage_.prompt_tokens += static_cast<int64_t>(prompt.ids.size());
    if (image_token && !prompt.images.empty()) {
      self->usage_.image_tokens += std::count(prompt.ids.begin(), prompt.ids.end(), *image_token);
    }
    sequence.ids = std::move(prompt.ids);
    sequence.images = std::move(prompt.images);
    sequence.params = p.sampling;
    sequence.params.seed += i;  // prompts of one request draw apart
    sequence.tenant = p.tenant;
    sequence.cache_salt = p.cache_salt;
    sequence.make_mask = p.make_mask;
    sequence.prompt_only = p.prompt_only;
    auto signal = self->signal_;
    Result<TokenStream> stream = model.engine->submit(std::move(sequence), p.n, [signal] { signal->raise(); });
    if (!stream) return ApiError::from(stream.error());  // destroying the others cancels them
    for (int32_t answer = 0; answer < p.n; ++answer) {
      Choice choice;
      choice.index = static_cast<int32_t>(self->choices_.size());
      choice.sequence = stream->ids()[static_cast<size_t>(answer)];
      choice.thinking = prompt.starts_in_thinking;
      choice.prompt_tokens = self->prompt_ids_[i].size();
      if (p.is_chat) {
        choice.parser = model.chat->start(prompt.starts_in_thinking, p.sampling.seed + static_cast<uint64_t>(choice.index));
      } else {
        choice.detokenizer = std::make_unique<Detokenizer>(model.chat->tokenizer());
      }
      choice.stops = StopMatcher(p.stop, p.include_stop);
      self->choices_.push_back(std::move(choice));
    }
    self->streams_.push_back(*std::move(stream));
  }
  self->open_choices_ = self->choices_.size();
  return self;
}

bool Generation::cancel() { return signal_->raise(true); }

ApiStatus Generation::run(HttpReply& reply, const DeltaSink& on_deltas, const SilenceSink& on_silence) {
  constexpr auto kWait = std::chrono::seconds(1);
  reply.when_gone([signal = signal_] { signal->raise(); });
  auto last = EngineClock::now();
  std::vector<OutputDelta> deltas;
  while (open_choices_ > 0 && !failure_) {
    bool aborted = false;
    {
      std::unique_lock lock(signal_->mutex);
      signal_->changed.wait_for(lock, kWait, [&] { return signal_->raised; });
      signal_->raised = false;
      aborted = signal_->aborted;
    }
    if (reply.client_gone()) {
      for (Choice& choice : choices_) {
        if (!choice.ended) metrics_.sequence_ended("abort", choice.times, choice.prompt_tokens, choice.tokens);
      }
      return Done{};
    }
    deltas.clear();
    for (size_t prompt = 0; prompt < streams_.size(); ++prompt) {
      for (SequenceEvent& event : streams_[prompt].poll()) take(prompt, event, deltas);
    }
    if (aborted) {
      for (Choice& choice : choices_) {
        if (choice.ended) continue;
        model_.engine->cancel(choice.sequence);
        end_choice(choice, "abort", deltas);
      }
    }
    if (open_choices_ == 0 || failure_) signal_->end();  // before the client can read that it has ended
    const auto now = EngineClock::now();
    if (!deltas.empty()) {
      last = now;
      on_deltas(deltas);
    } else {
      on_silence(std::chrono::duration<double>(now - last).count());
    }
  }
  if (failure_) {
    for (Choice& choice : choices_) {
      if (!choice.ended) metrics_.sequence_ended("error", choice.times, choice.prompt_tokens, choice.tokens);
    }
    return *failure_;
  }
  return Done{};
}

void Generation::take(size_t prompt, SequenceEvent& event, std::vector<OutputDelta>& out) {
  Choice& choice = choices_[prompt * static_cast<size_t>(plan_.n) + static_cast<size_t>(event.index)];
  if (event.index == 0 && !event.prompt_logprobs.empty()) {
    auto& all = prompt_logprobs_[prompt];
    all.insert(all.end(), event.prompt_logprobs.begin(), event.prompt_logprobs.end());
  }
  if (choice.ended || failure_) return;
  if (event.error) {
    failure_ = ApiError::from(*event.error);
    return;
  }
  if (event.token) {
    if (choice.tokens == 0) {
      if (event.index == 0) usage_.cached_tokens += event.cached_tokens;
      metrics_.first_token(event.times);
    } else {
      metrics_.next_token(choice.times.last_token, event.times.last_token);
    }
    choice.times = event.times;
    ++choice.tokens;
    ++usage_.completion_tokens;
    const int32_t id = event.token->id;
    const auto& stops = plan_.sampling.stop_tokens;
    const bool ends = event.finish == FinishReason::stop && std::find(stops.begin(), stops.end(), id) != stops.end();
    if (ends) {
      const auto& asked = plan_.client_stop_tokens;
      if (std::find(asked.begin(), asked.end(), id) != asked.end()) choice.stop_token = id;
    }
    if (!ends || (choice.stop_token && plan_.include_stop)) add_token(choice, *std::move(event.token), out);
  }
  if (choice.ended || event.finish == FinishReason::none) return;
  if (event.finish == FinishReason::cancelled) return end_choice(choice, "abort", out);
  end_choice(choice, event.finish == FinishReason::stop ? "stop" : "length", out);
}

void Generation::add_token(Choice& choice, SampledToken token, std::vector<OutputDelta>& out) {
  const int32_t id = token.id;
  choice.pending.push_back(std::move(token));
  if (think_ && id == *think_) choice.thinking = true;
  if (choice.thinking) ++usage_.reasoning_tokens;
  if (think_end_ && id == *think_end_) choice.thinking = false;
  if (choice.parser) {
    add_events(choice, choice.parser->push(id), out);
  } else {
    add_content(choice, choice.detokenizer->push(id), out);
  }
}

void Generation::add_events(Choice& choice, std::vector<ChatEvent> events, std::vector<OutputDelta>& out) {
  for (ChatEvent& event : events) {
    if (choice.ended) return;
    if (event.kind == ChatEvent::Kind::content) {
      add_content(choice, event.text, out);
      continue;
    }
    if (event.kind == ChatEvent::Kind::finish) return;  // the end is told by end_choice
    if (plan_.one_call_only && event.call_index > 0) {
      if (!choice.ending) stop_early(choice, out);
      return;
    }
    emit_held(choice, out);
    OutputDelta delta;
    delta.call_index = event.call_index;
    delta.text = std::move(event.text);
    if (event.kind == ChatEvent::Kind::reasoning) {
      delta.kind = OutputDelta::Kind::reasoning;
    } else if (event.kind == ChatEvent::Kind::tool_call_begin) {
      delta.kind = OutputDelta::Kind::call_begin;
      delta.call_id = std::move(event.call_id);
      delta.call_name = std::move(event.call_name);
    } else {
      delta.kind = OutputDelta::Kind::call_arguments;
    }
    emit(choice, std::move(delta), out);
  }
}

void Generation::add_content(Choice& choice, std::string_view text, std::vector<OutputDelta>& out) {
  if (text.empty()) return;
  OutputDelta delta;
  if (choice.tokens < plan_.sampling.min_tokens) {
    choice.stops.flush(delta.text);
    delta.text += text;
  } else {
    choice.stops.push(text, delta.text);
  }
  if (!delta.text.empty()) emit(choice, std::move(delta), out);
  if (choice.stops.found() && !choice.ending) stop_early(choice, out);
}

// What was kept back because a stop string might have begun in it.
void Generation::emit_held(Choice& choice, std::vector<OutputDelta>& out) {
  OutputDelta content;
  choice.stops.flush(content.text);
  if (!content.text.empty()) emit(choice, std::move(content), out);
}

void Generation::emit(Choice& choice, OutputDelta delta, std::vector<OutputDelta>& out) {
  delta.choice = choice.index;
  delta.tokens = std::move(choice.pending);
  choice.pending.clear();
  out.push_back(std::move(delta));
}

void Generation::stop_early(Choice& choice, std::vector<OutputDelta>& out) {
  model_.engine->cancel(choice.sequence);
  end_choice(choice, "stop", out);
}

void Generation::end_choice(Choice& choice, const std::string& reason, std::vector<OutputDelta>& out) {
  choice.ending = true;
  const bool found_stop = choice.stops.found().has_value();
  std::string final_reason = reason;
  if (choice.parser) {
    std::vector<ChatEvent> rest = choice.parser->finish(reason == "length" ? "length" : "stop");
    if (!rest.empty() && rest.back().kind == ChatEvent::Kind::finish && reason != "abort") final_reason = rest.back().finish_reason;
    if (!found_stop && reason != "abort") add_events(choice, std::move(rest), out);
  } else if (!found_stop) {
    add_content(choice, choice.detokenizer->flush(), out);
  }
  emit_held(choice, out);
  choice.ended = true;
  --open_choices_;
  OutputDelta finish;
  finish.kind = OutputDelta::Kind::finish;
  finish.finish_reason = final_reason;
  finish.stop_string = choice.stops.found();
  finish.stop_token = choice.stop_token;
  emit(choice, std::move(finish), out);
  metrics_.sequence_ended(final_reason, choice.times, choice.prompt_tokens, choice.tokens);
}

}  // namespace bise
