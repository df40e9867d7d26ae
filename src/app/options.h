// Options that many commands share, their environment twins, and the defaults of sampling.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "engine/sampling_params.h"

namespace CLI {
class App;
}

namespace bise {

struct CommonOptions {
  int threads = 0;  // 0: all usable cores
  std::string isa = "auto";
  std::string numa = "auto";
  std::string precision = "fast";
  std::string kv_cache_dtype = "auto";
  std::string backend = "auto";
  int64_t context = 0;  // tokens; 0: the model's
  uint64_t memory = 0;  // bytes the process may hold; 0: what the machine has left
  uint64_t gpu_memory = 0;  // bytes of the GPU's; 0: what it has left
  bool language_model_only = false;
  bool trust_config = false;
  bool fp8_static_activations = false;
  bool deterministic = false;
  std::string layout = "auto";
  std::string mmproj;
  std::string image_processing = "auto";
  std::string log_level = "warning";
};

// Each option has an environment variable BISE_… that it wins over.
void add_common_options(CLI::App& command, CommonOptions& options);
// Where and how is computed, all that an op needs: threads, precision, backend.
void add_compute_options(CLI::App& command, CommonOptions& options);
// The few of them that make sense without running the model.
void add_file_options(CLI::App& command, CommonOptions& options);

// A log on stderr at options.log_level. The same warning is said once.
Log make_log(const std::string& level);

// What the user asked of the sampler; empty fields take the model's defaults.
struct SamplingOptions {
  std::optional<double> temperature, top_p, min_p;
  std::optional<int32_t> top_k;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  int32_t max_tokens = 0;
};
void add_sampling_options(CLI::App& command, SamplingOptions& options);

// Options over generation_config.json (its text; empty when there is none) over the model card.
// Without a seed one is drawn.
Result<SamplingParams> sampling_params(const SamplingOptions& options,
                                       const std::string& generation_config, bool reasoning);

}  // namespace bise
