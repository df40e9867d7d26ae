#include "model/model_config.h"

#include <cmath>
#include <cstdio>

#include "base/json.h"
#include "io/gguf.h"
#include "model/config_readers.h"
#include "model/tensor_names.h"

namespace bise {
namespace {

struct Range {
  const char* field;
  int64_t value, low, high;
};

Error out_of_range(const Range& r) {
  return Error(ErrorCode::unsupported,
               std::string("model configuration: ") + r.field + " is " + std::to_string(r.value) +
                   ", expected " + std::to_string(r.low) + " to " + std::to_string(r.high));
}

Result<void> check_ranges(std::initializer_list<Range> ranges) {
  for (const Range& r : ranges) {
    if (r.value < r.low || r.value > r.high) return out_of_range(r);
  }
  return {};
}

// Everything behind the configuration multiplies these numbers: they are bounded so that no product
// of three of them overflows 64 bits.
constexpr int64_t kMaxWidth = 1 << 20;

Result<void> validate(const ModelConfig& c) {
  TRY(check_ranges({{"hidden_size", c.hidden_size, 1, kMaxWidth},
                    {"num_hidden_layers", c.num_layers, 1, 4096},
                    {"num_attention_heads", c.num_heads, 1, 4096},
                    {"num_key_value_heads", c.num_kv_heads, 1, c.num_heads},
                    {"head_dim", c.head_dim, 2, 1024},
                    {"intermediate_size", c.intermediate_size, 1, 4 * kMaxWidth},
                    {"vocab_size", c.vocab_size, 1, 1 << 24},
                    {"max_position_embeddings", c.context_length, 1, int64_t{1} << 30}}));
  if (c.head_dim % 2 != 0) {
    return Error(ErrorCode::unsupported, "model configuration: head_dim " +
                                             std::to_string(c.head_dim) + " is odd; rotary " +
                                             "embedding needs pairs");
  }
  if (c.num_heads % c.num_kv_heads != 0) {
    return Error(ErrorCode::corrupt, "model configuration: num_attention_heads " +
                                         std::to_string(c.num_heads) +
                                         " is not a multiple of num_key_value_heads " +
                                         std::to_string(c.num_kv_heads));
  }
  if (!(c.norm_eps > 0.0f && c.norm_eps < 1.0f)) {
    return Error(ErrorCode::corrupt, "model configuration: rms_norm_eps is " +
                                         std::to_string(c.norm_eps) + ", expected a number in (0, 1)");
  }
  const RopeConfig& r = c.rope;
  if (!(r.theta > 1.0 && std::isfinite(r.theta))) {
    return Error(ErrorCode::corrupt, "model configuration: rope_theta is " +
                                         std::to_string(r.theta) + ", expected a number above 1");
  }
  if (r.yarn && !(r.factor >= 1.0 && r.factor <= 1e6 && r.original_context > 0 &&
                  r.beta_fast > 0 && r.beta_slow > 0 && r.attention_factor > 0)) {
    return Error(ErrorCode::corrupt,
                 "model configuration: YaRN needs factor >= 1, original_max_position_embeddings, "
                 "beta_fast, beta_slow and attention_factor above 0");
  }
  if (r.query_scaling_beta != 0.0 && r.original_context <= 0) {
    return Error(ErrorCode::corrupt,
                 "model configuration: llama_4_scaling_beta needs original_max_position_embeddings");
  }
  if (!c.vision) return {};
  const VisionConfig& v = *c.vision;
  TRY(check_ranges({{"vision hidden_size", v.hidden_size, 1, kMaxWidth},
                    {"vision num_hidden_layers", v.num_layers, 1, 4096},
                    {"vision num_attention_heads", v.num_heads, 1, 4096},
                    {"vision intermediate_size", v.intermediate_size, 1, 4 * kMaxWidth},
                    {"vision patch_size", v.patch_size, 1, 256},
                    {"vision image_size", v.image_size, 1, 1 << 16},
                    {"spatial_merge_size", v.spatial_merge_size, 1, 16}}));
  if (int64_t{v.head_dim} * v.num_heads != v.hidden_size || v.head_dim % 4 != 0) {
    return Error(ErrorCode::unsupported,
                 "model configuration: vision head_dim " + std::to_string(v.head_dim) + " x " +
                     std::to_string(v.num_heads) + " heads is not the hidden_size " +
                     std::to_string(v.hidden_size) + ", or not a multiple of 4");
  }
  return {};
}

// eos_token_id is a number or a list, in generation_config.json.
Result<void> read_generation_config(const Checkpoint& checkpoint, ModelConfig& config) {
  std::string path = checkpoint.file_path("generation_config.json");
  if (path.empty()) return {};
  std::string text = TRY(read_file(path, 1 << 20));
  auto parsed = parse_json(text);
  if (!parsed) return std::move(parsed).error().with_context(path);
  const Json& json = *parsed;
  if (!json_has(json, "eos_token_id")) return {};
  std::vector<int32_t> ids;
  const Json& eos = json["eos_token_id"];
  for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= config.vocab_size) {
      return Error(ErrorCode::corrupt, path + ": eos_token_id: expected ids below the vocabulary's " +
                                           std::to_string(config.vocab_size) + ", found " + id.dump());
    }
    ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
  }
  config.eos_tokens = std::move(ids);
  return {};
}

