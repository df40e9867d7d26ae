// GGUF metadata of the architectures mistral3 and llama, and of a Pixtral projector file.
#include "io/gguf.h"
#include "model/config_readers.h"

namespace bise {
namespace {

Result<int32_t> to_int32(int64_t value, const std::string& key) {
  if (value < 0 || value > INT32_MAX) {
    return Error(ErrorCode::corrupt, key + ": " + std::to_string(value) + " is out of range");
  }
  return static_cast<int32_t>(value);
}

class Reader {
 public:
  Reader(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  Result<int32_t> required(const char* name) const {
    if (!file_.has(prefix_ + name)) {
      return Error(ErrorCode::corrupt, "metadata " + prefix_ + name + " is missing");
    }
    return optional(name, 0);
  }
  Result<int32_t> optional(const char* name, int64_t fallback) const {
    return to_int32(TRY(file_.get_int(prefix_ + name, fallback)), prefix_ + name);
  }
  Result<double> number(const char* name, double fallback) const {
    return file_.get_number(prefix_ + name, fallback);
  }
  bool has(const char* name) const { return file_.has(prefix_ + name); }
  std::string key(const char* name) const { return prefix_ + name; }
  const GgufFile& file() const { return file_; }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

// Files made by Ollama spell some keys otherwise; the first that is there counts.
Result<double> first_number(const Reader& r, std::initializer_list<const char*> names,
                            double fallback) {
  for (const char* name : names) {
    if (r.has(name)) return r.number(name, fallback);
  }
  return fallback;
}

Result<void> read_rope(const Reader& r, const ConfigOptions& options, ModelConfig& c) {
  RopeConfig& rope = c.rope;
  rope.theta = TRY(r.number("rope.freq_base", 10000.0));
  rope.query_scaling_beta = TRY(r.number("attention.temperature_scale", 0.0));
  rope.original_context =
      TRY(r.file().get_int(r.key("rope.scaling.original_context_length"), c.context_length));
  std::string type = TRY(r.file().get_string(r.key("rope.scaling.type"), "none"));
  if (type == "none") return {};
  if (type != "yarn") {
    return Error(ErrorCode::unsupported, "metadata " + r.key("rope.scaling.type") + ": found \"" +
                                             type + "\", expected none or yarn");
  }
  rope.yarn = true;
  rope.factor = TRY(r.number("rope.scaling.factor", 1.0));
  rope.beta_fast =
      TRY(first_number(r, {"rope.scaling.yarn_beta_fast", "rope.scaling.beta_fast"}, 32.0));
  rope.beta_slow =
      TRY(first_number(r, {"rope.scaling.yarn_beta_slow", "rope.scaling.beta_slow"}, 1.0));
  double mscale = TRY(r.number("rope.scaling.mscale", 1.0));
  double all_dim = TRY(
      first_number(r, {"rope.scaling.yarn_log_multiplier", "rope.scaling.mscale_all_dim"}, 0.0));
  std::string field = "metadata " + r.key("rope.scaling.yarn_log_multiplier");
  rope.attention_factor = yarn_attention_factor(rope, mscale, all_dim, field.c_str(),
                                                options.trust_config, c.warnings);
  rope.attention_factor *= TRY(r.number("rope.scaling.attn_factor", 1.0));
  return {};
}

Result<VisionConfig> read_projector(const GgufFile& file, float text_eps) {
  std::string type = TRY(file.get_string("clip.projector_type", ""));
  if (type.empty()) type = TRY(file.get_string("clip.vision.projector_type", ""));
  if (type != "pixtral") {
    return Error(ErrorCode::unsupported,
                 "metadata clip.projector_type: found \"" + type + "\", expected pixtral");
  }
  Reader r(file, "clip.vision.");
  VisionConfig v;
  v.hidden_size = TRY(r.required("embedding_length"));
  v.num_layers = TRY(r.required("block_count"));
  v.num_heads = TRY(r.required("attention.head_count"));
  v.intermediate_size = TRY(r.required("feed_forward_length"));
  v.head_dim = v.num_heads > 0 ? v.hidden_size / v.num_heads : 0;
  v.patch_size = TRY(r.optional("patch_size", 14));
  v.image_size = TRY(r.optional("image_size", 1540));
  v.spatial_merge_size = TRY(r.optional("spatial_merge_size", 1));
  v.norm_eps = static_cast<float>(TRY(r.number("attention.layer_norm_epsilon", 1e-5)));
  v.rope_theta = TRY(r.number("rope.freq_base", 10000.0));
  v.projector_norm_eps = text_eps;
  bool gelu = TRY(file.get_bool("clip.use_gelu", false));
  bool silu = TRY(file.get_bool("clip.use_silu", !gelu));
  v.act = silu ? Activation::silu : Activation::gelu_erf;
  v.projector_bias = false;
  for (const TensorView& tensor : file.tensors()) v.projector_bias |= tensor.name == "mm.1.bias";
  return v;
}

}  // namespace

Result<ModelConfig> read_gguf_config(const GgufFile& file, const GgufFile* projector,
                                     const ConfigOptions& options) {
  std::string arch = TRY(file.get_string("general.architecture", ""));
  if (arch != "mistral3" && arch != "llama") {
    return Error(ErrorCode::unsupported,
                 "metadata general.architecture: found \"" + arch +
                     "\", expected mistral3 or llama; this program runs the Mistral 3 family");
  }
  Reader r(file, arch + ".");
  ModelConfig c;
  c.architecture = arch;
  c.name = TRY(file.get_string("general.name", ""));
  c.hidden_size = TRY(r.required("embedding_length"));
  c.num_layers = TRY(r.required("block_count"));
  c.num_heads = TRY(r.required("attention.head_count"));
  c.num_kv_heads = TRY(r.optional("attention.head_count_kv", c.num_heads));
  c.head_dim = TRY(
      r.optional("attention.key_length", c.num_heads > 0 ? c.hidden_size / c.num_heads : 0));
  int32_t value_length = TRY(r.optional("attention.value_length", c.head_dim));
  int32_t rotated = TRY(r.optional("rope.dimension_count", c.head_dim));
  if (value_length != c.head_dim || rotated != c.head_dim) {
    return Error(ErrorCode::unsupported,
                 "metadata: key length " + std::to_string(c.head_dim) + ", value length " +
                     std::to_string(value_length) + " and rope dimensions " +
                     std::to_string(rotated) + " differ; expected one size for all three");
  }
  if (TRY(file.get_int(r.key("expert_count"), 0)) > 0) {
    return Error(ErrorCode::unsupported, "metadata " + r.key("expert_count") +
                                             " is set: a mixture of experts; this program runs the "
                                             "dense Mistral 3 family");
  }
  c.intermediate_size = TRY(r.required("feed_forward_length"));
  c.context_length = TRY(file.get_int(r.key("context_length"), 4096));
  c.norm_eps = static_cast<float>(TRY(r.number("attention.layer_norm_rms_epsilon", 1e-5)));
  c.sliding_window = TRY(r.optional("attention.sliding_window", 0));
  int64_t vocabulary = TRY(file.get_int(r.key("vocab_size"), 0));
  for (const TensorView& tensor : file.tensors()) {
    if (tensor.name == "token_embd.weight" && tensor.shape.size() == 2) {
      if (vocabulary == 0) vocabulary = tensor.shape[0];
    }
    if (tensor.name == "rope_freqs.weight") {
      return Error(ErrorCode::unsupported,
                   "tensor rope_freqs.weight: per-dimension rotary factors (Llama 3.1) are not "
                   "part of the Mistral 3 family");
    }
  }
  c.vocab_size = TRY(to_int32(vocabulary, r.key("vocab_size")));
  int64_t eos = TRY(file.get_int("tokenizer.ggml.eos_token_id", 2));
  if (eos >= 0 && eos < c.vocab_size) c.eos_tokens = {static_cast<int32_t>(eos)};
  TRY(read_rope(r, options, c));
  if (projector != nullptr) {
    c.vision = TRY(read_projector(*projector, c.norm_eps).with_context(projector->path()));
  }
  return c;
}

}  // namespace bise
