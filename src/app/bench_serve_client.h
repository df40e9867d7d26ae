// The load of `bise bench serve`: streamed requests to an OpenAI-compatible server, sent when they are
// due, with the time of every chunk. One thread; libcurl moves the bytes.
#pragma once

#include <string>
#include <vector>

#include "app/bench_serve_report.h"
#include "base/error.h"

namespace bise {

struct ServeRequest {
  double due = 0;    // s after the begin
  std::string body;  // JSON, with stream: true
  int64_t prompt_tokens = 0;  // what was meant; the server's usage wins
};

struct ServeClientOptions {
  std::string url;                   // of the endpoint
  std::vector<std::string> headers;  // "Name: value"
  int max_concurrency = 0;           // 0: no limit
  bool insecure = false;             // accept any certificate
  double timeout_s = 6 * 3600;       // of one request
};

struct ServeRun {
  std::vector<ServeSample> samples;  // in the order of the requests
  double duration = 0;               // s, from the first request due to the last answer
};

// Error: libcurl itself cannot work. What a server does wrong stands in the samples. Stops early, with
// what is under way as failed, when the user interrupts.
Result<ServeRun> run_serve_load(const std::vector<ServeRequest>& requests, const ServeClientOptions& options);

// The body of a GET. Error: no answer, or a status other than 200.
Result<std::string> http_get(const std::string& url, const ServeClientOptions& options);

}  // namespace bise
