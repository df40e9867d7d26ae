#include "chat/gguf_chat.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "chat/chat_service.h"
#include "io/gguf.h"
#include "support/byte_tokenizer.h"
#include "text/gguf_bpe.h"

namespace bise {
namespace {

struct Warnings {
  int count = 0;
  Log log{[this](LogLevel level, const std::string&) { count += level == LogLevel::warning; }};
};

MistralFormat find(const std::vector<std::string>& names, const std::string& chat_template,
                   int expected_warnings = 0) {
  ByteTokenizer tokenizer(names);
  Warnings warnings;
  MistralFormat format = find_mistral_format(tokenizer, chat_template, warnings.log);
  EXPECT_EQ(warnings.count, expected_warnings);
  return format;
}

TEST(gguf_chat, the_tekken_version_is_found_from_special_tokens_and_template) {
  EXPECT_EQ(find({"[INST]"}, "").version, TekkenVersion::v3);
  EXPECT_EQ(find({"[INST]", "[SYSTEM_PROMPT]"}, "").version, TekkenVersion::v7);
  EXPECT_EQ(find({"[SYSTEM_PROMPT]", "[ARGS]"}, "[CALL_ID]' ~ id ~ '[ARGS]").version,
            TekkenVersion::v11);
  EXPECT_EQ(find({"[SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]"}, "[ARGS]").version, TekkenVersion::v13);
  EXPECT_EQ(find({"[SYSTEM_PROMPT]", "[ARGS]"}, "", 1).version, TekkenVersion::v13);
}

TEST(gguf_chat, the_settings_are_read_from_the_template) {
  const std::vector<std::string> names = {"[ARGS]", "[MODEL_SETTINGS]"};
  MistralFormat format = find(names,
                              "{%- set reasoning_effort = 'low' %}{%- if reasoning_effort not in "
                              "['none', \"low\", 'high'] %}raise{%- endif %}");
  EXPECT_EQ(format.version, TekkenVersion::v15);
  ASSERT_TRUE(format.settings.reasoning_effort);
  EXPECT_EQ(format.settings.reasoning_effort->values,
            (std::vector<std::string>{"none", "low", "high"}));
  EXPECT_EQ(format.settings.reasoning_effort->default_value, "low");
  format = find(names, "", 1);
  EXPECT_EQ(format.settings.reasoning_effort->values, (std::vector<std::string>{"none", "high"}));
  EXPECT_EQ(format.settings.reasoning_effort->default_value, "none");
}

// The metadata of a GGUF, as bytes.
class GgufWriter {
 public:
  void text(const std::string& key, const std::string& value) {
    entry(key, 8);
    string(value);
  }
  void texts(const std::string& key, const std::vector<std::string>& values) {
    entry(key, 9);
    number<uint32_t>(8);
    number<uint64_t>(values.size());
    for (const std::string& value : values) string(value);
  }
  void integers(const std::string& key, const std::vector<int32_t>& values) {
    entry(key, 9);
    number<uint32_t>(5);
    number<uint64_t>(values.size());
    for (int32_t value : values) number(value);
  }
  std::string file() const {
    std::string bytes = "GGUF";
    append<uint32_t>(bytes, 3);
    append<uint64_t>(bytes, 0);
    append<uint64_t>(bytes, num_entries_);
    bytes += body_;
    bytes.resize((bytes.size() + 31) / 32 * 32);
    return bytes;
  }

 private:
  template <class T>
  static void append(std::string& bytes, T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes.append(raw, sizeof(T));
  }
  template <class T>
  void number(T value) {
    append(body_, value);
  }
  void string(const std::string& value) {
    number<uint64_t>(value.size());
    body_ += value;
  }
  void entry(const std::string& key, uint32_t type) {
    string(key);
    number(type);
    ++num_entries_;
  }
  std::string body_;
  uint64_t num_entries_ = 0;
};

std::string gguf_file(const std::string& pre, const std::string& chat_template,
                      const std::vector<std::string>& special) {
  std::vector<std::string> tokens = special;
  std::vector<int32_t> types(special.size(), 3);
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
    types.push_back(1);
  }
  GgufWriter writer;
  writer.text("tokenizer.ggml.model", "gpt2");
  writer.text("tokenizer.ggml.pre", pre);
  writer.texts("tokenizer.ggml.tokens", tokens);
  writer.integers("tokenizer.ggml.token_type", types);
  writer.texts("tokenizer.ggml.merges", {});
  if (!chat_template.empty()) writer.text("tokenizer.chat_template", chat_template);
  return writer.file();
}

std::string format_of(const std::string& bytes) {
  auto file = GgufFile::parse(as_bytes(bytes), "model.gguf");
  if (!file) return file.error().message();
  auto chat = create_gguf_chat(*file, {});
  return chat ? (*chat)->format_name() : chat.error().message();
}

TEST(gguf_chat, the_vocabulary_chooses_the_format) {
  const std::vector<std::string> chatml = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  EXPECT_EQ(format_of(gguf_file("smollm", "{{'<|im_start|>' + role}}", chatml)), "chatml");
  EXPECT_EQ(format_of(gguf_file("smollm", "", chatml)), "chatml");
  const std::vector<std::string> mistral = {"<unk>",
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
                                            "[IMG_BREAK]",
                                            "[IMG_END]",
                                            "[SYSTEM_PROMPT]",
                                            "[/SYSTEM_PROMPT]",
                                            "[TOOL_CONTENT]",
                                            "[ARGS]",
                                            "[CALL_ID]",
                                            "[THINK]",
                                            "[/THINK]",
                                            "[MODEL_SETTINGS]",
                                            "[/MODEL_SETTINGS]"};
  EXPECT_EQ(format_of(gguf_file("tekken", "not in ['none', 'high']", mistral)), "mistral v15");
}

TEST(gguf_chat, a_foreign_format_is_refused_and_says_so) {
  std::string message = format_of(gguf_file("smollm", "[INST]", {"<|im_start|>", "<|im_end|>"}));
  EXPECT_NE(message.find("model.gguf"), std::string::npos) << message;
  EXPECT_NE(message.find("tokenizer.chat_template is not ChatML"), std::string::npos) << message;
  message = format_of(gguf_file("smollm", "", {"<s>"}));
  EXPECT_NE(message.find("<|im_start|>"), std::string::npos) << message;
  message = format_of(gguf_file("klingon", "", {"<s>"}));
  EXPECT_NE(message.find("klingon"), std::string::npos) << message;
}

}  // namespace
}  // namespace bise
