// What the server serves: the objects that the program made and joined, by reference. They outlive
// the server. All of it may be used from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "chat/chat_service.h"
#include "engine/engine_thread.h"
#include "engine/sampling_params.h"
#include "model/image.h"

namespace bise {

class StructureCompiler;

struct ServedModel {
  const ChatService* chat = nullptr;
  EngineThread* engine = nullptr;
  const StructureCompiler* structures = nullptr;  // never nullptr; may refuse everything
  std::vector<std::string> names;                 // the first is shown; all are accepted
  std::string root;                               // the path or name that was opened
  int64_t created = 0;                            // seconds since 1970
  int32_t vocab_size = 0;
  std::vector<int32_t> stop_tokens;
  SamplingParams defaults, reasoning_defaults;    // of requests that say nothing
  // A picture ready for the model; empty when the model reads none.
  std::function<Result<ProcessedImage>(Bytes)> process_picture;
  ChatRequestOptions chat_options;
  std::string version;
};

}  // namespace bise
