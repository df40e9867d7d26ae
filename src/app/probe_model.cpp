// The probes of the number stair: logits, generate, image, tensor.
#include <algorithm>

#include "app/model_source.h"
#include "app/npy.h"
#include "app/probe.h"
#include "app/session.h"
#include "app/terminal.h"
#include "engine/sampler.h"
#include "model/tensor_names.h"

namespace bise {
namespace {

constexpr int64_t kMaxTop = 1000;

// What logits and generate share: a session, prompts as ids or text, pictures as files.
class EngineProbe : public Probe {
 public:
  explicit EngineProbe(std::unique_ptr<Session> session) : session_(std::move(session)) {}

 protected:
  Result<std::vector<int32_t>> prompt(const Json& line) const {
    bool has_ids = json_has(line, "ids"), has_text = json_has(line, "text");
    if (has_ids == has_text) return bad_field("ids", "give either ids or text");
    if (has_ids) return token_ids(line, "ids", session_->model->config().vocab_size);
    if (!session_->chat.service) {
      return Error(ErrorCode::not_found, "the model has no tokenizer; give ids instead of text")
          .with_param("text");
    }
    return session_->chat.service->tokenizer().encode(TRY(json_string(line, "text", "", "")));
  }

  Result<std::vector<ProcessedImage>> pictures(const Json& line) const {
    std::vector<ProcessedImage> images;
    for (const std::string& file : TRY(string_list(line, "images"))) {
      Result<std::string> bytes = read_picture(file);
      if (!bytes) return std::move(bytes).error().with_param("images");
      Result<ProcessedImage> image = process_picture(*session_, as_bytes(*bytes));
      if (!image) return std::move(image).error().with_context(file).with_param("images");
      images.push_back(*std::move(image));
    }
    return images;
  }

  std::unique_ptr<Session> session_;
};

class LogitsProbe : public EngineProbe {
 public:
  using EngineProbe::EngineProbe;

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"ids", "text", "images", "positions", "top", "dump"}));
    std::vector<int32_t> ids = TRY(prompt(line));
    std::vector<ProcessedImage> images = TRY(pictures(line));
    int64_t top = TRY(json_int(line, "top", 20, ""));
    if (top < 0 || top > kMaxTop) {
      return bad_field(
          "top", "is " + std::to_string(top) + ", allowed are 0 to " + std::to_string(kMaxTop));
    }
    std::vector<int32_t> wanted = TRY(positions(line, ids.size()));
    // The engine answers in ascending order; the dump and the lines keep the order of the request.
    std::vector<int32_t> ascending = wanted;
    std::sort(ascending.begin(), ascending.end());
    ascending.erase(std::unique(ascending.begin(), ascending.end()), ascending.end());
    std::string dump = TRY(json_string(line, "dump", "", ""));
    int64_t vocab = session_->model->config().vocab_size;
    std::optional<NpyWriter> file;
    if (!dump.empty()) {
      if (wanted != ascending)
        return bad_field("dump", "needs positions in ascending order, each once");
      file.emplace(TRY(NpyWriter::create(dump, {static_cast<int64_t>(wanted.size()), vocab})));
    }
    std::vector<Json> answers(ascending.size());
    Result<void> written;
    size_t done = 0;
    auto on_logits = [&](int32_t position, std::span<const float> logits) {
      double log_sum = log_sum_exp(logits);
      Json best = Json::array();
      for (const TokenLogprob& token :
           top_logprobs(logits, static_cast<int32_t>(std::min(top, vocab)), log_sum)) {
        best.push_back({token.id, token.logprob});
      }
      if (done < answers.size())
        answers[done++] = {{"position", position}, {"top", best}, {"logsumexp", log_sum}};
      if (file) written = file->write(logits);
      return written.has_value() && !interrupted();
    };
    TRY(session_->engine->score(std::move(ids), std::move(images), ascending, on_logits));
    TRY(std::move(written));
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    if (file) TRY(file->close());
    for (int32_t position : wanted) {
      size_t at = static_cast<size_t>(
          std::lower_bound(ascending.begin(), ascending.end(), position) - ascending.begin());
      TRY(emit(answers[at]));
    }
    return {};
  }

 private:
  // Without the field: the last position, which is that of the next token.
  static Result<std::vector<int32_t>> positions(const Json& line, size_t num_ids) {
    if (num_ids == 0) return bad_field("ids", "the prompt is empty");
    if (!json_has(line, "positions"))
      return std::vector<int32_t>{static_cast<int32_t>(num_ids) - 1};
    std::vector<int32_t> wanted;
    if (line["positions"].is_array()) {
      for (const Json& item : line["positions"]) {
        if (!item.is_number_integer() || item < 0 || item >= num_ids) {
          return bad_field("positions", "item " + std::to_string(wanted.size()) + " is " +
                                            item.dump().substr(0, 40) +
                                            ", expected a position from 0 to " +
                                            std::to_string(num_ids - 1));
        }
        wanted.push_back(item.get<int32_t>());
      }
    }
    if (wanted.empty()) return bad_field("positions", "expected a list of at least one position");
    return wanted;
  }
};

