// /tokenize, /detokenize, /tokenizer_info.
#include "server/api.h"
#include "server/json_writer.h"

namespace bise {
namespace {

ApiResult<std::vector<int32_t>> token_ids(const PyJson& body, int32_t vocab_size) {
  const PyJson* list = body.get("tokens");
  if (list == nullptr || list->array() == nullptr) return ApiError::invalid("tokens", "tokens must be a list of token ids", "invalid_type");
  std::vector<int32_t> ids;
  ids.reserve(list->array()->size());
  for (const PyJson& item : *list->array()) {
    std::optional<int64_t> id = whole_number(item);
    if (!id || *id < 0 || *id >= vocab_size) {
      return ApiError::invalid("tokens", "tokens holds " + (id ? std::to_string(*id) : std::string(item.type_name())) +
                                             "; token ids go from 0 to " + std::to_string(vocab_size - 1));
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

struct NamedTokens {
  int32_t bos = -1, eos = -1, pad = -1;
};
NamedTokens named_tokens(const ServedModel& model) {
  return {model.chat->bos(), model.stop_tokens.empty() ? -1 : model.stop_tokens[0], model.chat->tokenizer().special("<pad>").value_or(-1)};
}

// A text that is the whole name of one of the tokens of /tokenizer_info is that token: evaluation
// harnesses ask for their ids so. Inside a longer text such names are text, as everywhere.
std::optional<int32_t> named_token(const ServedModel& model, const std::string& text) {
  const NamedTokens named = named_tokens(model);
  for (int32_t id : {named.bos, named.eos, named.pad}) {
    if (id >= 0 && !text.empty() && text == model.chat->tokenizer().token_bytes(id)) return id;
  }
  return std::nullopt;
}

void send_json(HttpReply& reply, std::string body) {
  HttpResponse response;
  response.body = std::move(body) + "\n";
  reply.send(std::move(response));
}

}  // namespace

void Api::tokenize(const HttpRequest& request, HttpReply& reply) {
  auto answer = [&]() -> ApiResult<std::string> {
    PyJson body = TRY(parse_body(request));
    TRY(check_model(TRY(string_field(body, "model"))));
    std::vector<int32_t> ids;
    if (body.get("messages") != nullptr) {
      std::optional<ImageFetcher::Fetched> fetched;
      ids = TRY(encode(body, reply, fetched)).ids;
    } else {
      std::optional<std::string> text = TRY(string_field(body, "prompt"));
      if (!text) return ApiError::invalid("prompt", "prompt is missing: a text, or send messages", "missing_required_parameter");
      if (std::optional<int32_t> named = named_token(model_, *text)) {
        ids.push_back(*named);
      } else {
        if (TRY(bool_field(body, "add_special_tokens")).value_or(true) && model_.chat->bos() >= 0) ids.push_back(model_.chat->bos());
        model_.chat->tokenizer().encode(*text, ids);
      }
    }
    const bool strings = TRY(bool_field(body, "return_token_strs")).value_or(false);
    std::string out;
    JsonWriter json(out);
    json.begin_object().field("count", ids.size()).field("max_model_len", model_.engine->context()).key("tokens").begin_array();
    for (int32_t id : ids) json.value(id);
    json.end_array().key("token_strs");
    if (strings) {
      json.begin_array();
      for (int32_t id : ids) json.value(model_.chat->tokenizer().token_bytes(id));
      json.end_array();
    } else {
      json.null();
    }
    json.end_object();
    return out;
  }();
  if (!answer) return reply.send(error_response(answer.error()));
  send_json(reply, std::move(answer).value());
}

void Api::detokenize(const HttpRequest& request, HttpReply& reply) {
  auto answer = [&]() -> ApiResult<std::string> {
    PyJson body = TRY(parse_body(request));
    TRY(check_model(TRY(string_field(body, "model"))));
    std::vector<int32_t> ids = TRY(token_ids(body, model_.vocab_size));
    std::string out;
    JsonWriter json(out);
    json.begin_object().field("prompt", model_.chat->tokenizer().decode(ids, true)).end_object();
    return out;
  }();
  if (!answer) return reply.send(error_response(answer.error()));
  send_json(reply, std::move(answer).value());
}

void Api::tokenizer_info(const HttpRequest&, HttpReply& reply) {
  const Tokenizer& tokenizer = model_.chat->tokenizer();
  std::string out;
  JsonWriter json(out);
  auto token = [&](const char* name, int32_t id) {
    json.key(name);
    if (id >= 0) json.value(tokenizer.token_bytes(id));
    else json.null();
  };
  const NamedTokens named = named_tokens(model_);
  json.begin_object();
  token("bos_token", named.bos);
  token("eos_token", named.eos);
  token("pad_token", named.pad);
  json.field("vocab_size", model_.vocab_size).field("chat_format", model_.chat->format_name()).key("chat_template").null();
  json.end_object();
  send_json(reply, std::move(out));
}

}  // namespace bise
