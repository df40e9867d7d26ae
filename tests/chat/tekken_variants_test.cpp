#include "chat/tekken_variants.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <map>

#include "chat/mistral_chat.h"
#include "chat/python_json.h"

namespace bise {
namespace {

std::string gunzip(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  CHECK(file != nullptr);
  std::string out;
  char buffer[1 << 16];
  for (int n = 0; (n = gzread(file, buffer, sizeof buffer)) > 0;) {
    out.append(buffer, static_cast<size_t>(n));
  }
  gzclose(file);
  return out;
}

// What follows the vocabulary in the file, for a version: special tokens, image sizes, settings.
std::string tail_of(const std::string& variant) {
  if (variant == "v3") {
    return R"(,"version":1,"type":"Tekken","multimodal":{"image_patch_size":16,"max_image_size":1024}})";
  }
  const std::map<std::string, size_t> last = {
      {"v7", 19}, {"v11", 33}, {"v13", 35}, {"v15", 37}, {"v15x", 37}};
  const std::map<size_t, std::string> names = {{0, "<unk>"},
                                               {1, "<s>"},
                                               {2, "</s>"},
                                               {3, "[INST]"},
                                               {4, "[/INST]"},
                                               {5, "[AVAILABLE_TOOLS]"},
                                               {6, "[/AVAILABLE_TOOLS]"},
                                               {7, "[TOOL_RESULTS]"},
                                               {8, "[/TOOL_RESULTS]"},
                                               {9, "[TOOL_CALLS]"},
                                               {10, "[IMG]"},
                                               {11, "<pad>"},
                                               {12, "[IMG_BREAK]"},
                                               {13, "[IMG_END]"},
                                               {14, "[PREFIX]"},
                                               {15, "[MIDDLE]"},
                                               {16, "[SUFFIX]"},
                                               {17, "[SYSTEM_PROMPT]"},
                                               {18, "[/SYSTEM_PROMPT]"},
                                               {19, "[TOOL_CONTENT]"},
                                               {32, "[ARGS]"},
                                               {33, "[CALL_ID]"},
                                               {34, "[THINK]"},
                                               {35, "[/THINK]"},
                                               {36, "[MODEL_SETTINGS]"},
                                               {37, "[/MODEL_SETTINGS]"}};
  std::string out = ",\"special_tokens\":[";
  for (size_t i = 0; i < (variant == "v7" ? 20 : 1000); ++i) {
    auto name = names.find(i);
    std::string text = name != names.end() && i <= last.at(variant)
                           ? name->second
                           : "<SPECIAL_" + std::to_string(i) + ">";
    out += (i > 0 ? "," : "") + std::string("{\"rank\":") + std::to_string(i) +
           ",\"token_str\":\"" + text + "\",\"is_control\":true}";
  }
  out += R"(],"version":1,"type":"Tekken",)";
  out += variant == "v7" ? "\"multimodal\"" : "\"image\"";
  out += R"(:{"image_patch_size":14,"max_image_size":1540,"spatial_merge_size":2})";
  if (variant == "v15") {
    out +=
        R"(,"model_settings_builder":{"reasoning_effort":{"type":"enum","values":["none","high"],)"
        R"("accepts_none":true,"default":"none"}})";
  } else if (variant == "v15x") {
    out += R"(,"model_settings_builder":{"reasoning_effort":{"type":"enum","values":["none",)"
           R"("minimal","low","medium","high","xhigh","max"],"accepts_none":true,)"
           R"("default":"medium"},"json_schema":{"type":"json_schema","accepts_none":false,)"
           R"("default":null}})";
  }
  return out + "}";
}

std::unique_ptr<ChatService> load(const std::string& variant) {
  std::string text = gunzip(std::string(BISE_GOLDEN_DIR) + "/chat/tekken.json.gz");
  const std::string version = "\"version\":\"v15\"";
  size_t at = text.find(version);
  size_t tail = text.rfind(",\"special_tokens\":[");
  CHECK(at != std::string::npos && tail != std::string::npos && at < tail);
  std::string wanted = "\"version\":\"" + (variant == "v15x" ? "v15" : variant) + "\"";
  text = text.substr(0, at) + wanted +
         text.substr(at + version.size(), tail - at - version.size()) + tail_of(variant);
  Result<std::unique_ptr<Tekken>> tekken = Tekken::parse(text, variant);
  if (!tekken) std::fprintf(stderr, "%s\n", tekken.error().message().c_str());
  MistralFormat format;
  format.version = (*tekken)->version();
  format.image = (*tekken)->image_config();
  format.settings = (*tekken)->settings().value_or(TekkenSettings{});
  return std::move(make_mistral_chat(std::move(*tekken), format)).value();
}

}  // namespace

const ChatService& chat_of(const std::string& variant) {
  static std::map<std::string, std::unique_ptr<ChatService>> loaded;
  std::unique_ptr<ChatService>& chat = loaded[variant];
  if (chat == nullptr) chat = load(variant);
  return *chat;
}

TEST(TekkenVariants, every_version_names_its_format) {
  EXPECT_EQ(chat_of("v3").format_name(), "mistral v3");
  EXPECT_EQ(chat_of("v7").format_name(), "mistral v7");
  EXPECT_EQ(chat_of("v11").format_name(), "mistral v11");
  EXPECT_EQ(chat_of("v13").format_name(), "mistral v13");
  EXPECT_EQ(chat_of("v15").format_name(), "mistral v15");
  EXPECT_TRUE(chat_of("v13").reasoning_efforts().empty());
  EXPECT_EQ(chat_of("v15").reasoning_efforts(), (std::vector<std::string>{"none", "high"}));
  EXPECT_EQ(chat_of("v15x").reasoning_efforts().size(), 7u);
  EXPECT_EQ(chat_of("v15").stop_tokens(), std::vector<TokenId>{2});
  EXPECT_EQ(chat_of("v15").bos(), 1);
  EXPECT_TRUE(chat_of("v15").supports_images());
}

}  // namespace bise
