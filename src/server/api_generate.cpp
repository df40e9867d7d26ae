// /v1/chat/completions and /v1/completions: from the body to a plan, and from deltas to the answer.
#include <algorithm>
#include <chrono>

#include "chat/request.h"
#include "server/api.h"
#include "server/chat_grammar.h"
#include "server/json_writer.h"
#include "server/openai_output.h"
#include "server/structure_compiler.h"
#include "server/token_rules.h"

namespace bise {

// A request in the list of those that run, for as long as this lives.
class RunningRequest {
 public:
  RunningRequest(Api& api, const std::string& id, std::string tenant, Generation* generation) : api_(api) {
    std::lock_guard lock(api.running_mutex_);
    place_ = api.running_.insert({id, {std::move(tenant), generation}});
  }
  ~RunningRequest() {
    std::lock_guard lock(api_.running_mutex_);
    api_.running_.erase(place_);
  }
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

 private:
  Api& api_;
  std::multimap<std::string, Api::Running>::iterator place_;
};

namespace {

constexpr size_t kMaxChoices = 256;
constexpr double kBlankLineSeconds = 10, kEmptyDeltaSeconds = 300;

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  // A header holds ASCII only, and not without end.
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '?';
  }
  return out.size() > 2000 ? out.substr(0, 2000) + "..." : out;
}

std::vector<HttpHeader> note_headers(const RequestNotes& notes) {
  std::vector<HttpHeader> headers;
  if (!notes.changed.empty()) headers.push_back({"x-bise-changed", joined(notes.changed)});
  if (!notes.unused.empty()) headers.push_back({"x-bise-unused", joined(notes.unused)});
  return headers;
}

bool asks_for_reasoning(const PyJson& body, const ChatService& chat) {
  if (chat.reasoning_efforts().empty()) return false;
  auto effort = asked_effort(body);
  return effort && mapped_effort(*effort, chat.reasoning_efforts()) != "none";
}

}  // namespace

// Only the formats with marks around their reasoning can be held to a budget.
void Api::limit_thinking_of(GenerationPlan& plan, int64_t budget, RequestNotes& notes) const {
  const Tokenizer& tokenizer = model_.chat->tokenizer();
  const auto begin = tokenizer.special("[THINK]"), end = tokenizer.special("[/THINK]");
  if (!begin || !end) {
    notes.unused.push_back("thinking_token_budget");
    return;
  }
  plan.make_mask = limit_thinking(std::move(plan.make_mask), {budget, *begin, *end, plan.prompts.at(0).starts_in_thinking, &tokenizer});
}

// What chat and completions have in common.
ApiStatus Api::complete_plan(const HttpRequest& request, GenerationParameters& parameters, GenerationPlan& plan) const {
  plan.sampling = parameters.sampling;
  plan.client_stop_tokens = parameters.sampling.stop_tokens;
  auto& stops = plan.sampling.stop_tokens;
  stops.insert(stops.end(), model_.stop_tokens.begin(), model_.stop_tokens.end());
  plan.n = parameters.n;
  if (!parameters.stop.empty() || !parameters.stop_regex.empty()) {
    Result<std::shared_ptr<const StopPatterns>> stop = StopPatterns::compile(parameters.stop, parameters.stop_regex);
    if (!stop) return ApiError::invalid("stop_regex", stop.error().message());
    plan.stop = *std::move(stop);
  }
  plan.include_stop = parameters.include_stop;
  plan.tenant = tenant_of(request);
  // Prompts of one key are not to be guessed through the cache by the holder of another.
  if (options_.keys.size() > 1) plan.cache_salt = plan.tenant + "\n";
  plan.cache_salt += parameters.cache_salt;
  if (!parameters.use_prefix_cache) {
    plan.cache_salt += "\nunshared " + std::to_string(const_cast<Api*>(this)->salt_count_.fetch_add(1));
  }
  if (plan.prompts.size() * static_cast<size_t>(plan.n) > kMaxChoices) {
    return ApiError::invalid("n", "n times the number of prompts is " + std::to_string(plan.prompts.size() * static_cast<size_t>(plan.n)) +
                                      "; at most " + std::to_string(kMaxChoices) + " answers are given at once");
  }
  if (parameters.max_tokens_given && parameters.sampling.max_tokens > 0) {
    size_t longest = 0;
    for (const GenerationPrompt& prompt : plan.prompts) longest = std::max(longest, prompt.ids.size());
    const int64_t room = model_.engine->context() - static_cast<int64_t>(longest);
    if (parameters.sampling.max_tokens > room) {
      parameters.notes.changed.push_back("max_tokens=" + std::to_string(parameters.sampling.max_tokens) + "->" + std::to_string(room));
      if (plan.prompts.size() == 1) plan.sampling.max_tokens = static_cast<int32_t>(room);
    }
  }
  if (!parameters.allowed_token_ids.empty()) {
    if (plan.make_mask) return ApiError::invalid("allowed_token_ids", "allowed_token_ids cannot be combined with a structure");
    plan.make_mask = allow_only(parameters.allowed_token_ids);
  }
  std::vector<std::vector<int32_t>> bad;
  for (const std::string& word : parameters.bad_words) add_bad_word(word, model_.chat->tokenizer(), bad);
  if (!bad.empty()) plan.make_mask = forbid_sequences(std::move(plan.make_mask), std::move(bad));
  if (parameters.thinking_budget) limit_thinking_of(plan, *parameters.thinking_budget, parameters.notes);
  return Done{};
}

