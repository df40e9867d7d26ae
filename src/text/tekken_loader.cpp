// Reading tekken.json. The file has 15 to 20 MB, nearly all of it vocabulary: simdjson reads it in a
// tenth of the time a general DOM takes, which the time to the first token needs.
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/file.h"
#include "text/pre_tokenizer.h"
#include "text/tekken.h"

namespace bise {
namespace {

namespace dom = simdjson::dom;

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr size_t kMaxDepth = 64;
constexpr int64_t kMaxVocabSize = 1 << 22;
constexpr int64_t kMaxSpecialTokens = 1 << 16;
constexpr int64_t kMaxImageSize = 1 << 16;

// Ids 0 to 19 of files that list no special tokens (v3, v7).
constexpr std::string_view kDefaultSpecialTokens[] = {
    "<unk>",       "<s>",           "</s>",          "[INST]",           "[/INST]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]",
    "[IMG]",       "<pad>",         "[IMG_BREAK]",   "[IMG_END]",        "[PREFIX]",
    "[MIDDLE]",    "[SUFFIX]",      "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"};

constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};

Error corrupt(const std::string& path, const std::string& what) {
  return Error(ErrorCode::corrupt, path + ": " + what);
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (char c : text.substr(0, 60)) out.push_back(static_cast<uint8_t>(c) < 32 || c == 127 ? '?' : c);
  return out + (text.size() > 60 ? "…\"" : "\"");
}

std::string found(dom::element value) {
  switch (value.type()) {
    case dom::element_type::ARRAY: return "found a list";
    case dom::element_type::OBJECT: return "found an object";
    case dom::element_type::NULL_VALUE: return "found null";
    default: break;
  }
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return "found " + quote(text);
  return "found " + std::string(simdjson::minify(value));
}

// One named field of an object; `value` is set when the file has it and it is not null.
struct Field {
  std::string_view key;
  std::optional<dom::element> value;
  bool seen = false;
};

// Fills `fields` from `object`. A key that occurs twice is an error, and so is one that is not listed
// when `closed`.
Result<void> read_fields(dom::element value, std::span<Field> fields, bool closed,
                         const std::string& path) {
  dom::object object;
  if (value.get(object) != simdjson::SUCCESS) {
    return corrupt(path, "expected an object, " + found(value));
  }
  for (auto [key, element] : object) {
    Field* match = nullptr;
    for (Field& field : fields) {
      if (field.key == key) match = &field;
    }
    if (match == nullptr) {
      if (closed) return corrupt(path, "unknown field " + quote(key));
      continue;
    }
    if (match->seen) return corrupt(path, "the field " + quote(key) + " occurs twice");
    match->seen = true;
    if (!element.is_null()) match->value = element;
  }
  return {};
}

Result<int64_t> integer(const Field& field, int64_t low, int64_t high, const std::string& path) {
  std::string name = path.empty() ? std::string(field.key) : path + "." + std::string(field.key);
  std::string range = std::to_string(low) + " to " + std::to_string(high);
  if (!field.value) return corrupt(name, "missing; expected an integer from " + range);
  int64_t value = 0;
  if (field.value->get(value) != simdjson::SUCCESS || value < low || value > high) {
    return corrupt(name, found(*field.value) + ", expected an integer from " + range);
  }
  return value;
}

Result<std::string_view> string(const Field& field, const std::string& path) {
  std::string name = path.empty() ? std::string(field.key) : path + "." + std::string(field.key);
  if (!field.value) return corrupt(name, "missing; expected a string");
  std::string_view text;
  if (field.value->get(text) != simdjson::SUCCESS) {
    return corrupt(name, found(*field.value) + ", expected a string");
  }
  return text;
}

// False when the text is not base64 of RFC 4648 with padding.
bool decode_base64(std::string_view text, std::string& out) {
  static constexpr auto kValues = [] {
    std::array<uint8_t, 256> values{};
    for (uint8_t& v : values) v = 255;
    constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (uint8_t i = 0; i < 64; ++i) values[static_cast<uint8_t>(kAlphabet[i])] = i;
    return values;
  }();
  out.clear();
  if (text.size() % 4 != 0) return false;
  while (!text.empty()) {
    size_t digits = text.size() > 4 || text[3] != '=' ? 4 : (text[2] == '=' ? 2 : 3);
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) {
      uint8_t value = i < digits ? kValues[static_cast<uint8_t>(text[i])] : 0;
      if (value == 255) return false;
      bits = bits << 6 | value;
    }
    for (size_t i = 0; i + 1 < digits; ++i) out.push_back(static_cast<char>(bits >> (16 - 8 * i) & 255));
    text.remove_prefix(4);
  }
  return true;
}

