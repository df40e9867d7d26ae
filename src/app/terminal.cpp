#include "app/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace bise {
namespace {

// A signal handler can reach nothing but a static.
volatile std::sig_atomic_t interrupt_flag = 0;
volatile std::sig_atomic_t second_exits = 1;

extern "C" void on_interrupt(int) {
  if (interrupt_flag != 0 && second_exits != 0) {
    constexpr char kPlain[] = "\x1b[0m\n";
    if (isatty(STDOUT_FILENO) == 1) {
      ssize_t ignored = write(STDOUT_FILENO, kPlain, sizeof(kPlain) - 1);
      static_cast<void>(ignored);
    }
    _exit(130);
  }
  interrupt_flag = 1;
}

}  // namespace

bool stdout_is_terminal() { return isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }
bool stdin_is_terminal() { return isatty(STDIN_FILENO) == 1; }

Result<void> write_output(std::string_view text) {
  while (!text.empty()) {
    ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) {
      return Error(ErrorCode::io,
                   "standard output was closed by its reader; the rest is not written");
    }
    if (written < 0) {
      return Error(ErrorCode::io,
                   std::string("cannot write to standard output: ") + strerror(errno));
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), enabled_(stderr_is_terminal()), started_(now_seconds()) {}

void ProgressBar::update(uint64_t done, uint64_t total) {
  constexpr double kDelay = 0.2, kInterval = 0.1;  // short work stays silent
  double now = now_seconds();
  if (!enabled_ || total == 0 || now - started_ < kDelay || now - drawn_at_ < kInterval) return;
  constexpr int kWidth = 30;
  double share = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
  int filled = static_cast<int>(share * kWidth);
  std::string bar(static_cast<size_t>(filled), '#');
  bar.resize(kWidth, '.');
  std::fprintf(stderr, "\r%s [%s] %3.0f%%", label_.c_str(), bar.c_str(), share * 100);
  std::fflush(stderr);
  drawn_ = true;
  drawn_at_ = now;
}

void ProgressBar::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

void handle_signals(InterruptRule rule) {
  second_exits = rule == InterruptRule::exit_on_second ? 1 : 0;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // reads return EINTR: a prompt being typed is given up too
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void handle_termination() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return interrupt_flag != 0; }
void clear_interrupt() { interrupt_flag = 0; }

double now_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

std::string terminal_safe(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    // C1 controls are the two bytes C2 80 … C2 9F.
    bool c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1) ++i;
    if (c1 || byte == 0x7F || (byte < 0x20 && byte != '\n' && byte != '\t')) {
      out += "\xEF\xBF\xBD";
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string DimText::set(bool dim) {
  if (!enabled_ || dim == dim_) return "";
  dim_ = dim;
  return dim ? "\x1b[2m" : "\x1b[0m";
}

}  // namespace bise