class GenerateProbe : public EngineProbe {
 public:
  using EngineProbe::EngineProbe;

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"ids", "text", "images", "max_tokens", "temperature", "top_p", "top_k",
                            "min_p", "seed", "repetition_penalty", "presence_penalty",
                            "frequency_penalty", "logit_bias", "ignore_eos", "logprobs"}));
    NewSequence sequence;
    sequence.ids = TRY(prompt(line));
    sequence.images = TRY(pictures(line));
    sequence.params = TRY(params(line));
    Json logprobs = Json::array();
    GenerateCallbacks callbacks;
    callbacks.on_prefill = [](int64_t, int64_t) { return !interrupted(); };
    callbacks.on_token = [&](const SampledToken& token) {
      Json top = Json::array();
      for (const TokenLogprob& one : token.top) top.push_back({one.id, one.logprob});
      logprobs.push_back({{"id", token.id}, {"logprob", token.logprob}, {"top", top}});
      return !interrupted();
    };
    bool wants_logprobs = sequence.params.num_logprobs >= 0;
    Generated generated = TRY(session_->engine->generate(std::move(sequence), callbacks));
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    Json out = {{"ids", generated.ids}, {"finish_reason", finish_reason_name(generated.finish)}};
    if (wants_logprobs) out["logprobs"] = logprobs;
    return emit(out);
  }

 private:
  static Result<int32_t> int32(const Json& line, const char* key, int32_t fallback) {
    int64_t value = TRY(json_int(line, key, fallback, ""));
    if (value < INT32_MIN || value > INT32_MAX) return bad_field(key, "is out of range");
    return static_cast<int32_t>(value);
  }

  // Unlike `run`, a probe has no defaults from the checkpoint: what is not said is off, and greedy.
  Result<SamplingParams> params(const Json& line) const {
    SamplingParams params;
    params.temperature = TRY(json_number(line, "temperature", 0.0, ""));
    params.top_p = TRY(json_number(line, "top_p", params.top_p, ""));
    params.top_k = TRY(int32(line, "top_k", params.top_k));
    params.min_p = TRY(json_number(line, "min_p", params.min_p, ""));
    params.repetition_penalty =
        TRY(json_number(line, "repetition_penalty", params.repetition_penalty, ""));
    params.presence_penalty =
        TRY(json_number(line, "presence_penalty", params.presence_penalty, ""));
    params.frequency_penalty =
        TRY(json_number(line, "frequency_penalty", params.frequency_penalty, ""));
    params.max_tokens = TRY(int32(line, "max_tokens", 0));
    params.seed = static_cast<uint64_t>(TRY(json_int(line, "seed", 0, "")));
    params.ignore_eos = TRY(json_bool(line, "ignore_eos", false, ""));
    params.num_logprobs = TRY(int32(line, "logprobs", -1));
    const Json* bias = TRY(json_object(line, "logit_bias", ""));
    if (bias != nullptr) {
      for (const auto& [key, value] : bias->items()) {
        bool digits = !key.empty() && key.size() <= 9 &&
                      key.find_first_not_of("0123456789") == std::string::npos;
        if (!digits || !value.is_number())
          return bad_field("logit_bias", "expected {\"id\": number, …}");
        params.logit_bias[static_cast<int32_t>(std::stol(key))] = value.get<float>();
      }
    }
    params.stop_tokens = session_->stop_tokens;
    TRY(params.validate(session_->model->config().vocab_size));
    return params;
  }
};

