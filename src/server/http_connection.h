// HttpConnection: one client of the server, request after request. Its state belongs to the thread of
// the network; the handler's thread reaches it only through the reply, by the few members behind the
// mutex.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "server/http_request_reader.h"
#include "server/http_server.h"
#include "server/http_stream.h"
#include "server/worker_pool.h"

namespace bise {

class HttpConnection;

// What all connections of a server share.
struct HttpCore {
  HttpServerOptions options;
  HttpCallbacks callbacks;
  Log log;
  boost::asio::io_context io{1};
  std::optional<boost::asio::ssl::context> tls;
  std::set<std::shared_ptr<HttpConnection>> connections;  // thread of the network
  uint64_t body_bytes = 0;                                // promised to bodies; thread of the network
  std::atomic<int32_t> num_connections{0}, active_requests{0};
  std::atomic<bool> draining{false};
  std::unique_ptr<WorkerPool> workers;  // last: its threads use all of the above
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Clock = std::chrono::steady_clock;
  HttpConnection(HttpCore& core, boost::asio::ip::tcp::socket socket);
  ~HttpConnection();

  // Thread of the network:
  void start();
  void check_deadline(Clock::time_point now);
  void close();  // at once; handlers see it as a client that is gone
  bool idle() const { return phase_ == Phase::idle; }

  // Thread of the handler (or of the network, for GET):
  void enqueue(std::string bytes, bool may_wait);
  void set_status(int status);
  void finish_reply();  // nothing more will be enqueued
  void when_gone(std::function<void()> call);
  bool gone() const { return gone_.load(std::memory_order_relaxed); }

 private:
  enum class Phase { handshake, idle, head, body, handling, lingering, closed };
  friend class ConnectionReply;

  void begin_request();
  void read();
  void on_read(boost::system::error_code error, size_t size);
  void process();
  void judge();
  void begin_answer();
  void handle();
  void run_handler();
  void refuse(int status, const std::string& message);
  void send_now(HttpResponse response);
  void flush();
  void on_written(boost::system::error_code error, size_t size);
  void finish_exchange();
  void linger();
  void log_access(bool client_left);
  void release_body();
  void set_gone();

  HttpCore& core_;
  std::unique_ptr<HttpStream> stream_;
  std::string peer_;
  Phase phase_ = Phase::handshake;
  std::string in_;        // read and not yet taken
  std::string read_buffer_;
  bool reading_ = false, writing_ = false, client_closed_ = false;
  std::optional<HttpRequestReader> reader_;
  std::optional<Clock::time_point> read_deadline_, write_deadline_;
  uint64_t promised_body_ = 0;
  bool exchange_counted_ = false, keep_alive_ = false;
  Clock::time_point request_start_;
  uint64_t bytes_in_ = 0, lingered_ = 0;
  std::string writing_bytes_;
  size_t written_ = 0;

  std::atomic<bool> gone_{false};
  std::mutex mutex_;
  std::condition_variable drained_;
  std::string out_;        // enqueued and not yet being written
  size_t unread_ = 0;      // bytes enqueued that the client has not taken
  uint64_t bytes_out_ = 0;
  int status_ = 0;
  std::function<void()> when_gone_;
  bool reply_finished_ = false, flush_posted_ = false;
};

}  // namespace bise
