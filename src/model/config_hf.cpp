// config.json as transformers 5.23.0 reads it: mistral3 (text_config and vision_config) over
// ministral3 or mistral, or one of those two alone.
#include "base/json.h"
#include "model/config_readers.h"

namespace bise {
namespace {

std::string join(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}
Error missing(const std::string& path) {
  return Error(ErrorCode::corrupt, path + " is missing");
}

Result<int32_t> required_int(const Json& object, const char* key, const std::string& path) {
  if (!json_has(object, key)) return missing(join(path, key));
  int64_t value = TRY(json_int(object, key, 0, path));
  if (value < 0 || value > INT32_MAX) {
    return Error(ErrorCode::corrupt, join(path, key) + ": " +
                                         std::to_string(value) + " is out of range");
  }
  return static_cast<int32_t>(value);
}
Result<int32_t> optional_int(const Json& object, const char* key, int32_t fallback,
                             const std::string& path) {
  if (!json_has(object, key)) return fallback;
  return required_int(object, key, path);
}

// New files: rope_parameters {rope_type, rope_theta, …}; older ones: rope_theta and rope_scaling.
// Where a flat rope_theta and an inner one disagree the inner one wins.
Result<void> read_rope(const Json& text, const std::string& path, const ConfigOptions& options,
                       ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = TRY(json_number(text, "rope_theta", 10000.0, path));
  const Json* inner = TRY(json_object(text, "rope_parameters", path));
  std::string inner_path = join(path, "rope_parameters");
  if (inner == nullptr) {
    inner = TRY(json_object(text, "rope_scaling", path));
    inner_path = join(path, "rope_scaling");
  }
  if (inner == nullptr && json_has(text, "rope_type")) {  // AutoRound's MLX export lays it flat
    inner = &text;
    inner_path = path;
  }
  if (inner == nullptr) return {};
  const Json& p = *inner;
  rope.theta = TRY(json_number(p, "rope_theta", rope.theta, inner_path));
  rope.query_scaling_beta = TRY(json_number(p, "llama_4_scaling_beta", 0.0, inner_path));
  rope.original_context = TRY(json_int(p, "original_max_position_embeddings", config.context_length, inner_path));
  std::string type = TRY(json_string(p, "rope_type", "", inner_path));
  if (type.empty()) type = TRY(json_string(p, "type", "default", inner_path));
  if (type == "default") return {};
  if (type != "yarn") {
    return Error(ErrorCode::unsupported, inner_path + ".rope_type: found \"" +
                                             type + "\", expected default or yarn");
  }
  rope.yarn = true;
  if (p.find("factor") == p.end()) return missing(inner_path + ".factor");
  double from_context = rope.original_context > 0 ? static_cast<double>(config.context_length) /
                                                        static_cast<double>(rope.original_context)
                                                  : 1.0;
  rope.factor = TRY(json_number(p, "factor", from_context, inner_path));
  rope.beta_fast = TRY(json_number(p, "beta_fast", 32.0, inner_path));
  rope.beta_slow = TRY(json_number(p, "beta_slow", 1.0, inner_path));
  if (rope.beta_fast == 0.0) rope.beta_fast = 32.0;  // `or` of the reference
  if (rope.beta_slow == 0.0) rope.beta_slow = 1.0;
  rope.truncate = TRY(json_bool(p, "truncate", true, inner_path));
  double mscale = TRY(json_number(p, "mscale", 0.0, inner_path));
  double mscale_all_dim = TRY(json_number(p, "mscale_all_dim", 0.0, inner_path));
  if (json_has(p, "attention_factor")) {
    rope.attention_factor = TRY(json_number(p, "attention_factor", 1.0, inner_path));
  } else {
    std::string field = inner_path + ".mscale_all_dim";
    rope.attention_factor = yarn_attention_factor(rope, mscale, mscale_all_dim, field.c_str(),
                                                  options.trust_config, config.warnings);
  }
  return {};
}

Result<void> read_text(const Json& text, const std::string& path, const ConfigOptions& options,
                       ModelConfig& c) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (TRY(json_bool(text, key, false, path))) {
      return Error(ErrorCode::unsupported, join(path, key) +
                                               " is true; this architecture has no biases here");
    }
  }
  std::string act = TRY(json_string(text, "hidden_act", "silu", path));
  if (act != "silu") {
    return Error(ErrorCode::unsupported,
                 join(path, "hidden_act") + ": found \"" + act + "\", expected silu");
  }
  c.hidden_size = TRY(required_int(text, "hidden_size", path));
  c.num_layers = TRY(required_int(text, "num_hidden_layers", path));
  c.num_heads = TRY(required_int(text, "num_attention_heads", path));
  c.num_kv_heads = TRY(optional_int(text, "num_key_value_heads", c.num_heads, path));
  c.intermediate_size = TRY(required_int(text, "intermediate_size", path));
  c.vocab_size = TRY(required_int(text, "vocab_size", path));
  // Ministral3Config's own default is 128; MistralConfig divides.
  int32_t head_default = c.architecture == "ministral3" ? 128
                         : c.num_heads > 0              ? c.hidden_size / c.num_heads
                                                        : 0;
  c.head_dim = TRY(optional_int(text, "head_dim", head_default, path));
  c.norm_eps = static_cast<float>(TRY(json_number(text, "rms_norm_eps", 1e-5, path)));
  c.context_length = TRY(json_int(text, "max_position_embeddings", 131072, path));
  c.sliding_window = TRY(optional_int(text, "sliding_window", 0, path));
  int64_t eos = TRY(json_int(text, "eos_token_id", 2, path));
  if (eos >= 0 && eos < c.vocab_size) c.eos_tokens = {static_cast<int32_t>(eos)};
  return read_rope(text, path, options, c);
}