// image and tensor need the tables of the model, not its weights in memory.
class FileProbe : public Probe {
 public:
  FileProbe(Checkpoint checkpoint, ModelConfig config, ImageProcessing processing)
      : checkpoint_(std::move(checkpoint)), config_(std::move(config)), processing_(processing) {}

 protected:
  Checkpoint checkpoint_;
  ModelConfig config_;
  ImageProcessing processing_;
};

class ImageProbe : public FileProbe {
 public:
  using FileProbe::FileProbe;

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"file", "out"}));
    std::string file = TRY(json_string(line, "file", "", "")),
                out = TRY(json_string(line, "out", "", ""));
    if (file.empty()) return bad_field("file", "expected the path of a picture");
    if (!config_.vision)
      return Error(ErrorCode::unsupported,
                   "the model has no vision tower and cannot read pictures");
    std::string bytes = TRY(read_picture(file));
    const VisionConfig& vision = *config_.vision;
    ProcessedImage image =
        TRY(load_image(as_bytes(bytes), vision.image_size,
                       vision.patch_size * vision.spatial_merge_size, processing_, {})
                .with_context(file));
    if (!out.empty()) TRY(write_npy(out, {3, image.height, image.width}, image.pixels));
    return emit({{"width", image.width},
                 {"height", image.height},
                 {"rows", image.rows},
                 {"cols", image.columns}});
  }
};

class TensorProbe : public FileProbe {
 public:
  using FileProbe::FileProbe;

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"name", "out"}));
    std::string name = TRY(json_string(line, "name", "", "")),
                out = TRY(json_string(line, "out", "", ""));
    if (name.empty()) return bad_field("name", "expected the name of a tensor");
    DecodedTensor tensor = TRY(decode_tensor(checkpoint_, config_, name));
    if (!out.empty()) TRY(write_npy(out, tensor.shape, tensor.values));
    return emit({{"shape", tensor.shape}, {"format", tensor.format}});
  }
};

template <class T>
Result<std::unique_ptr<Probe>> open_file_probe(const ProbeOptions& options, const Log& log) {
  std::string path = TRY(resolve_model(options.model, model_places_from_environment()));
  Checkpoint checkpoint = TRY(open_checkpoint(path, options.common, log));
  ModelConfig config = TRY(read_model_config(checkpoint, config_options(options.common), log));
  ImageProcessing processing = image_processing(options.common, checkpoint.layout());
  return std::unique_ptr<Probe>(
      std::make_unique<T>(std::move(checkpoint), std::move(config), processing));
}

template <class T>
Result<std::unique_ptr<Probe>> open_engine_probe(const ProbeOptions& options, const Log& log) {
  CommonOptions common = options.common;
  // Numbers of the network are compared with transformers', which resizes its own way whatever the
  // layout; `run`, `chat` and `probe image` follow the layout.
  if (common.image_processing == "auto") common.image_processing = "torch";
  std::unique_ptr<Session> session = TRY(open_session(options.model, {common, false}, log));
  return std::unique_ptr<Probe>(std::make_unique<T>(std::move(session)));
}

}  // namespace

Result<std::unique_ptr<Probe>> create_model_probe(const ProbeOptions& options, const Log& log) {
  if (options.what == "logits") return open_engine_probe<LogitsProbe>(options, log);
  if (options.what == "generate") return open_engine_probe<GenerateProbe>(options, log);
  if (options.what == "image") return open_file_probe<ImageProbe>(options, log);
  if (options.what == "tensor") return open_file_probe<TensorProbe>(options, log);
  return std::unique_ptr<Probe>();
}

}  // namespace bise