ApiStatus Api::run(const HttpRequest& request, HttpReply& reply, const GenerationParameters& parameters, GenerationPlan plan,
                   std::vector<std::string> echo) {
  AnswerForm form;
  form.is_chat = plan.is_chat;
  const std::string id = parameters.request_id.empty() ? request.id : parameters.request_id;
  form.id = (plan.is_chat ? "chatcmpl-" : "cmpl-") + id;
  form.model = parameters.model.value_or(model_.names[0]);
  form.created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  form.logprobs = plan.sampling.num_logprobs >= 0;
  form.top_logprobs = plan.sampling.num_logprobs + static_cast<int32_t>(plan.sampling.logprob_ids.size());
  form.echo_logprobs_top = plan.sampling.num_logprobs;
  form.prompt_logprobs = parameters.sampling.num_prompt_logprobs >= 0;
  form.tokens_as_ids = parameters.tokens_as_ids;
  form.return_token_ids = parameters.return_token_ids;
  form.include_reasoning = parameters.include_reasoning;
  form.include_usage = parameters.include_usage;
  form.continuous_usage = parameters.continuous_usage;
  form.echo = std::move(echo);
  form.echo_logprobs = parameters.echo && form.logprobs;
  form.tokenizer = &model_.chat->tokenizer();

  const int32_t n = plan.n;
  const std::string tenant = plan.tenant;
  metrics_.request(n, parameters.max_tokens_given ? std::optional(plan.sampling.max_tokens) : std::nullopt);
  if (plan.make_mask) plan.make_mask = timed(std::move(plan.make_mask), metrics_.mask_timer());
  auto generation = TRY(Generation::submit(model_, std::move(plan), metrics_));
  RunningRequest listed(*this, id, tenant, generation.get());
  std::vector<HttpHeader> headers = note_headers(parameters.notes);
  if (!parameters.stream) {
    AnswerCollector collector(form, generation->num_choices());
    TRY(generation->run(reply, [&](const std::vector<OutputDelta>& deltas) { collector.add(deltas); }, [](double) {}));
    HttpResponse response;
    response.headers = std::move(headers);
    response.body = collector.json(*generation, n);
    reply.send(std::move(response));
    return Done{};
  }
  headers.push_back({"Cache-Control", "no-cache"});
  headers.push_back({"X-Accel-Buffering", "no"});
  reply.begin(200, std::move(headers), "text/event-stream; charset=utf-8");
  StreamWriter writer(form, generation->num_choices());
  double blank_after = kBlankLineSeconds, empty_after = kEmptyDeltaSeconds;
  ApiStatus status = generation->run(
      reply,
      [&](const std::vector<OutputDelta>& deltas) {
        blank_after = kBlankLineSeconds;
        empty_after = kEmptyDeltaSeconds;
        reply.write(writer.events(deltas, *generation));
      },
      [&](double silent) {
        if (silent >= empty_after) {  // some clients' time-outs only count data
          reply.write(writer.heartbeat());
          empty_after += kEmptyDeltaSeconds;
        } else if (silent >= blank_after) {
          reply.write("\n");
          blank_after += kBlankLineSeconds;
        }
      });
  reply.write(status ? writer.end(generation->usage()) : writer.failure(status.error()));
  reply.end();
  return Done{};
}

