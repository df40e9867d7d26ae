// Session: everything that one model needs to run, opened in order from the options of a command:
// checkpoint, chat service, backend, model, engine. Members are destroyed in the reverse order.
#pragma once

#include <memory>
#include <string>

#include "app/model_files.h"
#include "app/options.h"
#include "app/out_of_core.h"
#include "backend/backend.h"
#include "base/error.h"
#include "engine/engine.h"
#include "io/checkpoint.h"
#include "model/model.h"

namespace bise {

struct Session {
  std::string path;
  Log log;
  ImageProcessing processing = ImageProcessing::torch;
  std::unique_ptr<Checkpoint> checkpoint;
  OpenChat chat;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;
  std::string generation_config;  // text of generation_config.json, or empty
  std::vector<int32_t> stop_tokens;
  double load_seconds = 0;
  StreamForecast forecast;  // of a step, when weights stream
};

struct SessionOptions {
  CommonOptions common;
  // False where only ids go in and out: a model without a tokenizer can be opened.
  bool needs_text = true;
  // False for a caller that makes an engine of its own when it knows the model.
  bool makes_engine = true;
};

// The backend and the engine that the options ask for.
Result<std::unique_ptr<Backend>> open_backend(const CommonOptions& options, const Log& log = Log());
EngineOptions engine_options(const CommonOptions& options);
// With the context that the session's memory has room for.
EngineOptions engine_options(const Session& session, const CommonOptions& options);

// Shows a progress bar on a terminal. Ctrl-C while loading is an Error with ErrorCode::cancelled.
Result<std::unique_ptr<Session>> open_session(const std::string& model,
                                              const SessionOptions& options, const Log& log);

// A picture ready for the model. Error when the model has no vision part.
Result<ProcessedImage> process_picture(const Session& session, Bytes bytes);
Result<std::string> read_picture(const std::string& path);

}  // namespace bise
