// Tekken: the tokenizer of tekken.json files, versions v3 to v15. It reads vocabulary, special tokens,
// image sizes and the settings builder from the file and leaves the prompt format to the chat floor.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/rank_bpe.h"
#include "text/token_table.h"
#include "text/tokenizer.h"

namespace bise {

enum class TekkenVersion { v3 = 3, v7 = 7, v11 = 11, v13 = 13, v15 = 15 };
const char* tekken_version_name(TekkenVersion version);  // "v3" …

struct TekkenImageConfig {
  int32_t patch_size = 0;          // pixels
  int32_t max_image_size = 0;      // pixels of the longer side
  int32_t spatial_merge_size = 1;  // patches per token and side
};

// What the file's model_settings_builder lets a request set.
struct TekkenSettings {
  struct ReasoningEffort {
    std::vector<std::string> values;  // allowed words, in the file's order; may be empty
    std::string default_value;        // one of `values`
  };
  std::optional<ReasoningEffort> reasoning_effort;  // none: the setting is not supported
  bool json_schema = false;                         // whether a schema is written into the settings
};

class Tekken final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tekken>> open(const std::string& path);
  // `place` (a file name) begins every message.
  static Result<std::unique_ptr<Tekken>> parse(std::string_view json, const std::string& place);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override;
  std::string_view token_bytes(TokenId id) const override;
  bool is_special(TokenId id) const override;
  std::optional<TokenId> special(std::string_view name) const override;
  TokenId vocab_size() const override;

  TekkenVersion version() const { return version_; }
  // Ids below this are special.
  int32_t num_special_tokens() const { return num_special_; }
  const std::optional<TekkenImageConfig>& image_config() const { return image_config_; }
  // Empty when the file has no builder (always below v15).
  const std::optional<TekkenSettings>& settings() const { return settings_; }

 private:
  friend class TekkenLoader;
  Tekken() = default;

  TekkenVersion version_ = TekkenVersion::v15;
  int32_t num_special_ = 0;
  TokenTable special_tokens_;  // names by id
  RankBpe bpe_;  // ranks count from 0; id = rank + num_special_
  std::optional<TekkenImageConfig> image_config_;
  std::optional<TekkenSettings> settings_;
};

}  // namespace bise
