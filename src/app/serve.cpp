// `bise serve`: an OpenAI-compatible HTTP server over one model.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <thread>

#include "app/commands.h"
#include "app/machine.h"
#include "app/options.h"
#include "app/session.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "app/version.h"
#include "base/file.h"
#include "base/json.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/json_writer.h"
#include "server/structure_compiler.h"

namespace bise {
namespace {

struct ServeOptions {
  std::string model;
  CommonOptions common;
  HttpServerOptions http;
  ImageFetchOptions images;
  std::string api_key_file, media_folder;
  std::vector<std::string> api_keys, served_names, allowed_origins;
  bool insecure = false, no_prefix_cache = false, no_access_log = false;
  int32_t max_num_seqs = 32, max_num_batched_tokens = 512, max_waiting = 1024;
  int64_t kv_tokens = 0;
  double max_step_stretch = 1.75, max_step_ms = 0;
  int32_t max_images = 64, shutdown_timeout_s = 30, step_patience_s = 60;
  uint64_t max_body = uint64_t{64} << 20;
};

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

Result<ApiKeys> read_keys(const ServeOptions& options) {
  ApiKeys keys;
  if (!options.api_key_file.empty()) {
    const std::string text = TRY(read_file(options.api_key_file, uint64_t{1} << 20));
    keys = TRY(ApiKeys::parse(text).with_context(options.api_key_file));
  }
  for (const std::string& key : options.api_keys) TRY(keys.add(key, "").with_context("--api-key"));
  if (keys.empty() && !is_loopback(options.http.host) && !options.insecure) {
    return Error(ErrorCode::invalid_argument,
                 "--host " + options.http.host + " can be reached by others: give --api-key-file FILE with keys of your "
                 "choice, or say --insecure to serve everybody");
  }
  return keys;
}

// vLLM takes a JSON list, and a list is what is meant.
Result<std::vector<std::string>> origins(const std::vector<std::string>& given) {
  std::vector<std::string> out;
  for (const std::string& item : given) {
    if (!item.starts_with('[')) {
      out.push_back(item);
      continue;
    }
    Json list = TRY(parse_json(item).with_context("--allowed-origins"));
    for (const Json& origin : list) {
      if (!origin.is_string()) return Error(ErrorCode::invalid_argument, "--allowed-origins must be a JSON list of strings");
      out.push_back(origin.get<std::string>());
    }
  }
  return out;
}

// Where the user does not say: room for four whole contexts, but no more than a part of what is free.
int64_t kv_tokens(const ServeOptions& options, const EngineOptions& engine, const Model& model) {
  if (options.kv_tokens > 0) return options.kv_tokens;
  constexpr int64_t kContexts = 4;
  constexpr double kShare = 0.4;
  const int64_t context = engine.context;
  const int64_t wanted = context * std::min<int64_t>(kContexts, options.max_num_seqs);
  const int32_t num_layers = model.config().num_layers;
  const uint64_t layer_token =
      KvCache::bytes_per_token(model.config(), engine.kv_dtype) / static_cast<uint64_t>(num_layers);
  auto tokens_in = [&](double bytes, int32_t layers) {
    return layers == 0 ? wanted
                       : static_cast<int64_t>(bytes / static_cast<double>(layer_token * static_cast<uint64_t>(layers)));
  };
  const std::optional<DevicePlan>& device = model.memory_plan().device;
  const int32_t host_layers = device ? device->host_layers : num_layers;
  int64_t fits = tokens_in(static_cast<double>(available_memory()) * kShare, host_layers);
  if (device) {  // nobody else wants the rest of it
    const double left =
        static_cast<double>(device->ceiling) - static_cast<double>(device->weight_bytes + device->work_bytes);
    fits = std::min(fits, tokens_in(left, num_layers - host_layers));
  }
  return std::clamp(fits, context, std::max(context, wanted));
}

std::string served_name(const ServeOptions& options) {
  std::string path = options.model;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
}

std::string timestamp() {
  std::timespec now{};
  std::timespec_get(&now, TIME_UTC);
  std::tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char text[96];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>(now.tv_nsec / 1000000));
  return text;
}

// One JSON object per line on stderr, written in one piece. Bodies are never logged.
void write_access(const HttpAccess& access) {
  std::string line;
  JsonWriter json(line);
  json.begin_object()
      .field("time", timestamp())
      .field("request_id", access.id)
      .field("peer", access.peer)
      .field("method", access.method.substr(0, 20))
      .field("path", access.path.substr(0, 200))
      .field("status", access.status)
      .field("seconds", access.seconds)
      .field("bytes_in", access.bytes_in)
      .field("bytes_out", access.bytes_out);
  if (access.client_left) json.field("client_left", true);
  json.end_object();
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

Result<ServedModel> served_model(const ServeOptions& options, Session& session, EngineThread& engine,
                                 const StructureCompiler& structures) {
  ServedModel model;
  model.chat = session.chat.service.get();
  model.engine = &engine;
  model.structures = &structures;
  model.names = options.served_names;
  if (model.names.empty()) model.names.push_back(served_name(options));
  model.root = options.model;
  model.created = std::time(nullptr);
  model.vocab_size = session.model->config().vocab_size;
  model.stop_tokens = session.stop_tokens;
  SamplingOptions unsaid;
  unsaid.seed = 0;
  model.defaults = TRY(sampling_params(unsaid, session.generation_config, false));
  model.reasoning_defaults = TRY(sampling_params(unsaid, session.generation_config, true));
  model.chat_options.image_processing = session.processing;
  model.chat_options.allow_files = !options.media_folder.empty();
  model.chat_options.file_root = options.media_folder;
  if (session.model->config().vision) {
    model.process_picture = [&session](Bytes bytes) { return process_picture(session, bytes); };
  }
  model.version = build_info().version;
  return model;
}

void say_start(const ServeOptions& options, const Session& session, const ServedModel& model, const ApiKeys& keys,
               const EngineOptions& engine, uint64_t kv_bytes, uint16_t port) {
  const char* scheme = options.http.tls_certificate.empty() ? "http" : "https";
  const bool v6 = options.http.host.find(':') != std::string::npos;
  const std::string host = v6 ? "[" + options.http.host + "]" : options.http.host;
  std::string who = keys.empty() ? "no key needed" : std::to_string(keys.size()) + (keys.size() == 1 ? " key" : " keys");
  // In one call, which is one write: who waits for the address has all five lines.
  std::fprintf(stderr,
               "bise %s serves %s (%s; chat format %s%s)\n"
               "at %s://%s:%u/v1 (%s)\n"
               "weights: %s held after %s s of loading; %s\n"
               "KV cache: %s for %lld tokens; context %lld, up to %d answers at once, %d waiting, prefix cache %s\n"
               "structured output: %s; a step beside running answers takes at most %s times theirs\n",
               model.version.c_str(), model.names[0].c_str(), session.path.c_str(), model.chat->format_name().c_str(),
               model.process_picture ? ", pictures" : "", scheme, host.c_str(), static_cast<unsigned>(port), who.c_str(),
               format_bytes(held_memory()).c_str(), format_fixed(session.load_seconds, 1).c_str(),
               session.backend->description().c_str(), format_bytes(kv_bytes).c_str(), static_cast<long long>(engine.kv_tokens),
               static_cast<long long>(engine.context), engine.max_sequences, engine.max_waiting,
               engine.prefix_cache ? "on" : "off", model.structures->available() ? "yes" : "not in this build (needs cargo)",
               engine.max_step_stretch > 0 ? format_fixed(engine.max_step_stretch, 2).c_str() : "any");
}

Result<int> serve(ServeOptions& options) {
  const ApiKeys keys = TRY(read_keys(options));
  if (options.http.tls_certificate.empty() != options.http.tls_key.empty()) {
    return Error(ErrorCode::invalid_argument, "--ssl-certfile and --ssl-keyfile belong together");
  }
  Log log = make_log(options.common.log_level);
  std::unique_ptr<Session> session = TRY(open_session(options.model, {options.common, true, /*makes_engine=*/false}, log));
  EngineOptions wanted = engine_options(*session, options.common);
  wanted.kv_tokens = kv_tokens(options, wanted, *session->model);
  wanted.max_sequences = options.max_num_seqs;
  wanted.max_step_tokens = options.max_num_batched_tokens;
  wanted.max_waiting = options.max_waiting;
  wanted.prefix_cache = !options.no_prefix_cache;
  wanted.max_step_stretch = options.max_step_stretch;
  wanted.max_step_ms = options.max_step_ms;
  wanted.deterministic = options.common.deterministic;
  std::unique_ptr<Engine> engine = TRY(Engine::create(*session->model, wanted));
  const uint64_t kv_bytes = engine->kv_bytes();
  EngineThread thread(std::move(engine));
  std::unique_ptr<StructureCompiler> structures =
      TRY(create_structure_compiler(session->chat.service->tokenizer(), session->stop_tokens));
  const ServedModel model = TRY(served_model(options, *session, thread, *structures));

  ApiOptions api_options;
  api_options.keys = keys;
  api_options.allowed_origins = TRY(origins(options.allowed_origins));
  api_options.max_images = options.max_images;
  api_options.step_patience_s = options.step_patience_s;
  if (!options.images.domains.empty()) api_options.image_fetcher = TRY(ImageFetcher::create(options.images));
  Api api(model, std::move(api_options), log);
  options.http.max_body_bytes = options.max_body;
  std::unique_ptr<HttpServer> server = TRY(HttpServer::create(
      options.http, api.callbacks(options.no_access_log ? std::function<void(const HttpAccess&)>() : write_access), log));
  api.set_server(server.get());
  server->start();
  handle_termination();
  say_start(options, *session, model, keys, wanted, kv_bytes, server->port());

  while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  clear_interrupt();
  std::fprintf(stderr, "stopping: answers under way have %d s to end\n", options.shutdown_timeout_s);
  api.set_draining();
  const bool clean = server->drain(std::chrono::seconds(options.shutdown_timeout_s));
  if (!clean) std::fprintf(stderr, "stopping: %d answers are cut off\n", server->stats().active_requests);
  thread.stop();
  server.reset();
  return kExitDone;
}

void add_network_options(CLI::App& command, ServeOptions& options) {
  HttpServerOptions& http = options.http;
  command.add_option("--host", http.host, "address to listen on; others than loopback need keys")->capture_default_str();
  command.add_option("--port", http.port, "port to listen on; 0: any free one, which is said")->capture_default_str();
  command.add_option("--api-key-file", options.api_key_file, "keys that may ask: one per line, a name behind it if you like; keys share the machine equally");
  command.add_option("--api-key", options.api_keys, "a key (others on this machine can see it in the list of processes)")->allow_extra_args(false);
  command.add_flag("--insecure", options.insecure, "serve everybody who can reach --host, without a key");
  command.add_option("--ssl-certfile", http.tls_certificate, "TLS: the certificate chain (PEM)");
  command.add_option("--ssl-keyfile", http.tls_key, "TLS: the private key (PEM)");
  command.add_option("--allowed-origins", options.allowed_origins, "web pages that may use the server: origins, a JSON list of them, or * (default: none)")->allow_extra_args(false);
  command.add_option("--max-body", options.max_body, "largest request body, such as 64MiB")->transform(CLI::AsSizeValue(true))->capture_default_str();
  command.add_option("--max-connections", http.max_connections, "connections open at the same time")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command.add_option("--max-workers", http.max_workers, "requests answered at the same time; one thread each")->check(CLI::Range(1, 1 << 16))->capture_default_str();
  command.add_option_function<double>("--idle-timeout", [&http](double s) { http.idle_timeout = std::chrono::milliseconds(static_cast<int64_t>(s * 1000)); },
                                      "seconds a connection may stay open between requests (default: 120)")->check(CLI::Range(0.05, 1e6));
  command.add_option_function<double>("--header-timeout", [&http](double s) { http.header_timeout = std::chrono::milliseconds(static_cast<int64_t>(s * 1000)); },
                                      "seconds in which the header of a request must arrive (default: 30)")->check(CLI::Range(0.05, 1e6));
  command.add_option_function<double>("--body-timeout", [&http](double s) { http.body_timeout = std::chrono::milliseconds(static_cast<int64_t>(s * 1000)); },
                                      "seconds in which a body must arrive, and one more per 64 KiB (default: 60)")->check(CLI::Range(0.05, 1e6));
  command.add_option_function<double>("--write-timeout", [&http](double s) { http.write_timeout = std::chrono::milliseconds(static_cast<int64_t>(s * 1000)); },
                                      "seconds a client may leave an answer unread (default: 60)")->check(CLI::Range(0.05, 1e6));
  command.add_flag("--no-access-log,--disable-uvicorn-access-log", options.no_access_log, "no JSON line on stderr for each request");
  command.add_option("--shutdown-timeout", options.shutdown_timeout_s, "seconds that answers under way have after SIGTERM or Ctrl-C")->check(CLI::Range(0, 86400))->capture_default_str();
}

void add_engine_options(CLI::App& command, ServeOptions& options) {
  command.add_option("--served-model-name", options.served_names, "names that requests may give (default: the last part of MODEL)");
  command.add_option("--max-model-len", options.common.context, "the same as --context")->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command.add_option("--max-num-seqs", options.max_num_seqs, "answers computed at the same time")->check(CLI::Range(1, 4096))->capture_default_str();
  command.add_option("--max-num-batched-tokens", options.max_num_batched_tokens, "tokens of one step")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command.add_option("--max-waiting", options.max_waiting, "answers that wait; more are refused with 429")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command.add_option("--kv-cache-tokens", options.kv_tokens, "tokens the KV cache holds for all answers together; 0: four contexts, or what 40 % of the free memory holds")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))->capture_default_str();
  command.add_flag("!--enable-prefix-caching,--no-enable-prefix-caching", options.no_prefix_cache, "do not keep the KV of earlier prompts for those that begin alike");
  command.add_option("--max-step-stretch", options.max_step_stretch, "while answers run, prompts are read in pieces so small that a step takes at most so many times what the answers alone take; 0: any")
      ->check(CLI::Range(0.0, 1000.0))->capture_default_str();
  command.add_option("--max-step-ms", options.max_step_ms, "the same bound in milliseconds; 0: none")->check(CLI::Range(0.0, 1e6))->capture_default_str();
  command.add_option("--allowed-local-media-path", options.media_folder, "folder whose pictures requests may name by file:// (default: none)")->check(CLI::ExistingDirectory);
  command.add_option("--allowed-media-domains", options.images.domains, "hosts whose pictures are fetched when a request names them by http or https: host, host:port, *.host, or * for all (default: none)");
  command.add_option("--allowed-media-networks", options.images.networks, "addresses these hosts may have beside public ones, such as 10.0.0.0/8 (default: none)");
  command.add_option("--media-ca-file", options.images.ca_file, "certificates (PEM) that https hosts of pictures are held to, in place of the system's")->check(CLI::ExistingFile);
  command.add_option("--image-fetch-timeout", options.images.timeout_s, "seconds in which the pictures of a request must arrive")->check(CLI::Range(0.05, 3600.0))->capture_default_str();
  command.add_option("--max-images", options.max_images, "pictures of one request")->check(CLI::Range(0, 4096))->capture_default_str();
  command.add_option("--step-patience", options.step_patience_s, "seconds a step may take before /health says 503")->check(CLI::Range(1, 86400))->capture_default_str();
}

}  // namespace

void add_serve_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "an HTTP server that OpenAI's clients understand");
  command->add_option("MODEL", options->model, "the model")->required();
  add_network_options(*command, *options);
  add_engine_options(*command, *options);
  add_common_options(*command, options->common);
  command->footer(
      "Endpoints, parameters and examples: docs/API.md. Options of `vllm serve` are accepted where they mean the same.\n"
      "SIGTERM or Ctrl-C: no new requests, answers under way end, then the program does; once more: at once.");
  command->callback([options, &action] { action = [options] { return serve(*options); }; });
}

}  // namespace bise
