// ChatService: tokenizer and chat format of one model; the only door for the CLI (and, later, the
// server). It turns a chat-completions body into a Prompt and token ids into events.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "chat/image_url.h"
#include "model/image.h"
#include "text/tokenizer.h"

namespace bise {

class GgufFile;
class PyJson;
struct TekkenImageConfig;

// Token ids with image slots already expanded to their grids.
struct Prompt {
  struct Image {
    std::string bytes;     // the file as it came
    int32_t first = 0;     // index in ids of its first token
    int32_t rows = 0, columns = 0;  // merged patches
  };
  std::vector<TokenId> ids;
  std::vector<Image> images;
  bool starts_in_thinking = false;  // the prompt ends inside an open thinking chunk
};

// What comes out of a stream of token ids.
struct ChatEvent {
  enum class Kind { content, reasoning, tool_call_begin, tool_call_arguments, finish };
  Kind kind = Kind::content;
  std::string text;         // content, reasoning, or a piece of arguments
  int32_t call_index = -1;  // tool calls count from 0
  std::string call_id, call_name;  // tool_call_begin only
  std::string finish_reason;       // finish only: stop | length | tool_calls
};

struct ChatRequestOptions {
  bool strict = false;                 // mistral-common's rules in serving mode; else the lenient ones
  bool allow_files = false;            // file:// images (CLI yes, server only below a folder)
  std::string file_root;               // empty: any file; else only regular files below this folder
  // The bytes of http and https images (remote_images tells which); nullptr: they are refused. Lives
  // as long as the call.
  const FetchedImages* fetched_images = nullptr;
  ImageProcessing image_processing = ImageProcessing::torch;
  ImageLimits image_limits;
};

// State of one answer: ids in, events out. Not thread-safe.
class ChatStream {
 public:
  virtual ~ChatStream() = default;
  virtual std::vector<ChatEvent> push(TokenId id) = 0;
  // `reason` "stop" or "length": why the engine stopped. The last event is `finish`.
  virtual std::vector<ChatEvent> finish(const std::string& reason) = 0;
};

class ChatService {
 public:
  virtual ~ChatService() = default;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual std::string format_name() const = 0;  // "mistral v15", "chatml"
  virtual std::vector<TokenId> stop_tokens() const = 0;
  virtual TokenId bos() const = 0;  // -1: none
  virtual bool supports_images() const = 0;
  // Effort words the tokenizer's settings builder lists; empty when it has none.
  virtual std::vector<std::string> reasoning_efforts() const = 0;
  // `body`: a chat-completions request as JSON text. Errors carry kind() and param().
  Result<Prompt> encode(std::string_view body, const ChatRequestOptions& options) const;
  // The same of a body that was parsed already.
  virtual Result<Prompt> encode(const PyJson& body, const ChatRequestOptions& options) const = 0;
  // seed makes the ids of tool calls; `starts_in_thinking` from the Prompt.
  virtual std::unique_ptr<ChatStream> start(bool starts_in_thinking, uint64_t seed) const = 0;
};

// From a tekken.json file (Mistral formats v3 … v15).
Result<std::unique_ptr<ChatService>> create_mistral_chat(const std::string& tekken_path);
// From a GGUF's metadata: ChatML for the smollm vocabulary, Mistral where the vocabulary is tekken's.
// `image`: the sizes of the vision projector, which is another file; nullptr: no pictures.
Result<std::unique_ptr<ChatService>> create_gguf_chat(const GgufFile& file, const Log& log,
                                                      const TekkenImageConfig* image = nullptr);

}  // namespace bise
