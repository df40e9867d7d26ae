// Any bytes as a chat-completions body, for every tokenizer version, strict and lenient. Nothing
// may crash; a refusal is one short line; of an accepted body the ids are in range and text never
// makes a control token that the format does not write itself.
#include <array>
#include <memory>
#include <string>

#include "chat/mistral_chat.h"
#include "chat/python_json.h"

namespace {

using namespace bise;

// A tekken file whose vocabulary is the 256 bytes and three words.
std::string small_tekken(const char* version) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out =
      R"({"config":{"pattern":"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*)"
      R"([\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo})"
      R"(\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|)"
      R"(\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+","num_vocab_tokens":259,"default_vocab_size":309,)"
      R"("default_num_special_tokens":50,"version":")" +
      std::string(version) + R"("},"vocab":[)";
  auto entry = [&](int rank, const std::string& bytes) {
    std::string base64;
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) {
      bits = bits << 8 | (i < bytes.size() ? static_cast<uint8_t>(bytes[i]) : 0);
    }
    for (size_t i = 0; i < 4; ++i) {
      base64 += i <= bytes.size() ? kAlphabet[bits >> (18 - 6 * i) & 63] : '=';
    }
    out += std::string(rank > 0 ? "," : "") + "{\"rank\":" + std::to_string(rank) +
           ",\"token_bytes\":\"" + base64 + "\",\"token_str\":null}";
  };
  for (int i = 0; i < 256; ++i) entry(i, std::string(1, static_cast<char>(i)));
  entry(256, "he");
  entry(257, "the");
  entry(258, "\": ");
  out += "],\"special_tokens\":[";
  const std::array<const char*, 38> names = {"<unk>",
                                             "<s>",
                                             "</s>",
                                             "[INST]",
                                             "[/INST]",
                                             "[AVAILABLE_TOOLS]",
                                             "[/AVAILABLE_TOOLS]",
                                             "[TOOL_RESULTS]",
                                             "[/TOOL_RESULTS]",
                                             "[TOOL_CALLS]",
                                             "[IMG]",
                                             "<pad>",
                                             "[IMG_BREAK]",
                                             "[IMG_END]",
                                             "[PREFIX]",
                                             "[MIDDLE]",
                                             "[SUFFIX]",
                                             "[SYSTEM_PROMPT]",
                                             "[/SYSTEM_PROMPT]",
                                             "[TOOL_CONTENT]",
                                             "s20",
                                             "s21",
                                             "s22",
                                             "s23",
                                             "s24",
                                             "s25",
                                             "s26",
                                             "s27",
                                             "s28",
                                             "s29",
                                             "s30",
                                             "s31",
                                             "[ARGS]",
                                             "[CALL_ID]",
                                             "[THINK]",
                                             "[/THINK]",
                                             "[MODEL_SETTINGS]",
                                             "[/MODEL_SETTINGS]"};
  for (size_t i = 0; i < names.size(); ++i) {
    out += std::string(i > 0 ? "," : "") + "{\"rank\":" + std::to_string(i) + ",\"token_str\":\"" +
           names[i] + "\",\"is_control\":true}";
  }
  out += R"(],"version":1,"type":"Tekken","image":{"image_patch_size":14,"max_image_size":1540,)"
         R"("spatial_merge_size":2})";
  if (std::string(version) == "v15") {
    out += R"(,"model_settings_builder":{"reasoning_effort":{"type":"enum","values":["none",)"
           R"("high"],"accepts_none":true,"default":"none"},"json_schema":{"type":"json_schema",)"
           R"("accepts_none":false,"default":null}})";
  }
  return out + "}";
}

std::unique_ptr<ChatService> load(const char* version) {
  Result<std::unique_ptr<Tekken>> tekken = Tekken::parse(small_tekken(version), version);
  if (!tekken) std::fprintf(stderr, "%s\n", tekken.error().message().c_str());
  MistralFormat format;
  format.version = (*tekken)->version();
  format.image = (*tekken)->image_config();
  format.settings = (*tekken)->settings().value_or(TekkenSettings{});
  return std::move(make_mistral_chat(std::move(*tekken), format)).value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::array<std::unique_ptr<ChatService>, 5> chats = {
      load("v3"), load("v7"), load("v11"), load("v13"), load("v15")};
  if (size == 0) return 0;
  const ChatService& chat = *chats[data[0] % chats.size()];
  std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  ChatRequestOptions options;
  options.strict = (data[0] & 0x40) != 0;
  options.image_processing =
      (data[0] & 0x20) != 0 ? ImageProcessing::torch : ImageProcessing::mistral_common;
  options.image_limits.max_pixels = 1 << 20;
  Result<Prompt> prompt = chat.encode(body, options);
  if (!prompt) {
    CHECK(prompt.error().message().size() < 2000);
    CHECK(!prompt.error().kind().empty());
    return 0;
  }
  CHECK(prompt->ids.front() == chat.bos());
  size_t num_bos = 0;
  for (TokenId id : prompt->ids) {
    CHECK(id >= 0 && id < chat.tokenizer().vocab_size());
    num_bos += id == chat.bos();
  }
  CHECK(num_bos == 1);
  for (const Prompt::Image& image : prompt->images) {
    size_t length = static_cast<size_t>(image.columns + 1) * static_cast<size_t>(image.rows);
    CHECK(static_cast<size_t>(image.first) + length <= prompt->ids.size());
  }
  // What is accepted is JSON, and what we write of it reads back the same.
  Result<PyJson> json = parse_python_json(body);
  CHECK(json.has_value());
  std::string dumped = dump_python_json(*json);
  Result<PyJson> again = parse_python_json(dumped);
  CHECK(again.has_value() && dump_python_json(*again) == dumped);
  return 0;
}
