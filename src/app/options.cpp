#include "app/options.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <mutex>
#include <random>
#include <set>

#include "backend/kv_type.h"
#include "base/json.h"

namespace bise {
namespace {

void add_log_level(CLI::App& command, CommonOptions& options) {
  command.add_option("--log-level", options.log_level, "what is told on stderr")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->envname("BISE_LOG_LEVEL")
      ->capture_default_str();
}

}  // namespace

void add_file_options(CLI::App& command, CommonOptions& options) {
  command.add_option("--layout", options.layout, "file layout to read when a folder holds several")
      ->check(CLI::IsMember({"auto", "hf", "mistral", "gguf"}))
      ->envname("BISE_LAYOUT")
      ->capture_default_str();
  command
      .add_option("--mmproj", options.mmproj,
                  "vision projector of a GGUF model (default: mmproj*.gguf beside it)")
      ->envname("BISE_MMPROJ");
  command
      .add_flag("--language-model-only", options.language_model_only,
                "leave the vision tower out; pictures are then refused")
      ->envname("BISE_LANGUAGE_MODEL_ONLY");
  command
      .add_flag("--trust-config", options.trust_config,
                "keep a RoPE configuration that is recognised as wrong instead of correcting it")
      ->envname("BISE_TRUST_CONFIG");
  add_log_level(command, options);
}

void add_compute_options(CLI::App& command, CommonOptions& options) {
  command.add_option("--threads", options.threads, "CPU threads; 0: all usable cores")
      ->check(CLI::Range(0, 1024))
      ->envname("BISE_THREADS")
      ->capture_default_str();
  command
      .add_option("--numa", options.numa,
                  "where the machine has several memory nodes; auto: threads are bound to them and each node keeps the "
                  "weights that its threads read")
      ->check(CLI::IsMember({"auto", "off"}))
      ->envname("BISE_NUMA")
      ->capture_default_str();
  command
      .add_option("--precision", options.precision,
                  "fast, or reference: float32 activations, at least float32 sums, KV in float32")
      ->check(CLI::IsMember({"fast", "reference"}))
      ->envname("BISE_PRECISION")
      ->capture_default_str();
  command
      .add_flag("--deterministic", options.deterministic,
                "the same bits for a token in a prompt of any length, in chunks and in any company, also where "
                "products in BF16 (AMX, AVX512-BF16) would be faster")
      ->envname("BISE_DETERMINISTIC");
  command.add_option("--backend", options.backend, "where the model runs")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->envname("BISE_BACKEND")
      ->capture_default_str();
}

void add_common_options(CLI::App& command, CommonOptions& options) {
  add_compute_options(command, options);
  command.add_option("--isa", options.isa, "CPU instruction set; auto: the best this CPU has")
      ->check(CLI::IsMember({"auto", "scalar", "avx2", "avx512", "avx512_bf16", "amx"}))
      ->envname("BISE_ISA")
      ->capture_default_str();
  std::vector<std::string> kv_types = kv_type_names();
  kv_types.insert(kv_types.begin(), "auto");
  command
      .add_option("--kv-cache-dtype", options.kv_cache_dtype,
                  "type of the KV cache: bf16, f16, f32, fp8 (E4M3), int8, int4; auto: bf16, with --precision "
                  "reference f32")
      ->check(CLI::IsMember(kv_types))
      ->envname("BISE_KV_CACHE_DTYPE")
      ->capture_default_str();
  command
      .add_option(
          "--context", options.context,
          "largest prompt and answer together, in tokens; 0: the model's")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
      ->envname("BISE_CONTEXT")
      ->capture_default_str();
  command
      .add_option("--memory", options.memory,
                  "memory that may be held, such as 16GiB; what does not fit is read from the disk "
                  "for every token; 0: what the machine has left")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->envname("BISE_MEMORY")
      ->capture_default_str();
  command
      .add_option("--gpu-memory", options.gpu_memory,
                  "memory of the GPU that may be taken, such as 16GiB; layers that do not fit are computed by the CPU; "
                  "0: what the GPU has left")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->envname("BISE_GPU_MEMORY")
      ->capture_default_str();
  command
      .add_flag("--fp8-static-activations", options.fp8_static_activations,
                "quantise the inputs of FP8 layers by the checkpoint's scales, as GPUs do")
      ->envname("BISE_FP8_STATIC_ACTIVATIONS");
  command
      .add_option("--image-processing", options.image_processing,
                  "whose image resizing is reproduced; auto: mistral-common for consolidated "
                  "checkpoints, else torch (transformers); probe logits and generate: torch")
      ->check(CLI::IsMember({"auto", "torch", "mistral-common"}))
      ->envname("BISE_IMAGE_PROCESSING")
      ->capture_default_str();
  add_file_options(command, options);
}

Log make_log(const std::string& level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("bise", sink);
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(level == "debug"   ? spdlog::level::debug
                    : level == "info"  ? spdlog::level::info
                    : level == "error" ? spdlog::level::err
                                       : spdlog::level::warn);
  struct Said {
    std::mutex mutex;
    std::set<std::string> texts;
  };
  auto said = std::make_shared<Said>();
  return Log([logger, said](LogLevel log_level, const std::string& text) {
    switch (log_level) {
      case LogLevel::debug: logger->debug(text); break;
      case LogLevel::info: logger->info(text); break;
      case LogLevel::warning: {
        std::lock_guard lock(said->mutex);
        if (said->texts.insert(text).second) logger->warn(text);
        break;
      }
      case LogLevel::error: logger->error(text); break;
    }
  });
}

void add_sampling_options(CLI::App& command, SamplingOptions& options) {
  command
      .add_option("--max-tokens", options.max_tokens,
                  "longest answer in tokens; 0: to the end of the context")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command
      .add_option("--temperature", options.temperature,
                  "0: greedy (default: the checkpoint's generation_config.json, else 0.7)")
      ->check(CLI::Range(0.0, 2.0));
  command
      .add_option("--top-p", options.top_p,
                  "nucleus, above 0 (default: generation_config.json, else 0.95 with reasoning, 1 "
                  "without)")
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--top-k", options.top_k,
                  "keep the k best tokens; 0: all (default: generation_config.json, else 0)")
      ->check(CLI::Range(-1, 1 << 24));
  command
      .add_option("--min-p", options.min_p,
                  "drop tokens less likely than this share of the best one (default: "
                  "generation_config.json, else 0)")
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--repetition-penalty", options.repetition_penalty,
                  "over prompt and answer; 1: none (default: generation_config.json, else 1)")
      ->check(CLI::Range(0.01, 100.0));
  command
      .add_option("--presence-penalty", options.presence_penalty, "over the answer (default: 0)")
      ->check(CLI::Range(-2.0, 2.0));
  command
      .add_option("--frequency-penalty", options.frequency_penalty, "over the answer (default: 0)")
      ->check(CLI::Range(-2.0, 2.0));
  command.add_option("--seed", options.seed,
                     "the same seed gives the same text (default: a new one each time)");
}

