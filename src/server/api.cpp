#include "server/api.h"

#include <algorithm>
#include <charconv>

#include "chat/request.h"
#include "server/json_writer.h"
#include "server/structure_compiler.h"

namespace bise {
namespace {

constexpr const char* kModelPrefix = "/v1/models/";
constexpr const char* kRequestPrefix = "/v1/requests/";

// Adds headers to whatever is answered, and counts it.
class CountingReply final : public HttpReply {
 public:
  CountingReply(HttpReply& inner, std::vector<HttpHeader> headers, ServerMetrics& metrics)
      : inner_(inner), headers_(std::move(headers)), metrics_(metrics) {}
  void send(HttpResponse response) override {
    metrics_.http_answer(response.status);
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    inner_.send(std::move(response));
  }
  void begin(int status, std::vector<HttpHeader> headers, std::string content_type) override {
    metrics_.http_answer(status);
    headers.insert(headers.end(), headers_.begin(), headers_.end());
    inner_.begin(status, std::move(headers), std::move(content_type));
  }
  bool write(std::string_view bytes) override { return inner_.write(bytes); }
  void end() override { inner_.end(); }
  bool client_gone() const override { return inner_.client_gone(); }
  void when_gone(std::function<void()> call) override { inner_.when_gone(std::move(call)); }

 private:
  HttpReply& inner_;
  std::vector<HttpHeader> headers_;
  ServerMetrics& metrics_;
};

HttpResponse json_answer(std::string body, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body) + "\n";
  return response;
}

std::string url_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

ApiError error_of(int status, std::string type, std::string code, std::string message) {
  ApiError error;
  error.status = status;
  error.type = std::move(type);
  error.code = std::move(code);
  error.message = std::move(message);
  return error;
}

// "Bearer KEY", or Anthropic's and Azure's headers; nothing when there is none.
std::optional<std::string> sent_key(const HttpRequest& request) {
  if (const std::string* header = request.header("authorization")) {
    constexpr std::string_view kBearer = "bearer ";
    if (header->size() > kBearer.size()) {
      std::string scheme = header->substr(0, kBearer.size());
      std::transform(scheme.begin(), scheme.end(), scheme.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
      if (scheme == kBearer) return header->substr(header->find_first_not_of(' ', kBearer.size() - 1));
    }
  }
  for (const char* name : {"x-api-key", "api-key"}) {
    if (const std::string* header = request.header(name)) return *header;
  }
  return std::nullopt;
}

}  // namespace

Api::Api(const ServedModel& model, ApiOptions options, Log log)
    : model_(model), options_(std::move(options)), log_(std::move(log)), metrics_(model.names.at(0)) {}

Api::~Api() = default;

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> table = {
      {"POST", "/v1/chat/completions", &Api::chat},
      {"POST", "/v1/completions", &Api::completions},
      {"GET", "/v1/models", &Api::models},
      {"GET", "/v1/models/*", &Api::model},
      {"POST", "/v1/requests/*", &Api::cancel},
      {"POST", "/abort_request", &Api::cancel},
      {"POST", "/tokenize", &Api::tokenize},
      {"POST", "/detokenize", &Api::detokenize},
      {"GET", "/tokenizer_info", &Api::tokenizer_info},
      {"GET", "/health", &Api::health, true},
      {"GET", "/ready", &Api::ready, true},
      {"GET", "/ping", &Api::health, true},
      {"GET", "/version", &Api::version},
      {"GET", "/metrics", &Api::metrics},
  };
  return table;
}

HttpCallbacks Api::callbacks(std::function<void(const HttpAccess&)> log_access) {
  HttpCallbacks callbacks;
  callbacks.judge_head = [this](const HttpRequest& request) {
    auto answer = judge_head(request);
    if (answer) metrics_.http_answer(answer->status);
    return answer;
  };
  callbacks.handle = [this](const HttpRequest& request, HttpReply& reply) { handle(request, reply); };
  callbacks.refuse = [this](int status, const std::string& message) {
    metrics_.http_answer(status);
    ApiError error = error_of(status, status >= 500 ? "server_error" : "invalid_request_error",
                              status == 413 ? "request_too_large" : status == 408 ? "request_timeout" : "invalid_request", message);
    if (status == 503) {
      error.code = "overloaded";
      error.retry_after_s = 1;
    }
    return error_response(error);
  };
  callbacks.log_access = std::move(log_access);
  return callbacks;
}

namespace {

bool matches(const char* pattern, const std::string& path) {
  std::string_view known(pattern);
  if (!known.ends_with('*')) return path == known;
  known.remove_suffix(1);
  return path.starts_with(known) && path.size() > known.size();
}

}  // namespace

