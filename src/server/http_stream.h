// The bytes of one connection, plain or through TLS: a small surface over Asio, so that the HTTP code
// is written and compiled once. All calls and callbacks on the thread of the network.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>

namespace bise {

class HttpStream {
 public:
  using Done = std::function<void(boost::system::error_code, size_t)>;
  virtual ~HttpStream() = default;
  virtual void handshake(Done done) = 0;  // at once for plain TCP
  virtual void read_some(char* data, size_t size, Done done) = 0;
  virtual void write_some(const char* data, size_t size, Done done) = 0;
  virtual boost::asio::ip::tcp::socket& socket() = 0;
};

// `tls` may be nullptr.
std::unique_ptr<HttpStream> make_http_stream(boost::asio::ip::tcp::socket socket,
                                             boost::asio::ssl::context* tls);

}  // namespace bise
