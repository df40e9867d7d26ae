#include "app/model_files.h"

#include "text/tekken.h"

namespace bise {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

Result<OpenChat> open_tekken(const std::string& path) {
  OpenChat chat;
  chat.path = path;
  chat.service = TRY(create_mistral_chat(path));
  return chat;
}

Result<OpenChat> open_gguf_chat(const std::string& path, const VisionConfig* vision,
                                const Log& log) {
  OpenChat chat;
  chat.path = path;
  chat.gguf = std::make_unique<GgufFile>(TRY(GgufFile::open(path)));
  // The original file beside a conversion says more (version, settings) than its metadata; a file
  // that merely lies in the same folder as a model of another vocabulary says nothing.
  std::string beside = parent_folder(path) + "/tekken.json";
  if (file_exists(beside) && TRY(chat.gguf->get_string("tokenizer.ggml.pre", "")) == "tekken") {
    return open_tekken(beside);
  }
  TekkenImageConfig image;
  if (vision != nullptr) {
    image.patch_size = vision->patch_size;
    image.max_image_size = vision->image_size;
    image.spatial_merge_size = vision->spatial_merge_size;
  }
  chat.service = TRY(
      create_gguf_chat(*chat.gguf, log, vision == nullptr ? nullptr : &image).with_context(path));
  return chat;
}

}  // namespace

Result<Checkpoint> open_checkpoint(const std::string& path, const CommonOptions& options,
                                   const Log& log) {
  CheckpointOptions wanted;
  if (options.layout == "hf") wanted.layout = Layout::hf;
  if (options.layout == "mistral") wanted.layout = Layout::mistral;
  if (options.layout == "gguf") wanted.layout = Layout::gguf;
  wanted.mmproj = options.mmproj;
  wanted.language_model_only = options.language_model_only;
  return Checkpoint::open(path, wanted, log);
}

ConfigOptions config_options(const CommonOptions& options) {
  ConfigOptions wanted;
  wanted.trust_config = options.trust_config;
  wanted.language_model_only = options.language_model_only;
  return wanted;
}

std::string parent_folder(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

Result<OpenChat> open_chat(const std::string& path, const VisionConfig* vision, const Log& log) {
  if (ends_with(path, ".json")) return open_tekken(path);
  if (ends_with(path, ".gguf")) return open_gguf_chat(path, vision, log);
  if (file_exists(path + "/tekken.json")) return open_tekken(path + "/tekken.json");
  if (file_exists(path + "/tokenizer.json")) {
    return Error(ErrorCode::unsupported,
                 path +
                     " has tokenizer.json but no tekken.json; put the tekken.json of the model "
                     "beside it (the Mistral repositories publish both)");
  }
  return Error(ErrorCode::not_found, path + " has no tokenizer; expected tekken.json in it");
}

Error vocabulary_mismatch(const OpenChat& chat, const ModelConfig& config) {
  return Error(ErrorCode::invalid_argument,
               chat.path + ": the tokenizer has " +
                   std::to_string(chat.service->tokenizer().vocab_size()) +
                   " tokens, the model's vocabulary " + std::to_string(config.vocab_size) +
                   "; use the tokenizer file that was published with the model");
}

ImageProcessing image_processing(const CommonOptions& options, Layout layout) {
  if (options.image_processing == "torch") return ImageProcessing::torch;
  if (options.image_processing == "mistral-common") return ImageProcessing::mistral_common;
  return layout == Layout::mistral ? ImageProcessing::mistral_common : ImageProcessing::torch;
}

}  // namespace bise