std::vector<HttpHeader> Api::origin_headers(const HttpRequest& request) const {
  const std::string* origin = request.header("origin");
  if (origin == nullptr || options_.allowed_origins.empty()) return {};
  const auto& allowed = options_.allowed_origins;
  const bool all = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (!all && std::find(allowed.begin(), allowed.end(), *origin) == allowed.end()) return {};
  return {{"Access-Control-Allow-Origin", all ? "*" : *origin},
          {"Access-Control-Expose-Headers", "x-request-id, x-bise-changed, x-bise-unused, Retry-After"},
          {"Vary", "Origin"}};
}

std::optional<HttpResponse> Api::judge_head(const HttpRequest& request) const {
  const std::string* origin = request.header("origin");
  std::vector<HttpHeader> cors = origin_headers(request);
  if (origin != nullptr && cors.empty()) {
    // A web page somewhere is behind this; without this rule any page could use a server on loopback.
    const std::string* host = request.header("host");
    const bool own = host != nullptr && (*origin == "http://" + *host || *origin == "https://" + *host);
    if (!own) {
      return error_response(error_of(403, "invalid_request_error", "origin_not_allowed",
                                     "pages of " + origin->substr(0, 100) + " may not use this server; see --allowed-origins"));
    }
  }
  if (request.method == "OPTIONS" && !cors.empty()) {
    HttpResponse response;
    response.status = 204;
    response.headers = cors;
    response.headers.push_back({"Access-Control-Allow-Methods", "GET, POST"});
    response.headers.push_back({"Access-Control-Allow-Headers", "authorization, content-type, x-api-key, x-request-id, x-stainless-*"});
    response.headers.push_back({"Access-Control-Max-Age", "600"});
    return response;
  }
  const Route* found = nullptr;
  std::string allowed;
  for (const Route& route : routes()) {
    if (!matches(route.path, request.path)) continue;
    if (request.method == route.method || (request.method == "HEAD" && std::string_view(route.method) == "GET")) found = &route;
    allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
  }
  auto refused = [&](const ApiError& error) {
    HttpResponse response = error_response(error);
    response.headers.insert(response.headers.end(), cors.begin(), cors.end());
    return response;
  };
  if ((found == nullptr || !found->open) && !options_.keys.empty()) {
    std::optional<std::string> key = sent_key(request);
    if (!key || !options_.keys.tenant_of(*key)) {
      return refused(error_of(401, "invalid_request_error", "invalid_api_key",
                              key ? "the API key is not one of this server's"
                                  : "an API key is needed: send the header Authorization: Bearer KEY"));
    }
  }
  if (found != nullptr) {
    if (request.method == "POST" && draining_) {
      ApiError error = error_of(503, "server_error", "shutting_down", "the server is shutting down");
      error.retry_after_s = 5;
      return refused(error);
    }
    return std::nullopt;
  }
  if (!allowed.empty()) {
    HttpResponse response = refused(error_of(405, "invalid_request_error", "method_not_allowed",
                                             request.method.substr(0, 20) + " is not known for " + request.path.substr(0, 100) + "; send " + allowed));
    response.headers.push_back({"Allow", allowed});
    return response;
  }
  return refused(error_of(404, "invalid_request_error", "not_found", "there is no " + request.path.substr(0, 100) + " here; see docs/API.md"));
}

void Api::handle(const HttpRequest& request, HttpReply& reply) {
  CountingReply counted(reply, origin_headers(request), metrics_);
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  for (const Route& route : routes()) {
    if (method == route.method && matches(route.path, request.path)) return (this->*route.handler)(request, counted);
  }
  counted.send(error_response(error_of(404, "invalid_request_error", "not_found", "there is nothing here")));
}

std::string Api::tenant_of(const HttpRequest& request) const {
  if (options_.keys.empty()) return "";
  std::optional<std::string> key = sent_key(request);
  return key ? options_.keys.tenant_of(*key).value_or("") : "";
}

ApiStatus Api::check_model(const std::optional<std::string>& name) const {
  if (!name || std::find(model_.names.begin(), model_.names.end(), *name) != model_.names.end()) return Done{};
  ApiError error = error_of(404, "invalid_request_error", "model_not_found",
                            "the model " + name->substr(0, 100) + " is not served here; " + model_.names[0] + " is");
  error.param = "model";
  return error;
}

namespace {

void write_model(JsonWriter& json, const ServedModel& model, const std::string& name) {
  json.begin_object()
      .field("id", name)
      .field("object", "model")
      .field("created", model.created)
      .field("owned_by", "bise")
      .field("root", model.root)
      .key("parent")
      .null()
      .field("max_model_len", model.engine->context());
  json.key("meta").begin_object().field("n_vocab", model.vocab_size).field("chat_format", model.chat->format_name())
      .field("vision", static_cast<bool>(model.process_picture)).field("structured_output", model.structures->available()).end_object();
  json.end_object();
}

}  // namespace