Result<VisionConfig> read_vision(const Json& top, const Json& vision, float text_eps) {
  const std::string path = "vision_config";
  std::string type = TRY(json_string(vision, "model_type", "pixtral", path));
  if (type != "pixtral" && type != "mistral3") {  // the same
    return Error(ErrorCode::unsupported,
                 "vision_config.model_type: found \"" + type + "\", expected pixtral");
  }
  VisionConfig v;
  v.hidden_size = TRY(required_int(vision, "hidden_size", path));
  v.num_layers = TRY(required_int(vision, "num_hidden_layers", path));
  v.num_heads = TRY(required_int(vision, "num_attention_heads", path));
  v.intermediate_size = TRY(required_int(vision, "intermediate_size", path));
  v.head_dim = TRY(optional_int(vision, "head_dim",
                                v.num_heads > 0 ? v.hidden_size / v.num_heads : 0, path));
  v.patch_size = TRY(optional_int(vision, "patch_size", 14, path));
  v.image_size = TRY(optional_int(vision, "image_size", 1540, path));
  int32_t channels = TRY(optional_int(vision, "num_channels", 3, path));
  if (channels != 3) {
    return Error(ErrorCode::unsupported,
                 "vision_config.num_channels is " + std::to_string(channels) +
                     ", expected 3");
  }
  v.act = TRY(activation_of(TRY(json_string(vision, "hidden_act", "gelu", path)),
                            "vision_config.hidden_act"));
  v.rope_theta = TRY(json_number(vision, "rope_theta", 10000.0, path));
  if (const Json* rope = TRY(json_object(vision, "rope_parameters", path))) {
    v.rope_theta = TRY(json_number(*rope, "rope_theta", v.rope_theta, join(path, "rope_parameters")));
  }
  v.projector_norm_eps = text_eps;
  v.spatial_merge_size = TRY(optional_int(top, "spatial_merge_size", 2, ""));
  v.projector_bias = TRY(json_bool(top, "multimodal_projector_bias", false, ""));
  v.projector_act = TRY(activation_of(TRY(json_string(top, "projector_hidden_act", "gelu", "")),
                                      "projector_hidden_act"));
  v.image_token = TRY(optional_int(top, "image_token_index", 10, ""));
  v.image_token = TRY(optional_int(top, "image_token_id", v.image_token, ""));
  int64_t layer = TRY(json_int(top, "vision_feature_layer", -1, ""));
  if (layer != -1) {
    return Error(ErrorCode::unsupported, "vision_feature_layer is " +
                                             std::to_string(layer) + ", expected -1");
  }
  return v;
}

}  // namespace

Result<ModelConfig> read_hf_config(const std::string& json_text, const ConfigOptions& options) {
  auto parsed = parse_json(json_text, {.max_bytes = 4 << 20});
  if (!parsed) return std::move(parsed).error().with_context("config.json");
  const Json& top = *parsed;
  if (!top.is_object()) return Error(ErrorCode::corrupt, "config.json: expected an object");
  std::string type = TRY(json_string(top, "model_type", "", "").with_context("config.json"));
  ModelConfig config;
  const Json* text = &top;
  std::string path;
  if (type == "mistral3") {
    text = TRY(json_object(top, "text_config", "").with_context("config.json"));
    if (text == nullptr) return missing("text_config");
    path = "text_config";
    type = TRY(json_string(*text, "model_type", "mistral", path).with_context("config.json"));
    if (type == "mistral3") type = "ministral3";  // AutoRound's MLX export copies it downwards
  }
  if (type != "ministral3" && type != "mistral") {
    return Error(ErrorCode::unsupported,
                 "config.json: model_type: found \"" + type +
                     "\", expected mistral3, ministral3 or mistral; this program runs the Mistral 3 "
                     "family");
  }
  config.architecture = type;
  TRY(read_text(*text, path, options, config).with_context("config.json"));
  const Json* vision = TRY(json_object(top, "vision_config", "").with_context("config.json"));
  if (vision != nullptr) {
    config.vision =
        TRY(read_vision(top, *vision, config.norm_eps).with_context("config.json"));
  }
  return config;
}

}  // namespace bise
