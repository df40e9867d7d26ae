#include "server/http_request_reader.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace bise {
namespace {

namespace beast_http = boost::beast::http;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return out;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

}  // namespace

struct HttpRequestReader::Parser : beast_http::request_parser<beast_http::string_body> {};

HttpRequestReader::HttpRequestReader(const HttpReadLimits& limits)
    : limits_(limits), parser_(std::make_unique<Parser>()) {
  parser_->header_limit(static_cast<uint32_t>(limits.max_header_bytes));
  parser_->body_limit(limits.max_body_bytes);
}

HttpRequestReader::~HttpRequestReader() = default;

void HttpRequestReader::fail(int status, std::string message) {
  state_ = State::failed;
  keep_alive_ = false;
  fault_ = {status, std::move(message)};
}

size_t HttpRequestReader::take(std::string_view bytes) {
  size_t taken = 0;
  if (state_ == State::head && !begun_) {
    // Some clients end a body with an empty line that belongs to nothing (RFC 9112, 2.2).
    while (taken + 1 < bytes.size() && bytes[taken] == '\r' && bytes[taken + 1] == '\n') taken += 2;
    if (taken == bytes.size() || (taken + 1 == bytes.size() && bytes[taken] == '\r')) return taken;
  }
  while (state_ == State::head || state_ == State::body) {
    if (state_ == State::body && parser_->is_done()) {
      request_.body = std::move(parser_->get().body());
      state_ = State::done;
      break;
    }
    std::string_view rest = bytes.substr(taken);
    if (rest.empty()) break;
    // A chunked body ends with five bytes at least, and Beast asserts that it is shown so many of a last chunk.
    constexpr size_t kLastChunk = 5;
    if (state_ == State::body && parser_->chunked() && rest.front() == '0' && rest.size() < kLastChunk) break;
    begun_ = true;
    boost::system::error_code error;
    const size_t used = parser_->put(boost::asio::buffer(rest.data(), rest.size()), error);
    taken += used;
    if (error == beast_http::error::need_more) {
      // The parser waits for the end of a line, so a line that never ends must be stopped here.
      if (rest.size() - used > limits_.max_header_bytes) {
        fail(431, "a header or chunk line is longer than " + std::to_string(limits_.max_header_bytes) + " bytes");
      }
      break;
    }
    if (error == beast_http::error::header_limit) {
      fail(431, "the header is larger than " + std::to_string(limits_.max_header_bytes) + " bytes");
    } else if (error == beast_http::error::body_limit) {
      fail(413, "the body is larger than " + std::to_string(limits_.max_body_bytes) + " bytes");
    } else if (error == beast_http::error::bad_version) {
      fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    } else if (error) {
      fail(400, "not an HTTP request: " + error.message());
    } else if (state_ == State::head && parser_->is_header_done()) {
      read_head();
      return taken;
    }
  }
  return taken;
}

bool HttpRequestReader::check_framing(bool chunked) {
  size_t lengths = 0, encodings = 0, hosts = 0;
  for (const HttpHeader& header : request_.headers) {
    if (header.name == "content-length") {
      ++lengths;
      // A list of equal numbers is one number to some and nonsense to others.
      if (header.value.find_first_not_of("0123456789") != std::string::npos) ++lengths;
    }
    if (header.name == "host") ++hosts;
    if (header.name == "transfer-encoding") {
      ++encodings;
      if (lower(header.value) != "chunked") {
        fail(501, "Transfer-Encoding is \"" + header.value.substr(0, 40) + "\"; only chunked is understood");
        return false;
      }
    }
  }
  if (encodings > 1 || lengths > 1 || (encodings > 0 && lengths > 0)) {
    fail(400, "the length of the body is given more than once (Content-Length, Transfer-Encoding)");
    return false;
  }
  if (encodings > 0 && (is_http10_ || !chunked)) {
    fail(400, "Transfer-Encoding: chunked needs HTTP/1.1");
    return false;
  }
  if (hosts > 1 || (hosts == 0 && !is_http10_)) {
    fail(400, hosts == 0 ? "the Host header is missing" : "more than one Host header");
    return false;
  }
  return true;
}

void HttpRequestReader::read_head() {
  const auto& message = parser_->get();
  is_http10_ = message.version() < 11;
  keep_alive_ = message.keep_alive();
  request_.method = std::string(message.method_string());
  for (const auto& field : message) {
    request_.headers.push_back({lower(std::string_view(field.name_string().data(), field.name_string().size())),
                                std::string(field.value())});
  }
  if (request_.headers.size() > limits_.max_headers) {
    return fail(431, "more than " + std::to_string(limits_.max_headers) + " headers");
  }
  if (message.version() != 10 && message.version() != 11) {
    return fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  }
  if (!check_framing(parser_->chunked())) return;
  std::string target(message.target());
  if (!target.starts_with('/') || !is_printable(target)) {
    return fail(400, "the request target must be a path that begins with /");
  }
  const size_t mark = target.find('?');
  request_.path = target.substr(0, mark);
  if (mark != std::string::npos) request_.query = target.substr(mark + 1);
  if (const std::string* expect = request_.header("expect")) {
    if (lower(*expect) != "100-continue") return fail(417, "Expect: only 100-continue is understood");
    expects_continue_ = !is_http10_;
  }
  if (parser_->chunked()) body_bytes_expected_ = limits_.max_body_bytes;
  else if (auto length = parser_->content_length()) body_bytes_expected_ = *length;
  if (body_bytes_expected_ > limits_.max_body_bytes) {
    return fail(413, "the body has " + std::to_string(body_bytes_expected_) + " bytes; at most " +
                         std::to_string(limits_.max_body_bytes) + " are accepted");
  }
  state_ = State::body;
}

}  // namespace bise
