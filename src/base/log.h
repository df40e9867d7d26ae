// A levelled log handed down by its owner. Below app/ nothing prints: rooms get a Log and write to it.
#pragma once

#include <functional>
#include <string>
#include <utility>

namespace bise {

enum class LogLevel { debug, info, warning, error };

// Silent by default. Copyable; the sink must be safe to call from the threads that log.
class Log {
 public:
  using Sink = std::function<void(LogLevel, const std::string&)>;
  Log() = default;
  explicit Log(Sink sink) : sink_(std::move(sink)) {}

  void debug(const std::string& text) const { write(LogLevel::debug, text); }
  void info(const std::string& text) const { write(LogLevel::info, text); }
  void warning(const std::string& text) const { write(LogLevel::warning, text); }
  void error(const std::string& text) const { write(LogLevel::error, text); }

 private:
  void write(LogLevel level, const std::string& text) const {
    if (sink_) sink_(level, text);
  }
  Sink sink_;
};

}  // namespace bise
