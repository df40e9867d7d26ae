// HttpRequestReader: the bytes of a connection to requests. Beast's parser reads the grammar; the
// rules here refuse what two readers could understand differently (request smuggling) and what is too
// large. No sockets: fed by the connection, the tests and the fuzzer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http.h"

namespace bise {

struct HttpReadLimits {
  size_t max_header_bytes = size_t{32} << 10;
  size_t max_headers = 100;
  uint64_t max_body_bytes = uint64_t{64} << 20;
};

struct HttpFault {
  int status = 400;
  std::string message;
};

class HttpRequestReader {
 public:
  explicit HttpRequestReader(const HttpReadLimits& limits);
  ~HttpRequestReader();

  enum class State { head, body, done, failed };
  // Takes from the front of `bytes` and says how many; the rest must come again with more behind it.
  // Stops once when the head is whole (state body or done, request() has all but the body) and once at
  // the end, so that the caller can judge in between. After `failed` nothing more is taken.
  size_t take(std::string_view bytes);

  State state() const { return state_; }
  const HttpFault& fault() const { return fault_; }
  bool begun() const { return begun_; }  // some byte of the request has come
  // From the head on:
  HttpRequest& request() { return request_; }
  bool keep_alive() const { return keep_alive_; }
  bool is_http10() const { return is_http10_; }
  bool expects_continue() const { return expects_continue_; }
  uint64_t body_bytes_expected() const { return body_bytes_expected_; }  // the limit, for chunks

 private:
  struct Parser;
  void fail(int status, std::string message);
  void read_head();
  bool check_framing(bool chunked);

  HttpReadLimits limits_;
  std::unique_ptr<Parser> parser_;
  State state_ = State::head;
  HttpFault fault_;
  HttpRequest request_;
  bool begun_ = false, keep_alive_ = false, is_http10_ = false, expects_continue_ = false;
  uint64_t body_bytes_expected_ = 0;
};

}  // namespace bise
