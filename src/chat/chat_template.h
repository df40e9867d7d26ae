// MistralTemplate: a validated, imported request as token ids, for tokenizer versions v3 to v15. It
// writes structure as ids and text as text, so nothing a client sends can become a control token.
// No template language is involved: the formats differ by version in the few places seen in the
// .cpp.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat/chat_service.h"
#include "chat/chat_types.h"
#include "text/tekken.h"

namespace bise {

// What a tokenizer file says about the prompt format.
struct MistralFormat {
  TekkenVersion version = TekkenVersion::v15;
  std::optional<TekkenImageConfig> image;
  TekkenSettings settings;  // v15 only
};

class MistralTemplate {
 public:
  // The tokenizer must outlive the template. An Error when a control token of the version is
  // missing.
  static Result<MistralTemplate> create(const Tokenizer& tokenizer, const MistralFormat& format);

  Result<Prompt> encode(ChatRequest request, const ChatRequestOptions& options) const;

  const MistralFormat& format() const { return format_; }
  TokenId bos() const { return bos_; }
  TokenId eos() const { return eos_; }

 private:
  friend class PromptWriter;
  explicit MistralTemplate(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  const Tokenizer* tokenizer_;
  MistralFormat format_;
  TokenId bos_ = -1, eos_ = -1, inst_ = -1, inst_end_ = -1;
  TokenId tools_ = -1, tools_end_ = -1, results_ = -1, results_end_ = -1, calls_ = -1;
  TokenId system_ = -1, system_end_ = -1, content_ = -1;    // from v7
  TokenId args_ = -1, call_id_ = -1;                        // from v11
  TokenId think_ = -1, think_end_ = -1;                     // v13 up; -1 when the file has none
  TokenId settings_ = -1, settings_end_ = -1;               // v15
  TokenId image_ = -1, image_break_ = -1, image_end_ = -1;  // with an image config
};

}  // namespace bise
