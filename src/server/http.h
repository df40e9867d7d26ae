// HTTP as the routes see it: a request that was read whole and judged well formed, and the reply to
// it. Nothing here knows sockets.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

struct HttpHeader {
  std::string name;  // lower case in requests
  std::string value;
};

struct HttpRequest {
  std::string method;  // "GET", "POST", …
  std::string path;    // as sent, without the query
  std::string query;   // behind the '?'
  std::vector<HttpHeader> headers;
  std::string body;
  std::string peer;  // address of the client
  std::string id;    // the client's x-request-id when it is fit to be written, else one of ours

  // The first header of this (lower-case) name, or nullptr.
  const std::string* header(std::string_view name) const {
    for (const HttpHeader& header : headers) {
      if (header.name == name) return &header.value;
    }
    return nullptr;
  }
};

struct HttpResponse {
  int status = 200;
  std::vector<HttpHeader> headers;
  std::string body;
  std::string content_type = "application/json";
};

const char* http_status_text(int status);

// The reply to one request: either send() once, or begin(), any number of write(), end(). Called from
// the thread that handles the request.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void send(HttpResponse response) = 0;
  // Sends the head at once; the body follows in chunks of HTTP/1.1.
  virtual void begin(int status, std::vector<HttpHeader> headers, std::string content_type) = 0;
  // One chunk, in one piece. Waits while the client has not read what was written before. False: the
  // client is gone and nothing more can reach it.
  virtual bool write(std::string_view bytes) = 0;
  virtual void end() = 0;
  // The client closed the connection, stopped reading for too long, or the server is being stopped.
  virtual bool client_gone() const = 0;
  // Called once, from the thread of the network, when the client goes before the reply is finished; at
  // once when it is gone already. Must be quick.
  virtual void when_gone(std::function<void()> call) = 0;
};

}  // namespace bise