std::string load_problem(simdjson::error_code code) {
  switch (code) {
    case simdjson::DEPTH_ERROR: return "nested deeper than " + std::to_string(kMaxDepth) + " levels";
    case simdjson::UTF8_ERROR: return "not valid UTF-8";
    case simdjson::MEMALLOC: return "not enough memory to read it";
    default: break;
  }
  return std::string("not valid JSON: ") + simdjson::error_message(code);
}

}  // namespace

class TekkenLoader {
 public:
  Result<std::unique_ptr<Tekken>> load(std::string_view json) {
    if (json.empty()) {
      return Error(ErrorCode::corrupt, "the file is empty; expected a tekken.json tokenizer file");
    }
    if (json.size() > kMaxFileBytes) {
      return Error(ErrorCode::too_large, "the file has " + std::to_string(json.size()) +
                                             " bytes; a tokenizer file may have " +
                                             std::to_string(kMaxFileBytes));
    }
    dom::parser parser;
    simdjson::error_code code = parser.allocate(json.size() < 64 ? 64 : json.size(), kMaxDepth);
    dom::element root;
    if (code == simdjson::SUCCESS) code = parser.parse(json.data(), json.size()).get(root);
    if (code != simdjson::SUCCESS) {
      return Error(code == simdjson::MEMALLOC ? ErrorCode::out_of_memory : ErrorCode::corrupt,
                   load_problem(code) + "; expected a tekken.json tokenizer file");
    }
    Field fields[] = {{"config", {}},     {"vocab", {}},   {"special_tokens", {}},
                      {"version", {}},    {"type", {}},    {"image", {}},
                      {"multimodal", {}}, {"model_settings_builder", {}}};
    auto& [config, vocab, special_tokens, format, type, image, multimodal, builder] = fields;
    TRY(read_fields(root, fields, false, "the file"));
    TRY(check_format(format, type));
    TRY(load_config(config));
    TRY(load_special_tokens(special_tokens));
    TRY(load_vocab(vocab));
    TRY(load_image(image, multimodal));
    TRY(load_builder(builder));
    return std::move(tekken_);
  }

 private:
  Result<void> check_format(const Field& format, const Field& type) {
    if (format.value) TRY(integer(format, 1, 1, ""));
    if (type.value) {
      std::string_view name = TRY(string(type, ""));
      if (name != "Tekken") return corrupt("type", "found " + quote(name) + ", expected \"Tekken\"");
    }
    return {};
  }

