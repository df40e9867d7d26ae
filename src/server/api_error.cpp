#include "server/api_error.h"

#include "server/json_writer.h"

namespace bise {
namespace {

// Messages quote the client; a long quote helps nobody and can be made expensive.
constexpr size_t kMaxMessage = 1000, kMaxParam = 200;

std::string cut(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace

ApiError ApiError::invalid(std::string param, std::string message, std::string code) {
  ApiError error;
  error.param = std::move(param);
  error.message = std::move(message);
  error.code = std::move(code);
  return error;
}

ApiError ApiError::unsupported(std::string param, std::string message) {
  return invalid(std::move(param), std::move(message), "unsupported_parameter");
}

ApiError ApiError::from(const Error& error) {
  ApiError out;
  out.message = error.message();
  out.param = error.param();
  out.code = error.kind();
  switch (error.code()) {
    case ErrorCode::invalid_argument:
    case ErrorCode::corrupt:
    case ErrorCode::not_found:
    case ErrorCode::unsupported:
    case ErrorCode::too_large:
      if (out.code.empty()) out.code = error.code() == ErrorCode::unsupported ? "unsupported_value" : "invalid_value";
      return out;
    case ErrorCode::busy:
      out.status = 429;
      out.type = "rate_limit_error";
      out.code = "rate_limit_exceeded";
      out.retry_after_s = 1;
      return out;
    case ErrorCode::cancelled:
      out.status = 503;
      out.type = "server_error";
      out.code = "cancelled";
      return out;
    case ErrorCode::io:
    case ErrorCode::out_of_memory:
    case ErrorCode::device:
    case ErrorCode::internal: break;
  }
  out.status = 500;
  out.type = "server_error";
  out.code = "internal_error";
  return out;
}

std::string error_json(const ApiError& error) {
  std::string out;
  JsonWriter json(out);
  auto text_or_null = [&](const char* name, const std::string& text) {
    json.key(name);
    if (text.empty()) json.null();
    else json.value(text);
  };
  json.begin_object().key("error").begin_object();
  json.field("message", cut(error.message, kMaxMessage));
  json.field("type", error.type);
  text_or_null("param", cut(error.param, kMaxParam));
  text_or_null("code", error.code);
  json.field("status", error.status);
  if (!error.hint.empty()) json.field("hint", error.hint);
  if (error.limit) json.field("limit", *error.limit);
  if (error.actual) json.field("actual", *error.actual);
  json.end_object().end_object();
  return out;
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_json(error) + "\n";
  if (error.status == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  if (error.retry_after_s > 0) response.headers.push_back({"Retry-After", std::to_string(error.retry_after_s)});
  return response;
}

}  // namespace bise
