#include "server/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>

#include "server/http_connection.h"

namespace bise {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
constexpr auto kTick = std::chrono::milliseconds(50);

}  // namespace

struct HttpServer::State {
  HttpCore core;
  std::optional<Tcp::acceptor> acceptor;
  std::optional<asio::steady_timer> timer;
  uint16_t port = 0;
  std::thread thread;

  void accept() {
    acceptor->async_accept([this](boost::system::error_code error, Tcp::socket socket) {
      if (!acceptor->is_open()) return;
      if (error) {
        // Out of file descriptors, for instance: others have to end first.
        timer_accept();
        return;
      }
      if (static_cast<int32_t>(core.connections.size()) < core.options.max_connections) {
        auto connection = std::make_shared<HttpConnection>(core, std::move(socket));
        core.connections.insert(connection);
        connection->start();
      }  // else the socket closes here; an answer would cost what is scarce
      accept();
    });
  }
  void timer_accept() {
    auto pause = std::make_shared<asio::steady_timer>(core.io, kTick);
    pause->async_wait([this, pause](boost::system::error_code) {
      if (acceptor->is_open()) accept();
    });
  }
  void tick() {
    timer->expires_after(kTick);
    timer->async_wait([this](boost::system::error_code error) {
      if (error) return;
      auto now = HttpConnection::Clock::now();
      auto all = core.connections;  // closing one changes the set
      for (const auto& connection : all) connection->check_deadline(now);
      tick();
    });
  }
};

HttpServer::HttpServer(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<HttpServer>> HttpServer::create(const HttpServerOptions& options,
                                                       HttpCallbacks callbacks, const Log& log) {
  auto state = std::make_shared<State>();
  HttpCore& core = state->core;
  core.options = options;
  core.callbacks = std::move(callbacks);
  core.log = log;
  boost::system::error_code error;
  if (!options.tls_certificate.empty()) {
    core.tls.emplace(asio::ssl::context::tls_server);
    core.tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                          asio::ssl::context::no_tlsv1_1, error);
    core.tls->use_certificate_chain_file(options.tls_certificate, error);
    if (error) return Error(ErrorCode::io, "the certificate " + options.tls_certificate + " cannot be used: " + error.message());
    core.tls->use_private_key_file(options.tls_key, asio::ssl::context::pem, error);
    if (error) return Error(ErrorCode::io, "the key " + options.tls_key + " cannot be used: " + error.message());
  }
  const std::string place = options.host + ":" + std::to_string(options.port);
  Tcp::resolver resolver(core.io);
  auto found = resolver.resolve(options.host, std::to_string(options.port),
                                Tcp::resolver::passive | Tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return Error(ErrorCode::invalid_argument, "cannot listen on " + place + ": " + error.message());
  }
  const Tcp::endpoint endpoint = found.begin()->endpoint();
  Tcp::acceptor acceptor(core.io);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return Error(ErrorCode::io, "cannot listen on " + place + ": " + error.message());
  state->port = acceptor.local_endpoint(error).port();
  state->acceptor.emplace(std::move(acceptor));
  state->timer.emplace(core.io);
  core.workers = std::make_unique<WorkerPool>(static_cast<size_t>(options.max_workers));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

void HttpServer::start() {
  state_->accept();
  state_->tick();
  state_->thread = std::thread([state = state_] { state->core.io.run(); });
}

HttpServer::~HttpServer() {
  asio::post(state_->core.io, [state = state_] {
    boost::system::error_code ignored;
    state->acceptor->close(ignored);
    auto all = state->core.connections;
    for (const auto& connection : all) connection->close();
  });
  state_->core.workers->stop();  // waits for the handlers, which now see a client that is gone
  asio::post(state_->core.io, [state = state_] {
    auto all = state->core.connections;
    for (const auto& connection : all) connection->close();
    state->timer->cancel();
    state->core.io.stop();
  });
  if (state_->thread.joinable()) state_->thread.join();
}

uint16_t HttpServer::port() const { return state_->port; }

HttpServerStats HttpServer::stats() const {
  return {state_->core.num_connections.load(), state_->core.active_requests.load()};
}

bool HttpServer::drain(std::chrono::milliseconds patience) {
  state_->core.draining = true;
  asio::post(state_->core.io, [state = state_] {
    boost::system::error_code ignored;
    state->acceptor->close(ignored);
    auto all = state->core.connections;
    for (const auto& connection : all) {
      if (connection->idle()) connection->close();
    }
  });
  const auto end = std::chrono::steady_clock::now() + patience;
  while (state_->core.active_requests.load() > 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace bise