ApiStatus Api::answer_chat(const HttpRequest& request, HttpReply& reply) {
  PyJson body = TRY(parse_body(request));
  const bool reasoning = asks_for_reasoning(body, *model_.chat);
  GenerationParameters parameters =
      TRY(read_parameters(body, Endpoint::chat, {reasoning ? model_.reasoning_defaults : model_.defaults, model_.vocab_size}));
  TRY(check_model(parameters.model));
  GenerationPlan plan;
  plan.is_chat = true;
  plan.prompts.push_back(TRY(chat_prompt(body, parameters.notes, reply)));
  ChatConstraint constraint = TRY(chat_constraint(body, parameters, *model_.chat));
  if (!constraint.lark.empty()) {
    Result<TokenMaskFactory> mask = model_.structures->compile(constraint.lark);
    if (!mask) {
      ApiError error = ApiError::from(mask.error());
      error.param = constraint.param;
      return error;
    }
    plan.make_mask = *std::move(mask);
  }
  plan.one_call_only = !parameters.parallel_tool_calls;
  TRY(complete_plan(request, parameters, plan));
  for (int32_t id : constraint.banned_tokens) plan.sampling.logit_bias[id] = -100.0f;
  for (int32_t id : constraint.stop_tokens) plan.sampling.stop_tokens.push_back(id);
  return run(request, reply, parameters, std::move(plan), {});
}

ApiStatus Api::answer_completions(const HttpRequest& request, HttpReply& reply) {
  PyJson body = TRY(parse_body(request));
  GenerationParameters parameters = TRY(read_parameters(body, Endpoint::completions, {model_.defaults, model_.vocab_size}));
  TRY(check_model(parameters.model));
  if (parameters.echo && parameters.stream && parameters.sampling.num_logprobs >= 0) {
    return ApiError::invalid("echo", "echo with logprobs is not available with stream: true");
  }
  GenerationPlan plan;
  plan.prompts = TRY(text_prompts(body, parameters));
  plan.prompt_only = parameters.max_tokens_given && parameters.sampling.max_tokens == 0;
  if (plan.prompt_only && !parameters.echo && parameters.sampling.num_prompt_logprobs < 0) {
    return ApiError::invalid("max_tokens", "max_tokens is 0 and neither echo nor prompt_logprobs is asked for: nothing would be answered");
  }
  if (parameters.structure.kind != Structure::Kind::none) {
    Result<TokenMaskFactory> mask = model_.structures->compile(TRY(structure_grammar(parameters.structure)));
    if (!mask) {
      ApiError error = ApiError::from(mask.error());
      error.param = parameters.structure.param;
      return error;
    }
    plan.make_mask = *std::move(mask);
  }
  TRY(complete_plan(request, parameters, plan));
  if (parameters.echo && parameters.sampling.num_logprobs >= 0) {
    plan.sampling.num_prompt_logprobs = std::max(plan.sampling.num_prompt_logprobs, parameters.sampling.num_logprobs);
  }
  std::vector<std::string> echo;
  if (parameters.echo) {
    for (const GenerationPrompt& prompt : plan.prompts) {
      std::string text = model_.chat->tokenizer().decode(prompt.ids, false);
      for (int32_t i = 0; i < plan.n; ++i) echo.push_back(text);
    }
  }
  return run(request, reply, parameters, std::move(plan), std::move(echo));
}

void Api::chat(const HttpRequest& request, HttpReply& reply) {
  if (ApiStatus status = answer_chat(request, reply); !status) reply.send(error_response(status.error()));
}

void Api::completions(const HttpRequest& request, HttpReply& reply) {
  if (ApiStatus status = answer_completions(request, reply); !status) reply.send(error_response(status.error()));
}

}  // namespace bise
