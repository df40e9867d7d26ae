// From a resolved path to the checkpoint and the chat service of a model, without running anything.
#pragma once

#include <memory>
#include <string>

#include "app/options.h"
#include "base/error.h"
#include "base/log.h"
#include "chat/chat_service.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "model/model_config.h"

namespace bise {

Result<Checkpoint> open_checkpoint(const std::string& path, const CommonOptions& options,
                                   const Log& log);
ConfigOptions config_options(const CommonOptions& options);

// Tokenizer and chat format. The GGUF stays open with the service that reads from it.
struct OpenChat {
  std::unique_ptr<GgufFile> gguf;
  std::unique_ptr<ChatService> service;
  std::string path;  // the file that the tokenizer came from
};
// `path`: a tekken.json, a model folder or a .gguf file. `vision`: the sizes of the model's vision
// tower where they are known; a GGUF's tokenizer does not bring them along.
Result<OpenChat> open_chat(const std::string& path, const VisionConfig* vision, const Log& log);
// "." for a bare file name.
std::string parent_folder(const std::string& path);

// A tokenizer of another vocabulary than the model's, with both numbers.
Error vocabulary_mismatch(const OpenChat& chat, const ModelConfig& config);

// Whose resizing is reproduced for this checkpoint.
ImageProcessing image_processing(const CommonOptions& options, Layout layout);

}  // namespace bise
