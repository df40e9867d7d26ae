// params.json of Mistral's consolidated layout. Keys may be present with the value null: what counts
// is the value, never the presence.
#include "base/json.h"
#include "model/config_readers.h"

namespace bise {
namespace {

Result<int32_t> required_int(const Json& object, const char* key, const std::string& path) {
  if (!json_has(object, key)) {
    return Error(ErrorCode::corrupt, (path.empty() ? "" : path + ".") + key + " is missing");
  }
  int64_t value = TRY(json_int(object, key, 0, path));
  if (value < 0 || value > INT32_MAX) {
    return Error(ErrorCode::corrupt, (path.empty() ? "" : path + ".") + key + ": " +
                                         std::to_string(value) + " is out of range");
  }
  return static_cast<int32_t>(value);
}
Result<int32_t> optional_int(const Json& object, const char* key, int32_t fallback,
                             const std::string& path) {
  if (!json_has(object, key)) return fallback;
  return required_int(object, key, path);
}

Result<void> read_rope(const Json& p, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = TRY(json_number(p, "rope_theta", 1e6, ""));
  if (const Json* scaling = TRY(json_object(p, "llama_4_scaling", ""))) {
    rope.query_scaling_beta = TRY(json_number(*scaling, "beta", 0.0, "llama_4_scaling"));
    rope.original_context =
        TRY(json_int(*scaling, "original_max_position_embeddings", 0, "llama_4_scaling"));
  }
  const Json* yarn = TRY(json_object(p, "yarn", ""));
  if (yarn == nullptr) return {};
  rope.yarn = true;
  rope.factor = TRY(json_number(*yarn, "factor", 1.0, "yarn"));
  rope.original_context =
      TRY(json_int(*yarn, "original_max_position_embeddings", config.context_length, "yarn"));
  rope.beta_fast = TRY(json_number(*yarn, "beta", 32.0, "yarn"));
  rope.beta_slow = TRY(json_number(*yarn, "alpha", 1.0, "yarn"));
  bool apply_scale = TRY(json_bool(*yarn, "apply_scale", true, "yarn"));
  rope.attention_factor = apply_scale ? yarn_magnitude(rope.factor, 1.0) : 1.0;
  return {};
}

Result<VisionConfig> read_vision(const Json& encoder, float text_eps) {
  const std::string path = "vision_encoder";
  VisionConfig v;
  v.hidden_size = TRY(required_int(encoder, "hidden_size", path));
  v.num_layers = TRY(required_int(encoder, "num_hidden_layers", path));
  v.num_heads = TRY(required_int(encoder, "num_attention_heads", path));
  v.intermediate_size = TRY(required_int(encoder, "intermediate_size", path));
  v.head_dim = v.num_heads > 0 ? v.hidden_size / v.num_heads : 0;
  v.patch_size = TRY(optional_int(encoder, "patch_size", 14, path));
  v.image_size = TRY(optional_int(encoder, "image_size", 1540, path));
  v.image_size = TRY(optional_int(encoder, "max_image_size", v.image_size, path));
  v.spatial_merge_size = TRY(optional_int(encoder, "spatial_merge_size", 1, path));
  v.rope_theta = TRY(json_number(encoder, "rope_theta", 10000.0, path));
  v.projector_bias = TRY(json_bool(encoder, "adapter_bias", true, path));
  v.image_token = TRY(optional_int(encoder, "image_token_id", 10, path));
  v.image_break_token = TRY(optional_int(encoder, "image_break_token_id", 12, path));
  v.image_end_token = TRY(optional_int(encoder, "image_end_token_id", 13, path));
  v.projector_norm_eps = text_eps;
  std::string projector = TRY(json_string(encoder, "mm_projector_id", "", path));
  bool norm = TRY(json_bool(encoder, "add_pre_mm_projector_layer_norm", false, path));
  if (projector != "patch_merge" || !norm) {
    return Error(ErrorCode::unsupported,
                 "vision_encoder: mm_projector_id \"" + projector +
                     "\" with add_pre_mm_projector_layer_norm " + (norm ? "true" : "false") +
                     ", expected \"patch_merge\" and true (Pixtral 12B is another architecture)");
  }
  return v;
}

Result<ModelConfig> read(const Json& p) {
  if (!p.is_object()) return Error(ErrorCode::corrupt, "expected an object");
  for (const char* key : {"moe", "q_lora_rank", "kv_lora_rank", "ssm", "recurrent"}) {
    if (json_has(p, key)) {
      return Error(ErrorCode::unsupported, std::string(key) +
                                               " is set: a model of another architecture; this "
                                               "program runs the dense Mistral 3 family");
    }
  }
  std::string act = TRY(json_string(p, "activation", "silu", ""));
  if (act != "silu") {
    return Error(ErrorCode::unsupported, "activation: found \"" + act + "\", expected silu");
  }
  ModelConfig c;
  c.hidden_size = TRY(required_int(p, "dim", ""));
  c.num_layers = TRY(required_int(p, "n_layers", ""));
  c.num_heads = TRY(required_int(p, "n_heads", ""));
  c.num_kv_heads = TRY(optional_int(p, "n_kv_heads", c.num_heads, ""));
  c.head_dim = TRY(required_int(p, "head_dim", ""));
  c.intermediate_size = TRY(required_int(p, "hidden_dim", ""));
  c.vocab_size = TRY(required_int(p, "vocab_size", ""));
  c.norm_eps = static_cast<float>(TRY(json_number(p, "norm_eps", 1e-5, "")));
  c.context_length = TRY(json_int(p, "max_seq_len", 262144, ""));
  c.context_length = TRY(json_int(p, "max_position_embeddings", c.context_length, ""));
  c.sliding_window = TRY(optional_int(p, "sliding_window", 0, ""));
  c.eos_tokens = {2};
  TRY(read_rope(p, c));
  c.architecture = c.rope.yarn || c.rope.query_scaling_beta != 0.0 ? "ministral3" : "mistral";
  if (const Json* encoder = TRY(json_object(p, "vision_encoder", ""))) {
    c.vision = TRY(read_vision(*encoder, c.norm_eps));
  }
  return c;
}

}  // namespace

Result<ModelConfig> read_mistral_config(const std::string& text, const ConfigOptions&) {
  auto parsed = parse_json(text, {.max_bytes = 4 << 20});
  if (!parsed) return std::move(parsed).error().with_context("params.json");
  return read(*parsed).with_context("params.json");
}

}  // namespace bise