void Api::models(const HttpRequest&, HttpReply& reply) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const std::string& name : model_.names) write_model(json, model_, name);
  json.end_array().end_object();
  reply.send(json_answer(std::move(out)));
}

void Api::model(const HttpRequest& request, HttpReply& reply) {
  const std::string name = url_decoded(request.path.substr(std::string_view(kModelPrefix).size()));
  if (ApiStatus known = check_model(name); !known) return reply.send(error_response(known.error()));
  std::string out;
  JsonWriter json(out);
  write_model(json, model_, name);
  reply.send(json_answer(std::move(out)));
}

std::string Api::json_health(bool& well) const {
  const EngineHeartbeat beat = model_.engine->heartbeat();
  const EngineStats stats = model_.engine->stats();
  const bool stuck = beat.has_work && beat.seconds > options_.step_patience_s;
  constexpr uint64_t kFailures = 3;  // one may be of its requests, so many in a row are of the machine
  const bool failing = stats.failed_in_a_row >= kFailures;
  well = !stuck && !beat.is_stopped && !failing;
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("status", well ? "ok" : "unwell");
  if (beat.is_stopped) json.field("reason", "the engine is stopped");
  else if (stuck) json.field("reason", "there is work, and no step has ended for longer than allowed");
  else if (failing)
    json.field("reason",
               "the last " + std::to_string(stats.failed_in_a_row) + " steps failed; their requests were told why");
  json.field("draining", draining_.load())
      .field("steps", beat.steps)
      .field("seconds_since_step", beat.seconds)
      .field("allowed_seconds", options_.step_patience_s)
      .field("running", stats.running)
      .field("waiting", stats.waiting);
  json.end_object();
  return out;
}

void Api::health(const HttpRequest&, HttpReply& reply) {
  bool well = false;
  std::string body = json_health(well);
  reply.send(json_answer(std::move(body), well ? 200 : 503));
}

void Api::ready(const HttpRequest&, HttpReply& reply) {
  bool well = false;
  std::string body = json_health(well);
  reply.send(json_answer(std::move(body), well && !draining_ ? 200 : 503));
}

void Api::version(const HttpRequest&, HttpReply& reply) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("version", model_.version).end_object();
  reply.send(json_answer(std::move(out)));
}

void Api::metrics(const HttpRequest&, HttpReply& reply) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_.text(model_.engine->stats(), server_ != nullptr ? server_->stats() : HttpServerStats{});
  reply.send(std::move(response));
}

// POST /v1/requests/ID/cancel, and SGLang's /abort_request {"rid": ID}.
void Api::cancel(const HttpRequest& request, HttpReply& reply) {
  std::string id;
  if (request.path == "/abort_request") {
    auto body = parse_body(request);
    if (!body) return reply.send(error_response(body.error()));
    auto rid = string_field(*body, "rid");
    if (!rid) return reply.send(error_response(rid.error()));
    if (!*rid) return reply.send(error_response(ApiError::invalid("rid", "rid is missing: the id of the request to end")));
    id = **rid;
  } else {
    std::string rest = request.path.substr(std::string_view(kRequestPrefix).size());
    constexpr std::string_view kCancel = "/cancel";
    if (!rest.ends_with(kCancel)) {
      return reply.send(error_response(error_of(404, "invalid_request_error", "not_found", "send POST /v1/requests/ID/cancel")));
    }
    id = url_decoded(std::string_view(rest).substr(0, rest.size() - kCancel.size()));
  }
  for (const char* prefix : {"chatcmpl-", "cmpl-"}) {
    if (id.starts_with(prefix)) id = id.substr(std::string_view(prefix).size());
  }
  const std::string tenant = tenant_of(request);
  int32_t count = 0;
  {
    std::lock_guard lock(running_mutex_);
    auto [first, last] = running_.equal_range(id);
    for (; first != last; ++first) {
      if (first->second.tenant != tenant) continue;  // another key's requests are not seen
      count += first->second.generation->cancel();
    }
  }
  if (count == 0) {
    ApiError error = error_of(404, "invalid_request_error", "request_not_found", "no request with the id " + id.substr(0, 128) + " is running");
    return reply.send(error_response(error));
  }
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("id", id).field("cancelled", count).end_object();
  reply.send(json_answer(std::move(out)));
}

ApiResult<PyJson> parse_body(const HttpRequest& request) {
  PyJsonLimits limits;
  limits.max_depth = 64;
  Result<PyJson> body = parse_chat_body(request.body, limits);
  if (body) return *std::move(body);
  ApiError error = ApiError::from(body.error());
  error.code = "invalid_json";
  return error;
}

}  // namespace bise
