// server/http_request_reader: the bytes of a connection give the same requests however they are cut,
// and a request that is read is one that every other reader would read so.
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "server/http_request_reader.h"

namespace bise {
namespace {

HttpReadLimits limits() {
  HttpReadLimits limits;
  limits.max_header_bytes = 1024;
  limits.max_headers = 16;
  limits.max_body_bytes = 512;
  return limits;
}

struct Read {
  HttpRequestReader::State state = HttpRequestReader::State::head;
  HttpRequest request;
  size_t taken = 0;
};

// One request from the front of `text`, which arrives `step` bytes at a time.
Read read(std::string_view text, size_t step) {
  HttpRequestReader reader(limits());
  Read out;
  std::string waiting;
  for (size_t at = 0; at < text.size(); at += step) {
    waiting += text.substr(at, step);
    for (;;) {
      const auto before = reader.state();
      const size_t used = reader.take(waiting);
      CHECK(used <= waiting.size());
      waiting.erase(0, used);
      out.taken += used;
      const auto state = reader.state();
      if (state == HttpRequestReader::State::done || state == HttpRequestReader::State::failed) {
        out.state = state;
        out.request = reader.request();
        if (state == HttpRequestReader::State::failed) {
          CHECK(reader.fault().status >= 400 && !reader.fault().message.empty() && !reader.keep_alive());
        }
        return out;
      }
      if (used == 0 && state == before) break;
    }
    CHECK(waiting.size() <= 64 * 1024 + step);
  }
  out.state = reader.state();
  return out;
}

void check_request(const HttpRequest& request) {
  CHECK(request.path.starts_with('/') && !request.method.empty());
  CHECK(request.body.size() <= limits().max_body_bytes && request.headers.size() <= limits().max_headers);
  size_t lengths = 0;
  for (const HttpHeader& header : request.headers) {
    CHECK(header.name.find_first_of("\r\n :") == std::string::npos && header.value.find_first_of("\r\n") == std::string::npos);
    lengths += header.name == "content-length" || header.name == "transfer-encoding";
  }
  CHECK(lengths <= 1);
  if (lengths == 0) CHECK(request.body.empty());
}

}  // namespace
}  // namespace bise

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using State = bise::HttpRequestReader::State;
  if (size < 1) return 0;
  const size_t step = 1 + data[0] % 64;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  for (int requests = 0; requests < 8 && !text.empty(); ++requests) {
    const bise::Read whole = bise::read(text, text.size());
    const bise::Read cut = bise::read(text, step);
    if (whole.state == State::done || cut.state == State::done) {
      CHECK(whole.state == cut.state && whole.taken == cut.taken);
      CHECK(whole.request.method == cut.request.method && whole.request.path == cut.request.path);
      CHECK(whole.request.body == cut.request.body && whole.request.headers.size() == cut.request.headers.size());
      bise::check_request(whole.request);
    }
    if (whole.state != State::done) break;
    text.remove_prefix(whole.taken);
  }
  return 0;
}
