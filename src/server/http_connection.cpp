#include "server/http_connection.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <exception>
#include <random>

#include "base/random.h"

namespace bise {
namespace {

constexpr size_t kReadBytes = size_t{16} << 10;
constexpr size_t kMaxPipelined = size_t{64} << 10;
constexpr auto kLinger = std::chrono::seconds(2);
constexpr uint64_t kMaxLingerBytes = uint64_t{16} << 20;

bool is_request_id(const std::string& text) {
  if (text.empty() || text.size() > 128) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

std::string new_request_id() {
  static const uint64_t seed = (uint64_t{std::random_device()()} << 32) | std::random_device()();
  static std::atomic<uint64_t> count{0};
  char text[40];
  std::snprintf(text, sizeof text, "req-%016llx",
                static_cast<unsigned long long>(random_bits(seed, 0, count.fetch_add(1))));
  return text;
}

bool is_field_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != '\x7f');
  });
}

std::string head_text(int status, const std::string& content_type, const std::vector<HttpHeader>& headers,
                      const std::string& request_id, bool keep_alive) {
  std::string out = "HTTP/1.1 " + std::to_string(status) + " " + http_status_text(status) + "\r\n";
  if (!content_type.empty()) out += "Content-Type: " + content_type + "\r\n";
  for (const HttpHeader& header : headers) {
    if (is_field_value(header.value)) out += header.name + ": " + header.value + "\r\n";
  }
  if (!request_id.empty()) out += "x-request-id: " + request_id + "\r\n";
  out += keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  return out;
}

}  // namespace

