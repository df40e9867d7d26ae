// A refused or failed request as OpenAI's clients read it: {"error": {message, type, param, code}},
// with our own additions `status`, `hint` and the numbers `limit` and `actual` where there are some.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "server/http.h"

namespace bise {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  // empty: null
  std::string code;   // empty: null
  std::string hint;
  std::optional<int64_t> limit, actual;
  int32_t retry_after_s = 0;  // with 429 and 503

  static ApiError invalid(std::string param, std::string message, std::string code = "invalid_value");
  static ApiError unsupported(std::string param, std::string message);
  // What the floors below answer: a status by the error's code.
  static ApiError from(const Error& error);
};

// The envelope, in one line.
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

// A value or an ApiError.
template <class T>
class [[nodiscard]] ApiResult {
 public:
  using value_type = T;
  ApiResult(T value) : value_(std::move(value)) {}
  ApiResult(ApiError error) : error_(std::move(error)) {}
  ApiResult(const Error& error) : error_(ApiError::from(error)) {}
  explicit operator bool() const { return value_.has_value(); }
  T& operator*() & { return *value_; }
  T&& value() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const ApiError& error() const& { return *error_; }
  ApiError&& error() && { return *std::move(error_); }

 private:
  std::optional<T> value_;
  std::optional<ApiError> error_;
};

struct Done {};  // the value of an ApiResult that has none
using ApiStatus = ApiResult<Done>;

}  // namespace bise