Result<SamplingParams> sampling_params(const SamplingOptions& options,
                                       const std::string& generation_config, bool reasoning) {
  SamplingParams params;
  params.temperature = 0.7;
  params.top_p = reasoning ? 0.95 : 1.0;
  if (!generation_config.empty()) {
    const std::string path = "generation_config.json";
    Json config = TRY(parse_json(generation_config).with_context(path));
    if (!config.is_object()) {
      return Error(ErrorCode::corrupt,
                   path + ": expected an object, found " + json_type_name(config));
    }
    params.temperature = TRY(json_number(config, "temperature", params.temperature, path));
    params.top_p = TRY(json_number(config, "top_p", params.top_p, path));
    params.top_k = static_cast<int32_t>(TRY(json_int(config, "top_k", params.top_k, path)));
    params.min_p = TRY(json_number(config, "min_p", params.min_p, path));
    params.repetition_penalty =
        TRY(json_number(config, "repetition_penalty", params.repetition_penalty, path));
    // A checkpoint that says so is meant to be decoded greedily.
    if (!TRY(json_bool(config, "do_sample", true, path))) params.temperature = 0.0;
  }
  if (options.temperature) params.temperature = *options.temperature;
  if (options.top_p) params.top_p = *options.top_p;
  if (options.top_k) params.top_k = *options.top_k;
  if (options.min_p) params.min_p = *options.min_p;
  if (options.repetition_penalty) params.repetition_penalty = *options.repetition_penalty;
  if (options.presence_penalty) params.presence_penalty = *options.presence_penalty;
  if (options.frequency_penalty) params.frequency_penalty = *options.frequency_penalty;
  params.max_tokens = options.max_tokens;
  if (options.seed) {
    params.seed = *options.seed;
  } else {
    std::random_device random;
    params.seed = (uint64_t{random()} << 32) | random();
    // JSON readers hold integers in doubles; a drawn seed should survive being copied from there.
    params.seed &= (uint64_t{1} << 53) - 1;
  }
  return params;
}

}  // namespace bise