// The processor's longest edge decides about resizing; processor_config.json is the newer file.
Result<void> read_processor_config(const Checkpoint& checkpoint, VisionConfig& vision) {
  for (const char* name : {"processor_config.json", "preprocessor_config.json"}) {
    std::string path = checkpoint.file_path(name);
    if (path.empty()) continue;
    std::string text = TRY(read_file(path, 1 << 20));
    auto parsed = parse_json(text);
    if (!parsed) return std::move(parsed).error().with_context(path);
    const Json* processor = TRY(json_object(*parsed, "image_processor", path));
    const Json* size = TRY(json_object(processor == nullptr ? *parsed : *processor, "size", path));
    if (size == nullptr) continue;
    int64_t edge = TRY(json_int(*size, "longest_edge", vision.image_size, path));
    if (edge < 1 || edge > 1 << 16) {
      return Error(ErrorCode::corrupt, path + ": size.longest_edge is " + std::to_string(edge) +
                                           ", expected 1 to 65536");
    }
    vision.image_size = static_cast<int32_t>(edge);
    return {};
  }
  return {};
}

}  // namespace

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeConfig& rope, double mscale, double mscale_all_dim,
                             const char* field, bool trust_config,
                             std::vector<std::string>& warnings) {
  double whole = yarn_magnitude(rope.factor, 1.0);
  if (mscale == 0.0 || mscale_all_dim == 0.0) return whole;
  bool released_too_early =
      rope.factor == 64.0 && rope.query_scaling_beta == 0.0 && mscale_all_dim == 1.0;
  if (released_too_early) {
    char text[400];
    std::snprintf(text, sizeof text,
                  "%s is 1.0, the mistake of the first release of Mistral Medium 3.5: it switches "
                  "YaRN's magnitude off and long texts degrade; %s",
                  field,
                  trust_config ? "kept, because the configuration is to be trusted"
                               : "corrected to 0.0 (--trust-config keeps it)");
    warnings.push_back(text);
    if (!trust_config) return whole;
  }
  return yarn_magnitude(rope.factor, mscale) / yarn_magnitude(rope.factor, mscale_all_dim);
}

Result<Activation> activation_of(const std::string& name, const std::string& place) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu_erf;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    return Activation::gelu_tanh;
  }
  return Error(ErrorCode::unsupported,
               place + ": found \"" + name + "\", expected silu, gelu or gelu_pytorch_tanh");
}

Result<ModelConfig> read_model_config(const Checkpoint& checkpoint, const ConfigOptions& options,
                                      const Log& log) {
  auto read = [&]() -> Result<ModelConfig> {
    switch (checkpoint.layout()) {
      case Layout::hf: return read_hf_config(checkpoint.config_json(), options);
      case Layout::mistral: return read_mistral_config(checkpoint.params_json(), options);
      case Layout::gguf: break;
    }
    return read_gguf_config(*checkpoint.gguf(), checkpoint.mmproj(), options);
  };
  ModelConfig config = TRY(read().with_context(checkpoint.path()));
  if (options.language_model_only) config.vision.reset();
  TRY(validate(config).with_context(checkpoint.path()));
  // The tensor in the file decides about tying: Mistral3Config's default would drop Small 3.1's head.
  TensorNames names = TRY(TensorNames::detect(checkpoint));
  config.tied = !checkpoint.has_weight(names.stored("lm_head.weight"));
  TRY(read_generation_config(checkpoint, config));
  if (config.vision && checkpoint.layout() == Layout::hf) {
    TRY(read_processor_config(checkpoint, *config.vision));
  }
  for (const std::string& warning : config.warnings) log.warning(warning);
  return config;
}

}  // namespace bise
