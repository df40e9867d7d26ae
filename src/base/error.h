// Error and Result<T>: the return of everything that can fail for a cause outside the code.
// "The world was not as asked" is a Result; "we have a bug" is a CHECK, which aborts with the place.
// No exception crosses a function of ours: what the standard library or a third party throws is caught
// where it is called and becomes an Error.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

namespace bise {

enum class ErrorCode {
  invalid_argument,  // an option, a request field or a configuration value that cannot be obeyed
  not_found,         // a file, a model, a tensor
  io,                // the operating system refused
  corrupt,           // bytes that contradict their own format
  unsupported,       // valid, but not something this program does
  too_large,         // beyond a stated limit (context, pixels, bytes)
  out_of_memory,
  busy,  // a queue is full or the engine is being stopped: the same request may succeed later
  cancelled,
  device,
  internal,
};

// The text with control characters as C writes them: messages quote bytes of files and of the network, which must
// neither break the line nor reach a terminal.
std::string escape_controls(std::string text);

// A code, a message for a person (place, found, expected, what to do), always one line, and, for requests, the
// parameter at fault and the kind of refusal.
class Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(escape_controls(std::move(message))) {}

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& param() const { return param_; }
  const std::string& kind() const { return kind_; }

  // Adds one phrase in front: "model.safetensors: tensor x: …". One per floor on the way up.
  Error with_context(const std::string& place) && {
    message_ = escape_controls(place) + ": " + message_;
    return std::move(*this);
  }
  // Names the request field at fault, as a path such as `messages[2].content`.
  Error with_param(std::string param) && {
    param_ = std::move(param);
    return std::move(*this);
  }
  // The class of a refused request, in the words of the tokenizer goldens (`tool_schema`, `request` …).
  Error with_kind(std::string kind) && {
    kind_ = std::move(kind);
    return std::move(*this);
  }

 private:
  ErrorCode code_;
  std::string message_;
  std::string param_;
  std::string kind_;
};

[[noreturn]] inline void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "bug: CHECK(%s) failed at %s:%d\n", condition, file, line);
  std::abort();
}

#define CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::bise::check_failed(#condition, __FILE__, __LINE__))
#ifdef NDEBUG
#define DCHECK(condition) static_cast<void>(sizeof(!(condition)))
#else
#define DCHECK(condition) CHECK(condition)
#endif

// A value or an Error, shaped like std::expected so that it can become that one day.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : value_(std::move(value)) {}
  Result(Error error) : error_(std::move(error)) {}

  bool has_value() const { return value_.has_value(); }
  explicit operator bool() const { return has_value(); }
  T& value() & {
    CHECK(has_value());
    return *value_;
  }
  const T& value() const& {
    CHECK(has_value());
    return *value_;
  }
  T&& value() && {
    CHECK(has_value());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& {
    CHECK(!has_value());
    return *error_;
  }
  Error&& error() && {
    CHECK(!has_value());
    return std::move(*error_);
  }
  Result with_context(const std::string& place) && {
    if (error_) error_ = std::move(*error_).with_context(place);
    return std::move(*this);
  }

 private:
  std::optional<T> value_;
  std::optional<Error> error_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  void value() const { CHECK(has_value()); }
  const Error& error() const& {
    CHECK(!has_value());
    return *error_;
  }
  Error&& error() && {
    CHECK(!has_value());
    return std::move(*error_);
  }
  Result with_context(const std::string& place) && {
    if (error_) error_ = std::move(*error_).with_context(place);
    return std::move(*this);
  }

 private:
  std::optional<Error> error_;
};

// auto x = TRY(f());  TRY(g());   Hands an Error to the caller, else yields the value.
// The counter keeps a TRY inside another's argument from shadowing it.
#define TRY(expression) BISE_TRY_NAMED_(expression, __COUNTER__)
#define BISE_TRY_NAMED_(expression, n) BISE_TRY_(expression, n)
#define BISE_TRY_(expression, n)                                       \
  __extension__({                                                      \
    auto try_result_##n = (expression);                                \
    if (!try_result_##n) return std::move(try_result_##n).error();     \
    std::move(try_result_##n).value();                                 \
  })

}  // namespace bise
