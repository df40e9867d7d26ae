#include "model/weights.h"

#include <cmath>

#include "model/tensor_names.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

// One matrix of a product: its canonical name and how many rows it must have.
struct Part {
  std::string name;
  int64_t rows;
};

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, TensorNames names,
         Backend& backend, const std::function<bool(uint64_t, uint64_t)>& progress, const Log& log)
      : checkpoint_(checkpoint),
        config_(config),
        names_(std::move(names)),
        backend_(backend),
        progress_(progress),
        log_(log) {}

  Result<ModelWeights> load() {
    const std::string text = "language_model.";
    ModelWeights w;
    w.embedding = TRY(linear({{text + "embed_tokens.weight", config_.vocab_size}},
                             config_.hidden_size, "vocab_size and hidden_size"));
    uint64_t table_bytes = w.embedding.bytes;
    if (!config_.tied) {
      w.head = TRY(linear({{"lm_head.weight", config_.vocab_size}}, config_.hidden_size,
                          "vocab_size and hidden_size"));
    }
    BlockShape shape{config_.hidden_size, config_.num_heads, config_.num_kv_heads, config_.head_dim,
                     config_.intermediate_size};
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      std::string prefix = text + "layers." + std::to_string(i) + ".";
      w.layers.push_back(TRY(block(prefix, kTextBlock, shape)));
    }
    w.norm = TRY(vector(text + "norm.weight", config_.hidden_size, "hidden_size"));
    w.step_bytes = bytes_ - (config_.tied ? 0 : table_bytes);
    if (config_.vision) w.vision = TRY(vision(*config_.vision));
    w.num_parameters = num_parameters_;
    w.bytes = bytes_;
    return w;
  }

 private:
  struct BlockNames {
    const char *attention_norm, *ffn_norm, *attention, *ffn;
  };
  struct BlockShape {
    int64_t hidden, heads, kv_heads, head_dim, intermediate;
  };
  static constexpr BlockNames kTextBlock = {"input_layernorm.", "post_attention_layernorm.",
                                            "self_attn.", "mlp."};
  static constexpr BlockNames kVisionBlock = {"attention_norm.", "ffn_norm.", "attention.",
                                              "feed_forward."};

  Result<DecoderLayerWeights> block(const std::string& prefix, const BlockNames& n,
                                    const BlockShape& s) {
    DecoderLayerWeights w;
    int64_t q_rows = s.heads * s.head_dim, kv_rows = s.kv_heads * s.head_dim;
    std::string attention = prefix + n.attention, ffn = prefix + n.ffn;
    w.attention_norm = TRY(vector(prefix + n.attention_norm + "weight", s.hidden, "hidden_size"));
    w.qkv = TRY(linear({{attention + "q_proj.weight", q_rows},
                        {attention + "k_proj.weight", kv_rows},
                        {attention + "v_proj.weight", kv_rows}},
                       s.hidden, "num_attention_heads, num_key_value_heads, head_dim, hidden_size"));
    w.output = TRY(linear({{attention + "o_proj.weight", s.hidden}}, q_rows,
                          "hidden_size, num_attention_heads and head_dim"));
    w.ffn_norm = TRY(vector(prefix + n.ffn_norm + "weight", s.hidden, "hidden_size"));
    w.gate_up = TRY(linear({{ffn + "gate_proj.weight", s.intermediate},
                            {ffn + "up_proj.weight", s.intermediate}},
                           s.hidden, "intermediate_size and hidden_size"));
    w.down = TRY(linear({{ffn + "down_proj.weight", s.hidden}}, s.intermediate,
                        "hidden_size and intermediate_size"));
    return w;
  }

  Result<VisionWeights> vision(const VisionConfig& v) {
    VisionWeights w;
    const std::string tower = "vision_tower.", projector = "multi_modal_projector.";
    const std::string fields = "vision_config";
    w.patch_conv = TRY(linear({{tower + "patch_conv.weight", v.hidden_size}},
                              int64_t{3} * v.patch_size * v.patch_size, fields));
    w.ln_pre = TRY(vector(tower + "ln_pre.weight", v.hidden_size, fields));
    BlockShape shape{v.hidden_size, v.num_heads, v.num_heads, v.head_dim, v.intermediate_size};
    for (int32_t i = 0; i < v.num_layers; ++i) {
      std::string prefix = tower + "transformer.layers." + std::to_string(i) + ".";
      w.layers.push_back(TRY(block(prefix, kVisionBlock, shape)));
    }
    w.projector_norm = TRY(vector(projector + "norm.weight", v.hidden_size, fields));
    w.merging =
        TRY(linear({{projector + "patch_merger.merging_layer.weight", v.hidden_size}},
                   int64_t{v.hidden_size} * v.spatial_merge_size * v.spatial_merge_size, fields));
    w.linear_1 = TRY(linear({{projector + "linear_1.weight", config_.hidden_size}}, v.hidden_size,
                            "hidden_size"));
    w.linear_2 = TRY(linear({{projector + "linear_2.weight", config_.hidden_size}},
                            config_.hidden_size, "hidden_size"));
    if (v.projector_bias) {
      w.bias_1 = TRY(vector(projector + "linear_1.bias", config_.hidden_size, "hidden_size"));
      w.bias_2 = TRY(vector(projector + "linear_2.bias", config_.hidden_size, "hidden_size"));
    }
    return w;
  }

  Error wrong_shape(const TensorView& tensor, const std::string& expected,
                    const std::string& fields) const {
    return Error(ErrorCode::corrupt, checkpoint_.path() + ": tensor " + tensor.name +
                                         ": found shape " + shape_text(tensor.shape) +
                                         ", expected " + expected + " by " + fields +
                                         " of the configuration");
  }
  Result<const TensorView*> find(const std::string& canonical) const {
    std::string stored = names_.stored(canonical);
    const TensorView* tensor = checkpoint_.find(stored);
    if (tensor == nullptr) {
      return Error(ErrorCode::not_found, checkpoint_.path() + ": tensor " + stored +
                                             " is missing; is the download complete?");
    }
    return tensor;
  }

  // A norm weight or a bias, as float32.
  Result<Buffer> vector(const std::string& canonical, int64_t size, const std::string& fields) {
    const TensorView* tensor = TRY(find(canonical));
    if (tensor->shape.size() != 1 || tensor->shape[0] != size) {
      return wrong_shape(*tensor, "[" + std::to_string(size) + "]", fields);
    }
    std::vector<float> values = TRY(checkpoint_.values(tensor->name));
    for (float value : values) {
      if (!std::isfinite(value)) {
        return Error(ErrorCode::corrupt, checkpoint_.path() + ": tensor " + tensor->name +
                                             " holds a value that is not finite");
      }
    }
    num_parameters_ += values.size();
    bytes_ += values.size() * sizeof(float);
    return backend_.upload(values);
  }

  // Makers of NVFP4 files give the matrices of one product one scale, as programs that join them
  // need. Here each keeps its own; but the file is then not what its maker's own tools run.
  void warn_of_global_scales(const std::vector<WeightView>& views) {
    for (const WeightView& view : views) {
      if (warned_ || view.format != FormatId::nvfp4 || views[0].format != FormatId::nvfp4) continue;
      if (view.global_scale == views[0].global_scale) continue;
      warned_ = true;
      log_.warning(checkpoint_.path() + ": " + views[0].name + " and " + view.name +
                   " have different global scales; each is used with its own, programs that run "
                   "them as one matrix take one of the two");
    }
  }

  // The parts of one product, stacked. `columns` is shared.
  Result<Weight> linear(const std::vector<Part>& parts, int64_t columns,
                        const std::string& fields) {
    std::vector<WeightView> views;
    for (const Part& part : parts) {
      const std::string stored = names_.stored(part.name);
      if (!checkpoint_.has_weight(stored)) TRY(find(part.name));  // the error of a missing tensor
      WeightView view = TRY(matrix_view(checkpoint_, stored));
      if (view.rows != part.rows || view.columns != columns) {
        TensorView found;  // of what the codes stand for
        found.name = stored;
        found.shape = {view.rows, view.columns};
        return wrong_shape(found, shape_text({part.rows, columns}), fields);
      }
      if (names_.interleaved()) view.order.interleaved_head = rotary_head_of(part.name, config_);
      views.push_back(std::move(view));
      num_parameters_ += static_cast<uint64_t>(part.rows) * static_cast<uint64_t>(columns);
    }
    warn_of_global_scales(views);
    Weight weight =
        TRY(backend_.pack_weight(views).with_context(checkpoint_.path() + ": " + views[0].name));
    for (const WeightView& view : views) {
      read_bytes_ += view.codes.size() + view.scale.bytes.size() + view.zero.bytes.size();
      if (!weight.is_mapped) checkpoint_.drop(view);
    }
    bytes_ += weight.bytes;
    if (progress_ && !progress_(read_bytes_, checkpoint_.total_bytes())) {
      return Error(ErrorCode::cancelled, "loading was interrupted");
    }
    return weight;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  TensorNames names_;
  Backend& backend_;
  const std::function<bool(uint64_t, uint64_t)>& progress_;
  const Log& log_;
  bool warned_ = false;
  uint64_t num_parameters_ = 0, bytes_ = 0, read_bytes_ = 0;
};

}  // namespace

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  Backend& backend,
                                  const std::function<bool(uint64_t, uint64_t)>& progress,
                                  const Log& log) {
  TensorNames names = TRY(TensorNames::detect(checkpoint));
  return Loader(checkpoint, config, std::move(names), backend, progress, log).load();
}

}  // namespace bise