  Result<void> load_config(const Field& field) {
    if (!field.value) return corrupt("config", "missing; expected a tekken.json tokenizer file");
    Field fields[] = {{"version", {}},
                      {"pattern", {}},
                      {"default_vocab_size", {}},
                      {"default_num_special_tokens", {}}};
    auto& [version, pattern, vocab_size, num_special] = fields;
    TRY(read_fields(*field.value, fields, false, "config"));
    std::string_view version_name = TRY(string(version, "config"));
    bool known = false;
    for (TekkenVersion v : {TekkenVersion::v3, TekkenVersion::v7, TekkenVersion::v11,
                            TekkenVersion::v13, TekkenVersion::v15}) {
      if (version_name != tekken_version_name(v)) continue;
      tekken_->version_ = v;
      known = true;
    }
    if (!known) {
      return Error(ErrorCode::unsupported, "config.version: found " + quote(version_name) +
                                               ", expected v3, v7, v11, v13 or v15");
    }
    std::string_view expression = TRY(string(pattern, "config"));
    if (expression != kTekkenPattern) {
      return Error(ErrorCode::unsupported,
                   "config.pattern: found " + quote(expression) +
                       ", expected the one expression that all published tekken files have");
    }
    tekken_->num_special_ =
        static_cast<int32_t>(TRY(integer(num_special, 1, kMaxSpecialTokens, "config")));
    vocab_size_ = TRY(integer(vocab_size, tekken_->num_special_ + 256, kMaxVocabSize, "config"));
    return {};
  }

  Result<void> load_special_tokens(const Field& field) {
    TokenTable& names = tekken_->special_tokens_;
    if (field.value) {
      TRY(read_special_tokens(*field.value));
    } else if (tekken_->version_ > TekkenVersion::v7) {
      return corrupt("special_tokens",
                     "missing; files of version " +
                         std::string(tekken_version_name(tekken_->version_)) + " must list them");
    } else {
      for (std::string_view name : kDefaultSpecialTokens) names.append(name);
    }
    int32_t expected = tekken_->num_special_;
    if (names.size() > expected) {
      return corrupt("special_tokens", "found more than the " + std::to_string(expected) +
                                           " tokens of config.default_num_special_tokens");
    }
    while (names.size() < expected) {
      names.append("<SPECIAL_" + std::to_string(names.size()) + ">");
    }
    int32_t repeat = names.build_index();
    if (repeat != TokenTable::kNone) {
      return corrupt("special_tokens", quote(names[repeat]) + " is listed as id " +
                                           std::to_string(names.find(names[repeat])) +
                                           " and again as id " + std::to_string(repeat) +
                                           "; each name must occur once");
    }
    return {};
  }

  Result<void> read_special_tokens(dom::element value) {
    dom::array list;
    if (value.get(list) != simdjson::SUCCESS) {
      return corrupt("special_tokens", "expected a list, " + found(value));
    }
    int64_t index = 0;
    for (dom::element entry : list) {
      std::string path = "special_tokens[" + std::to_string(index) + "]";
      Field fields[] = {{"rank", {}}, {"token_str", {}}};
      auto& [rank, token_str] = fields;
      TRY(read_fields(entry, fields, false, path));
      // The list is filled up from its length, so a hole would give two tokens one id.
      TRY(integer(rank, index, index, path));
      std::string_view name = TRY(string(token_str, path));
      if (name.empty() || name.size() > kMaxTokenBytes) {
        return corrupt(path + ".token_str", "found " + std::to_string(name.size()) +
                                                " bytes, expected 1 to " +
                                                std::to_string(kMaxTokenBytes));
      }
      tekken_->special_tokens_.append(name);
      if (++index > tekken_->num_special_) break;  // the caller reports it
    }
    return {};
  }

  Result<void> load_vocab(const Field& field) {
    dom::array list;
    if (!field.value) return corrupt("vocab", "missing; expected a list of tokens");
    if (field.value->get(list) != simdjson::SUCCESS) {
      return corrupt("vocab", "expected a list, " + found(*field.value));
    }
    int64_t wanted = vocab_size_ - tekken_->num_special_;
    TokenTable tokens;
    tokens.reserve(std::min<size_t>(static_cast<size_t>(wanted), list.size()), 0);
    std::string bytes;
    for (dom::element entry : list) {
      if (tokens.size() == wanted) break;  // the rest of the file is not part of the vocabulary
      TRY(read_token(entry, tokens.size(), bytes));
      tokens.append(bytes);
    }
    if (tokens.size() < wanted) {
      return corrupt("vocab", "found " + std::to_string(tokens.size()) + " tokens, expected at least " +
                                  std::to_string(wanted) +
                                  " (config.default_vocab_size less the special tokens)");
    }
    int32_t repeat = tokens.build_index();
    if (repeat != TokenTable::kNone) {
      return corrupt("vocab[" + std::to_string(repeat) + "].token_bytes",
                     "the same bytes as vocab[" + std::to_string(tokens.find(tokens[repeat])) +
                         "]; each token must occur once");
    }
    tekken_->bpe_ = RankBpe(std::move(tokens));
    return {};
  }

