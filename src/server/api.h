// Api: the routes of the server, over one served model. Each endpoint is a function from a request to
// a reply; docs/API.md is their description.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "server/api_error.h"
#include "server/api_keys.h"
#include "server/generation.h"
#include "server/http_server.h"
#include "server/image_fetcher.h"
#include "server/metrics.h"
#include "server/parameters.h"
#include "server/served_model.h"

namespace bise {

struct ApiOptions {
  ApiKeys keys;
  std::vector<std::string> allowed_origins;  // "*": all
  int32_t max_images = 64;                   // of one request
  double step_patience_s = 60;               // a step that takes longer: /health says 503
  // Of pictures by http and https; nullptr: they are refused.
  std::shared_ptr<const ImageFetcher> image_fetcher;
};

class Api {
 public:
  Api(const ServedModel& model, ApiOptions options, Log log);
  ~Api();

  // For HttpServer::create; the Api must outlive the server. `server` is asked for numbers only, and is set before it starts.
  HttpCallbacks callbacks(std::function<void(const HttpAccess&)> log_access);
  void set_server(const HttpServer* server) { server_ = server; }
  void set_draining() { draining_ = true; }

 private:
  using Handler = void (Api::*)(const HttpRequest&, HttpReply&);
  struct Route {
    const char* method;
    const char* path;
    Handler handler;
    bool open = false;  // without a key
  };
  static const std::vector<Route>& routes();
  std::optional<HttpResponse> judge_head(const HttpRequest& request) const;
  std::vector<HttpHeader> origin_headers(const HttpRequest& request) const;
  void handle(const HttpRequest& request, HttpReply& reply);
  std::string tenant_of(const HttpRequest& request) const;
  ApiStatus check_model(const std::optional<std::string>& name) const;

  // api.cpp
  void models(const HttpRequest&, HttpReply&);
  void model(const HttpRequest&, HttpReply&);
  void health(const HttpRequest&, HttpReply&);
  void ready(const HttpRequest&, HttpReply&);
  void version(const HttpRequest&, HttpReply&);
  void metrics(const HttpRequest&, HttpReply&);
  void cancel(const HttpRequest&, HttpReply&);
  // api_tokens.cpp
  void tokenize(const HttpRequest&, HttpReply&);
  void detokenize(const HttpRequest&, HttpReply&);
  void tokenizer_info(const HttpRequest&, HttpReply&);
  // api_prompts.cpp
  ApiResult<Prompt> encode(const PyJson& body, HttpReply& reply, std::optional<ImageFetcher::Fetched>& fetched) const;
  ApiResult<GenerationPrompt> chat_prompt(const PyJson& body, RequestNotes& notes, HttpReply& reply) const;
  ApiResult<std::vector<GenerationPrompt>> text_prompts(const PyJson& body, const GenerationParameters& parameters) const;
  // api_generate.cpp
  void chat(const HttpRequest&, HttpReply&);
  void completions(const HttpRequest&, HttpReply&);
  ApiStatus answer_chat(const HttpRequest&, HttpReply&);
  ApiStatus answer_completions(const HttpRequest&, HttpReply&);
  void limit_thinking_of(GenerationPlan& plan, int64_t budget, RequestNotes& notes) const;
  ApiStatus complete_plan(const HttpRequest&, GenerationParameters& parameters, GenerationPlan& plan) const;
  ApiStatus run(const HttpRequest&, HttpReply&, const GenerationParameters& parameters, GenerationPlan plan,
                std::vector<std::string> echo);
  std::string json_health(bool& well) const;

  // Running requests by name, for cancel.
  struct Running {
    std::string tenant;
    Generation* generation;
  };
  friend class RunningRequest;

  const ServedModel& model_;
  ApiOptions options_;
  Log log_;
  ServerMetrics metrics_;
  const HttpServer* server_ = nullptr;
  std::atomic<bool> draining_{false};
  std::atomic<uint64_t> salt_count_{0};
  std::mutex running_mutex_;
  std::multimap<std::string, Running> running_;
};

// The body of a request as an object, bounded in depth.
ApiResult<PyJson> parse_body(const HttpRequest& request);

}  // namespace bise
