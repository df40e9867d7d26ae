// HttpServer: HTTP/1.1 with keep-alive over TCP or TLS. One thread moves all bytes; complete requests are
// handed to worker threads, one each, so a handler may wait for its tokens. Everything a stranger can
// make large or slow has a limit. Requests whose framing is ambiguous are refused and the connection is
// closed, so that nothing can be smuggled past a proxy in front of it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "server/http.h"

namespace bise {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: any free one
  std::string tls_certificate, tls_key;  // PEM files; empty: no TLS

  size_t max_header_bytes = size_t{32} << 10;
  size_t max_headers = 100;
  uint64_t max_body_bytes = uint64_t{64} << 20;
  uint64_t max_total_body_bytes = uint64_t{1} << 30;  // of all bodies being read or handled
  int32_t max_connections = 4096;
  int32_t max_workers = 512;  // requests handled at the same time; more are answered 503
  size_t max_unread_bytes = size_t{1} << 20;  // written to a client and not yet taken; then write() waits

  std::chrono::milliseconds header_timeout{30'000};  // first byte of a request to the end of its header
  std::chrono::milliseconds body_timeout{60'000};    // and 1 s more per `slowest_body_rate` bytes
  uint64_t slowest_body_rate = uint64_t{64} << 10;
  std::chrono::milliseconds idle_timeout{120'000};   // between requests
  std::chrono::milliseconds write_timeout{60'000};   // without one byte taken by the client
};

struct HttpServerStats {
  int32_t connections = 0, active_requests = 0;
};

// One finished (or broken) exchange, for the access log.
struct HttpAccess {
  std::string peer, method, path, id;
  int status = 0;
  uint64_t bytes_in = 0, bytes_out = 0;
  double seconds = 0;
  bool client_left = false;  // before the answer was whole
};

struct HttpCallbacks {
  // The head alone (body empty), before a byte of the body is accepted; an answer refuses the request.
  // Runs on the thread of the network and must not wait.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> judge_head;
  // The whole request. GET and HEAD run on the thread of the network and must not wait, so that health
  // and metrics answer when all workers are busy; others run on a worker.
  std::function<void(const HttpRequest&, HttpReply&)> handle;
  // The body of an answer that the server itself makes (bad framing, too large, too slow …).
  std::function<HttpResponse(int status, const std::string& message)> refuse;
  std::function<void(const HttpAccess&)> log_access;  // from any thread; may be empty
};

class HttpServer {
 public:
  // Listens when this returns; clients wait until start(). Error: the address cannot be had, a certificate cannot be read.
  static Result<std::unique_ptr<HttpServer>> create(const HttpServerOptions& options,
                                                    HttpCallbacks callbacks, const Log& log);
  void start();
  // Everything still running is cut off; handlers see client_gone() and are waited for.
  ~HttpServer();

  uint16_t port() const;
  HttpServerStats stats() const;
  // Stops listening and closes idle connections; answers under way go on. True when all were finished
  // within `patience`.
  bool drain(std::chrono::milliseconds patience);

 private:
  struct State;
  explicit HttpServer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace bise