  // One entry, whose place in the list must be its rank.
  Result<void> read_token(dom::element entry, int64_t index, std::string& bytes) {
    auto path = [&] { return "vocab[" + std::to_string(index) + "]"; };
    dom::object object;
    if (entry.get(object) != simdjson::SUCCESS) {
      return corrupt(path(), "expected an object, " + found(entry));
    }
    int ranks = 0, byte_strings = 0;
    for (auto [key, value] : object) {
      if (key == "rank") {
        int64_t rank = -1;
        if (++ranks > 1 || value.get(rank) != simdjson::SUCCESS || rank != index) {
          return corrupt(path() + ".rank", found(value) + ", expected " + std::to_string(index) + ", once");
        }
      } else if (key == "token_bytes") {
        std::string_view text;
        if (++byte_strings > 1 || value.get(text) != simdjson::SUCCESS || !decode_base64(text, bytes)) {
          return corrupt(path() + ".token_bytes", found(value) + ", expected one string of base64");
        }
      }
    }
    if (ranks == 0 || byte_strings == 0) {
      return corrupt(path(), "rank and token_bytes are needed");
    }
    if (bytes.empty() || bytes.size() > kMaxTokenBytes) {
      return corrupt(path() + ".token_bytes", "found " + std::to_string(bytes.size()) +
                                                  " bytes, expected 1 to " +
                                                  std::to_string(kMaxTokenBytes));
    }
    if (index < 256 && (bytes.size() != 1 || static_cast<uint8_t>(bytes[0]) != index)) {
      return corrupt(path() + ".token_bytes",
                     "expected the single byte " + std::to_string(index) +
                         ": the first 256 tokens are the bytes in order");
    }
    return {};
  }

  Result<void> load_image(const Field& image, const Field& multimodal) {
    // Up to v11 the key may be `multimodal`; where both are there, that one counts. {} means none.
    auto given = [](const Field& field) {
      dom::object object;
      return field.value && (field.value->get(object) != simdjson::SUCCESS || object.size() > 0);
    };
    bool old_key = given(multimodal);
    if (old_key && tekken_->version_ > TekkenVersion::v11) {
      return corrupt("multimodal", std::string("files of version ") +
                                       tekken_version_name(tekken_->version_) +
                                       " must call it \"image\"");
    }
    if (!old_key && !given(image)) return {};
    const Field& section = old_key ? multimodal : image;
    std::string path(section.key);
    Field fields[] = {{"image_patch_size", {}}, {"max_image_size", {}}, {"spatial_merge_size", {}}};
    auto& [patch, max_size, merge] = fields;
    TRY(read_fields(*section.value, fields, true, path));
    TekkenImageConfig config;
    config.patch_size = static_cast<int32_t>(TRY(integer(patch, 1, kMaxImageSize, path)));
    config.max_image_size =
        static_cast<int32_t>(TRY(integer(max_size, config.patch_size, kMaxImageSize, path)));
    if (merge.value) {
      int64_t most = config.max_image_size / config.patch_size;
      config.spatial_merge_size = static_cast<int32_t>(TRY(integer(merge, 1, most, path)));
    }
    tekken_->image_config_ = config;
    return {};
  }

