// ModelConfig: the shape of decoder, vision tower and RoPE, from config.json, params.json or GGUF
// metadata. A value, validated once when it is read; everything behind it may trust it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "base/log.h"
#include "io/checkpoint.h"

namespace bise {

// YaRN as transformers defines it (Peng et al. 2023; modeling_rope_utils.py of 5.23.0).
struct RopeConfig {
  double theta = 10000.0;
  bool yarn = false;
  double factor = 1.0;
  int64_t original_context = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
  double attention_factor = 1.0;  // A: multiplied into cosine and sine
  double query_scaling_beta = 0.0;  // llama_4_scaling_beta; 0 = off
};

struct VisionConfig {
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate_size = 0;
  int32_t patch_size = 14;
  int32_t image_size = 1540;  // longest edge, pixels
  int32_t spatial_merge_size = 2;
  double rope_theta = 10000.0;
  float norm_eps = 1e-5f;            // of the tower
  float projector_norm_eps = 1e-5f;  // the text decoder's
  Activation act = Activation::silu;
  Activation projector_act = Activation::gelu_erf;
  bool projector_bias = false;
  int32_t image_token = 10;
  int32_t image_break_token = 12;
  int32_t image_end_token = 13;
};

struct ModelConfig {
  std::string architecture;  // "ministral3", "mistral", "llama"
  std::string name;          // general.name of a GGUF, else ""
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate_size = 0;
  int32_t vocab_size = 0;
  float norm_eps = 1e-5f;
  int64_t context_length = 0;
  int32_t sliding_window = 0;
  bool tied = false;  // decided by the tensors: no head in the file means tied
  RopeConfig rope;
  std::optional<VisionConfig> vision;
  std::vector<int32_t> eos_tokens;
  // What the reader noticed; each is also logged once.
  std::vector<std::string> warnings;
};

struct ConfigOptions {
  // Keep a configuration that is recognised as wrong (mscale_all_dim 1.0 of the first release).
  bool trust_config = false;
  bool language_model_only = false;
};

// Error: another architecture, missing or contradictory fields; names the field, the value found and
// what is expected.
Result<ModelConfig> read_model_config(const Checkpoint& checkpoint, const ConfigOptions& options,
                                      const Log& log);

}  // namespace bise