const char* http_status_text(int status) {
  switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

// The reply of one exchange. Keeps the connection alive; what is written after the client went is
// dropped.
class ConnectionReply final : public HttpReply {
 public:
  ConnectionReply(std::shared_ptr<HttpConnection> connection, const HttpRequest& request, bool keep_alive,
                  bool is_http10, bool may_wait)
      : connection_(std::move(connection)),
        id_(request.id),
        is_head_(request.method == "HEAD"),
        keep_alive_(keep_alive),
        chunked_(!is_http10),
        may_wait_(may_wait) {}
  ~ConnectionReply() override { finish(); }

  void send(HttpResponse response) override {
    if (begun_) return;
    begun_ = true;
    std::string bytes = head_text(response.status, response.body.empty() ? "" : response.content_type,
                                  response.headers, id_, keep_alive_);
    bytes += "Content-Length: " + std::to_string(response.body.size()) + "\r\n\r\n";
    if (!is_head_) bytes += response.body;
    connection_->set_status(response.status);
    connection_->enqueue(std::move(bytes), false);
    finish();
  }
  void begin(int status, std::vector<HttpHeader> headers, std::string content_type) override {
    if (begun_) return;
    begun_ = streaming_ = true;
    if (!chunked_) keep_alive_ = connection_->keep_alive_ = false;  // the end of the body is the end of the connection
    std::string bytes = head_text(status, content_type, headers, id_, keep_alive_);
    bytes += chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n";
    connection_->set_status(status);
    connection_->enqueue(std::move(bytes), false);
  }
  bool write(std::string_view bytes) override {
    if (!streaming_ || bytes.empty()) return !connection_->gone();
    std::string frame;
    if (chunked_) {
      char size[24];
      std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
      frame.reserve(bytes.size() + 16);
      frame += size;
      frame += bytes;
      frame += "\r\n";
    } else {
      frame = bytes;
    }
    connection_->enqueue(std::move(frame), may_wait_);
    return !connection_->gone();
  }
  void end() override {
    if (!streaming_ || finished_) return;
    if (chunked_) connection_->enqueue("0\r\n\r\n", false);
    finish();
  }
  bool client_gone() const override { return connection_->gone(); }
  void when_gone(std::function<void()> call) override { connection_->when_gone(std::move(call)); }
  bool begun() const { return begun_; }

 private:
  void finish() {
    if (finished_) return;
    finished_ = true;
    connection_->finish_reply();
  }

  std::shared_ptr<HttpConnection> connection_;
  std::string id_;
  bool is_head_, keep_alive_, chunked_, may_wait_;
  bool begun_ = false, streaming_ = false, finished_ = false;
};

HttpConnection::HttpConnection(HttpCore& core, boost::asio::ip::tcp::socket socket) : core_(core) {
  boost::system::error_code ignored;
  auto endpoint = socket.remote_endpoint(ignored);
  if (!ignored) peer_ = endpoint.address().to_string() + ":" + std::to_string(endpoint.port());
  socket.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  stream_ = make_http_stream(std::move(socket), core.tls ? &*core.tls : nullptr);
  read_buffer_.resize(core.tls ? kReadBytes : 0);
  core_.num_connections.fetch_add(1);
}

HttpConnection::~HttpConnection() { core_.num_connections.fetch_sub(1); }

void HttpConnection::start() {
  read_deadline_ = Clock::now() + core_.options.header_timeout;
  stream_->handshake([self = shared_from_this()](boost::system::error_code error, size_t) {
    if (self->phase_ == Phase::closed) return;
    if (error) return self->close();
    self->begin_request();
  });
}

void HttpConnection::check_deadline(Clock::time_point now) {
  if (write_deadline_ && now >= *write_deadline_) return close();
  if (!read_deadline_ || now < *read_deadline_) return;
  read_deadline_.reset();
  if (phase_ == Phase::head) return refuse(408, "the header did not arrive in time");
  if (phase_ == Phase::body) return refuse(408, "the body did not arrive in time");
  close();
}

void HttpConnection::close() {
  if (phase_ == Phase::closed) return;
  const bool was_handling = phase_ == Phase::handling;
  phase_ = Phase::closed;
  if (was_handling) log_access(true);
  set_gone();
  read_deadline_.reset();
  write_deadline_.reset();
  release_body();
  boost::system::error_code ignored;
  stream_->socket().close(ignored);
  core_.connections.erase(shared_from_this());
}

void HttpConnection::set_gone() {
  std::function<void()> call;
  {
    std::lock_guard lock(mutex_);
    gone_ = true;
    if (phase_ == Phase::closed) out_.clear();
    call.swap(when_gone_);
  }
  drained_.notify_all();
  if (call) call();
}

void HttpConnection::when_gone(std::function<void()> call) {
  {
    std::lock_guard lock(mutex_);
    if (!gone_) {
      when_gone_ = std::move(call);
      return;
    }
  }
  call();
}

void HttpConnection::release_body() {
  core_.body_bytes -= promised_body_;
  promised_body_ = 0;
}

void HttpConnection::begin_request() {
  phase_ = Phase::idle;
  bytes_in_ = 0;
  HttpReadLimits limits;
  limits.max_header_bytes = core_.options.max_header_bytes;
  limits.max_headers = core_.options.max_headers;
  limits.max_body_bytes = core_.options.max_body_bytes;
  reader_.emplace(limits);
  read_deadline_ = Clock::now() + core_.options.idle_timeout;
  if (!in_.empty()) return process();
  if (client_closed_ || core_.draining) return close();
  read();
}

void HttpConnection::read() {
  if (reading_ || client_closed_ || phase_ == Phase::closed) return;
  reading_ = true;
  if (!core_.tls && phase_ == Phase::idle && in_.empty()) {
    // An idle connection holds no buffer: wait for bytes first. (TLS holds its own anyway.)
    read_buffer_ = std::string();
    stream_->socket().async_wait(boost::asio::ip::tcp::socket::wait_read,
                                 [self = shared_from_this()](boost::system::error_code error) {
                                   self->reading_ = false;
                                   if (self->phase_ == Phase::closed) return;
                                   if (error) return self->close();
                                   self->read_buffer_.resize(kReadBytes);
                                   self->reading_ = true;
                                   self->stream_->read_some(self->read_buffer_.data(), self->read_buffer_.size(),
                                                            [self](boost::system::error_code code, size_t size) {
                                                              self->on_read(code, size);
                                                            });
                                 });
    return;
  }
  if (read_buffer_.empty()) read_buffer_.resize(kReadBytes);
  stream_->read_some(read_buffer_.data(), read_buffer_.size(),
                     [self = shared_from_this()](boost::system::error_code error, size_t size) {
                       self->on_read(error, size);
                     });
}

void HttpConnection::on_read(boost::system::error_code error, size_t size) {
  reading_ = false;
  if (phase_ == Phase::closed) return;
  if (error) {
    client_closed_ = true;
    if (phase_ == Phase::handling) {
      // The answer may still be written (a client may close one direction only), but who generates
      // tokens stops.
      return set_gone();
    }
    return close();
  }
  if (phase_ == Phase::lingering) {
    lingered_ += size;
    return lingered_ > kMaxLingerBytes ? close() : read();
  }
  in_.append(read_buffer_.data(), size);
  if (phase_ == Phase::handling) {
    if (in_.size() < kMaxPipelined) read();  // only to see the end of the connection
    return;
  }
  process();
}

void HttpConnection::process() {
  while (phase_ == Phase::idle || phase_ == Phase::head || phase_ == Phase::body) {
    const size_t used = reader_->take(in_);
    in_.erase(0, used);
    bytes_in_ += used;
    if (phase_ == Phase::idle && reader_->begun()) {
      phase_ = Phase::head;
      request_start_ = Clock::now();
      read_deadline_ = request_start_ + core_.options.header_timeout;
    }
    switch (reader_->state()) {
      case HttpRequestReader::State::failed:
        return refuse(reader_->fault().status, reader_->fault().message);
      case HttpRequestReader::State::head: return read();
      case HttpRequestReader::State::body:
        if (phase_ == Phase::head) {
          judge();
          if (phase_ != Phase::body) return;
          break;  // take() again: there may be no body at all
        }
        return read();
      case HttpRequestReader::State::done: return handle();
    }
  }
}

// The head is here. Refusing now spares everybody the body.
void HttpConnection::judge() {
  HttpRequest& request = reader_->request();
  request.peer = peer_;
  const std::string* id = request.header("x-request-id");
  request.id = id != nullptr && is_request_id(*id) ? *id : new_request_id();
  keep_alive_ = reader_->keep_alive();
  phase_ = Phase::body;
  if (core_.callbacks.judge_head) {
    if (std::optional<HttpResponse> answer = core_.callbacks.judge_head(request)) {
      if (reader_->body_bytes_expected() > 0) keep_alive_ = false;  // the body is still on its way
      return send_now(*std::move(answer));
    }
  }
  const uint64_t expected = reader_->body_bytes_expected();
  if (core_.body_bytes + expected > core_.options.max_total_body_bytes) {
    return refuse(503, "too many request bodies are being read at the moment");
  }
  core_.body_bytes += expected;
  promised_body_ = expected;
  read_deadline_ = Clock::now() + core_.options.body_timeout +
                   std::chrono::seconds(expected / core_.options.slowest_body_rate);
  if (reader_->expects_continue() && expected > 0) enqueue("HTTP/1.1 100 Continue\r\n\r\n", false);
}

// A request is there whose answer comes next.
void HttpConnection::begin_answer() {
  read_deadline_.reset();
  phase_ = Phase::handling;
  {
    std::lock_guard lock(mutex_);
    reply_finished_ = false;
    bytes_out_ = 0;
    status_ = 0;
  }
  exchange_counted_ = true;
  core_.active_requests.fetch_add(1);
}

void HttpConnection::handle() {
  begin_answer();
  keep_alive_ = keep_alive_ && !core_.draining;
  const std::string& method = reader_->request().method;
  if (method == "GET" || method == "HEAD") return run_handler();
  read();  // to see when the client goes
  auto self = shared_from_this();
  if (!core_.workers->post([self] { self->run_handler(); })) {
    HttpResponse response = core_.callbacks.refuse(503, "all workers of the server are busy");
    ConnectionReply(self, reader_->request(), keep_alive_, reader_->is_http10(), false).send(std::move(response));
  }
}

void HttpConnection::run_handler() {
  const HttpRequest& request = reader_->request();
  const bool may_wait = request.method != "GET" && request.method != "HEAD";
  ConnectionReply reply(shared_from_this(), request, keep_alive_, reader_->is_http10(), may_wait);
  std::string fault;
  try {
    core_.callbacks.handle(request, reply);
    if (!reply.begun()) fault = "no answer was given";
  } catch (const std::bad_alloc&) {
    fault = "out of memory";
  } catch (const std::exception& e) {
    fault = e.what();
  }
  if (fault.empty()) return;
  core_.log.error("request " + request.id + ": " + fault);
  if (!reply.begun()) reply.send(core_.callbacks.refuse(500, "the server failed to answer: " + fault));
}

void HttpConnection::refuse(int status, const std::string& message) {
  keep_alive_ = false;
  send_now(core_.callbacks.refuse(status, message));
}

// An answer of the server itself, before any handler.
void HttpConnection::send_now(HttpResponse response) {
  HttpRequest& request = reader_->request();
  if (request.id.empty()) request.id = new_request_id();
  if (phase_ == Phase::idle) request_start_ = Clock::now();
  begin_answer();
  ConnectionReply(shared_from_this(), request, keep_alive_, reader_->is_http10(), false).send(std::move(response));
}

void HttpConnection::set_status(int status) {
  std::lock_guard lock(mutex_);
  status_ = status;
}

void HttpConnection::enqueue(std::string bytes, bool may_wait) {
  std::unique_lock lock(mutex_);
  if (may_wait) {
    drained_.wait(lock, [this] { return gone_ || unread_ < core_.options.max_unread_bytes; });
    if (gone_) return;
  }
  unread_ += bytes.size();
  bytes_out_ += bytes.size();
  out_ += bytes;
  if (flush_posted_) return;
  flush_posted_ = true;
  boost::asio::post(core_.io, [self = shared_from_this()] { self->flush(); });
}

void HttpConnection::finish_reply() {
  std::lock_guard lock(mutex_);
  reply_finished_ = true;
  when_gone_ = nullptr;
  if (flush_posted_) return;
  flush_posted_ = true;
  boost::asio::post(core_.io, [self = shared_from_this()] { self->flush(); });
}

void HttpConnection::flush() {
  bool finished = false;
  {
    std::lock_guard lock(mutex_);
    flush_posted_ = false;
    if (writing_ || phase_ == Phase::closed) return;
    writing_bytes_.swap(out_);
    out_.clear();
    finished = reply_finished_ && phase_ == Phase::handling;
  }
  written_ = 0;
  if (writing_bytes_.empty()) {
    write_deadline_.reset();
    if (finished) finish_exchange();
    return;
  }
  writing_ = true;
  write_deadline_ = Clock::now() + core_.options.write_timeout;
  stream_->write_some(writing_bytes_.data(), writing_bytes_.size(),
                      [self = shared_from_this()](boost::system::error_code error, size_t size) {
                        self->on_written(error, size);
                      });
}

void HttpConnection::on_written(boost::system::error_code error, size_t size) {
  writing_ = false;
  if (phase_ == Phase::closed) return;
  if (error) return close();
  {
    std::lock_guard lock(mutex_);
    unread_ -= size;
  }
  drained_.notify_all();
  written_ += size;
  if (written_ < writing_bytes_.size()) {
    writing_ = true;
    write_deadline_ = Clock::now() + core_.options.write_timeout;
    stream_->write_some(writing_bytes_.data() + written_, writing_bytes_.size() - written_,
                        [self = shared_from_this()](boost::system::error_code code, size_t more) {
                          self->on_written(code, more);
                        });
    return;
  }
  writing_bytes_.clear();
  flush();
}

void HttpConnection::finish_exchange() {
  log_access(false);
  release_body();
  if (client_closed_) return close();
  if (!keep_alive_ || core_.draining) return linger();
  gone_ = false;
  begin_request();
}

// Reads on for a moment (and no more than some bytes) after the last answer: closing with unread bytes
// would reset the connection, and the client might never see the answer.
void HttpConnection::linger() {
  phase_ = Phase::lingering;
  in_.clear();
  boost::system::error_code ignored;
  stream_->socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  read_deadline_ = Clock::now() + kLinger;
  read();
}

void HttpConnection::log_access(bool client_left) {
  if (!exchange_counted_) return;
  exchange_counted_ = false;
  core_.active_requests.fetch_sub(1);
  if (!core_.callbacks.log_access) return;
  HttpAccess access;
  const HttpRequest& request = reader_->request();
  access.peer = peer_;
  access.method = request.method;
  access.path = request.path;
  access.id = request.id;
  {
    std::lock_guard lock(mutex_);
    access.status = status_;
    access.bytes_out = bytes_out_;
  }
  access.bytes_in = bytes_in_;
  access.seconds = std::chrono::duration<double>(Clock::now() - request_start_).count();
  access.client_left = client_left || gone_;
  core_.callbacks.log_access(access);
}

}  // namespace bise