  Result<void> load_builder(const Field& builder) {
    if (!builder.value) return {};
    std::string path = "model_settings_builder";
    if (tekken_->version_ < TekkenVersion::v15) {
      return corrupt(path, std::string("files of version ") + tekken_version_name(tekken_->version_) +
                               " cannot have one; expected v15");
    }
    Field fields[] = {{"reasoning_effort", {}}, {"json_schema", {}}};
    auto& [effort, schema] = fields;
    TRY(read_fields(*builder.value, fields, true, path));
    tekken_->settings_.emplace();
    if (effort.value) TRY(load_effort(*effort.value, path + ".reasoning_effort"));
    if (schema.value) TRY(load_schema(*schema.value, path + ".json_schema"));
    return {};
  }

  static Result<void> expect_type(const Field& type, std::string_view expected,
                                  const std::string& path) {
    if (!type.seen) return {};
    std::string_view name = TRY(string(type, path));
    if (name == expected) return {};
    return corrupt(path + ".type", "found " + quote(name) + ", expected " + quote(expected));
  }

  static Result<void> expect_bool(const Field& field, bool expected, const std::string& path) {
    bool value = false;
    if (!field.seen) return {};
    if (field.value && field.value->get(value) == simdjson::SUCCESS && value == expected) return {};
    return corrupt(path + "." + std::string(field.key),
                   std::string("expected ") + (expected ? "true" : "false"));
  }

  Result<void> load_effort(dom::element value, const std::string& path) {
    Field fields[] = {{"type", {}}, {"values", {}}, {"accepts_none", {}}, {"default", {}}};
    auto& [type, values, accepts_none, default_value] = fields;
    TRY(read_fields(value, fields, true, path));
    TRY(expect_type(type, "enum", path));
    TRY(expect_bool(accepts_none, true, path));
    dom::array list;
    if (!values.value || values.value->get(list) != simdjson::SUCCESS) {
      return corrupt(path + ".values", "expected a list of words");
    }
    TekkenSettings::ReasoningEffort& effort = tekken_->settings_->reasoning_effort.emplace();
    for (dom::element item : list) {
      std::string_view word;
      bool known = false;
      if (item.get(word) == simdjson::SUCCESS) {
        for (std::string_view name : kEfforts) known = known || name == word;
      }
      if (!known) {
        return corrupt(path + ".values",
                       found(item) + ", expected none, minimal, low, medium, high, xhigh or max");
      }
      for (const std::string& earlier : effort.values) {
        if (earlier == word) return corrupt(path + ".values", quote(word) + " occurs twice");
      }
      effort.values.emplace_back(word);
    }
    std::string_view chosen = TRY(string(default_value, path));
    effort.default_value = chosen;
    for (const std::string& word : effort.values) {
      if (word == chosen) return {};
    }
    return corrupt(path + ".default", "found " + quote(chosen) + ", expected one of its values");
  }

  Result<void> load_schema(dom::element value, const std::string& path) {
    Field fields[] = {{"type", {}}, {"accepts_none", {}}, {"default", {}}};
    auto& [type, accepts_none, default_value] = fields;
    TRY(read_fields(value, fields, true, path));
    TRY(expect_type(type, "json_schema", path));
    TRY(expect_bool(accepts_none, false, path));
    if (default_value.value) {
      return corrupt(path + ".default", found(*default_value.value) + ", expected null");
    }
    tekken_->settings_->json_schema = true;
    return {};
  }

  std::unique_ptr<Tekken> tekken_{new Tekken()};
  int64_t vocab_size_ = 0;
};

Result<std::unique_ptr<Tekken>> Tekken::parse(std::string_view json, const std::string& place) {
  return TekkenLoader().load(json).with_context(place);
}

Result<std::unique_ptr<Tekken>> Tekken::open(const std::string& path) {
  FileMap file = TRY(FileMap::open(path));
  return parse(as_text(file.bytes()), path);
}

}  // namespace bise
