#include "server/http_stream.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>

namespace bise {
namespace {

using Tcp = boost::asio::ip::tcp;

class PlainStream final : public HttpStream {
 public:
  explicit PlainStream(Tcp::socket socket) : socket_(std::move(socket)) {}
  void handshake(Done done) override {
    boost::asio::post(socket_.get_executor(), [done = std::move(done)] { done({}, 0); });
  }
  void read_some(char* data, size_t size, Done done) override {
    socket_.async_read_some(boost::asio::buffer(data, size), std::move(done));
  }
  void write_some(const char* data, size_t size, Done done) override {
    socket_.async_write_some(boost::asio::buffer(data, size), std::move(done));
  }
  Tcp::socket& socket() override { return socket_; }

 private:
  Tcp::socket socket_;
};

class TlsStream final : public HttpStream {
 public:
  TlsStream(Tcp::socket socket, boost::asio::ssl::context& tls) : stream_(std::move(socket), tls) {}
  void handshake(Done done) override {
    stream_.async_handshake(boost::asio::ssl::stream_base::server,
                            [done = std::move(done)](boost::system::error_code error) { done(error, 0); });
  }
  void read_some(char* data, size_t size, Done done) override {
    stream_.async_read_some(boost::asio::buffer(data, size), std::move(done));
  }
  void write_some(const char* data, size_t size, Done done) override {
    stream_.async_write_some(boost::asio::buffer(data, size), std::move(done));
  }
  Tcp::socket& socket() override { return stream_.next_layer(); }

 private:
  boost::asio::ssl::stream<Tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<HttpStream> make_http_stream(Tcp::socket socket, boost::asio::ssl::context* tls) {
  if (tls == nullptr) return std::make_unique<PlainStream>(std::move(socket));
  return std::make_unique<TlsStream>(std::move(socket), *tls);
}

}  // namespace bise
