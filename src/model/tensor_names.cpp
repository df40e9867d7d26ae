#include "model/tensor_names.h"

#include <string_view>
#include <utility>

#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr std::string_view kText = "language_model.", kVision = "vision_tower.";

bool starts_with(std::string_view text, std::string_view head) {
  return text.substr(0, head.size()) == head;
}

using Pair = std::pair<std::string_view, std::string_view>;

// Parts of a canonical name and what they are called elsewhere. The first that fits is replaced.
constexpr Pair kMistralLayer[] = {
    {"self_attn.q_proj.", "attention.wq."},    {"self_attn.k_proj.", "attention.wk."},
    {"self_attn.v_proj.", "attention.wv."},    {"self_attn.o_proj.", "attention.wo."},
    {"mlp.gate_proj.", "feed_forward.w1."},    {"mlp.down_proj.", "feed_forward.w2."},
    {"mlp.up_proj.", "feed_forward.w3."},      {"input_layernorm.", "attention_norm."},
    {"post_attention_layernorm.", "ffn_norm."},
    // The tower's own names.
    {"attention.q_proj.", "attention.wq."},    {"attention.k_proj.", "attention.wk."},
    {"attention.v_proj.", "attention.wv."},    {"attention.o_proj.", "attention.wo."},
    {"feed_forward.gate_proj.", "feed_forward.w1."},
    {"feed_forward.down_proj.", "feed_forward.w2."},
    {"feed_forward.up_proj.", "feed_forward.w3."},
};
constexpr Pair kMistralOther[] = {
    {"language_model.embed_tokens.", "tok_embeddings."},
    {"language_model.norm.", "norm."},
    {"language_model.layers.", "layers."},
    {"lm_head.", "output."},
    {"vision_tower.", "vision_encoder."},
    {"multi_modal_projector.norm.", "pre_mm_projector_norm."},
    {"multi_modal_projector.patch_merger.", "patch_merger."},
    {"multi_modal_projector.linear_1.", "vision_language_adapter.w_in."},
    {"multi_modal_projector.linear_2.", "vision_language_adapter.w_out."},
};
constexpr Pair kGgufLayer[] = {
    {"self_attn.q_proj.", "attn_q."},      {"self_attn.k_proj.", "attn_k."},
    {"self_attn.v_proj.", "attn_v."},      {"self_attn.o_proj.", "attn_output."},
    {"mlp.gate_proj.", "ffn_gate."},       {"mlp.down_proj.", "ffn_down."},
    {"mlp.up_proj.", "ffn_up."},           {"input_layernorm.", "attn_norm."},
    {"post_attention_layernorm.", "ffn_norm."},
    {"attention_norm.", "ln1."},           {"ffn_norm.", "ln2."},
    {"attention.q_proj.", "attn_q."},      {"attention.k_proj.", "attn_k."},
    {"attention.v_proj.", "attn_v."},      {"attention.o_proj.", "attn_out."},
    {"feed_forward.gate_proj.", "ffn_gate."},
    {"feed_forward.down_proj.", "ffn_down."},
    {"feed_forward.up_proj.", "ffn_up."},
};
constexpr Pair kGgufOther[] = {
    {"language_model.embed_tokens.", "token_embd."},
    {"language_model.norm.", "output_norm."},
    {"language_model.layers.", "blk."},
    {"lm_head.", "output."},
    {"vision_tower.patch_conv.", "v.patch_embd."},
    {"vision_tower.ln_pre.", "v.pre_ln."},
    {"vision_tower.transformer.layers.", "v.blk."},
    {"multi_modal_projector.norm.", "mm.input_norm."},
    {"multi_modal_projector.patch_merger.merging_layer.", "mm.patch_merger."},
    {"multi_modal_projector.linear_1.", "mm.1."},
    {"multi_modal_projector.linear_2.", "mm.2."},
};

std::string renamed(std::string name, std::span<const Pair> prefixes,
                    std::span<const Pair> layer_parts) {
  for (const auto& [from, to] : prefixes) {
    if (!starts_with(name, from)) continue;
    name.replace(0, from.size(), to);
    break;
  }
  // Only behind a layer number, so that no prefix is rewritten twice.
  size_t at = name.find_first_of("0123456789");
  if (at == std::string::npos) return name;
  at = name.find('.', at);
  if (at == std::string::npos) return name;
  std::string_view tail = std::string_view(name).substr(at + 1);
  for (const auto& [from, to] : layer_parts) {
    if (!starts_with(tail, from)) continue;
    name.replace(at + 1, from.size(), to);
    break;
  }
  return name;
}

}  // namespace

Result<TensorNames> TensorNames::detect(const Checkpoint& checkpoint) {
  TensorNames names;
  names.layout_ = checkpoint.layout();
  if (names.layout_ != Layout::hf) {
    if (checkpoint.has_weight(names.stored("language_model.embed_tokens.weight"))) return names;
  } else {
    for (const char* prefix : {"model.language_model.", "language_model.model.", "model."}) {
      if (!checkpoint.has_weight(std::string(prefix) + "embed_tokens.weight")) continue;
      names.text_prefix_ = prefix;
      bool inner = checkpoint.has_weight("language_model.lm_head.weight");
      names.head_ = inner ? "language_model.lm_head." : "lm_head.";
      bool outer = checkpoint.find("model.vision_tower.patch_conv.weight") != nullptr;
      names.vision_prefix_ = outer ? "model." : "";
      bool mlx = checkpoint.find("vision_tower.vision_model.patch_conv.weight") != nullptr;
      names.vision_model_ = mlx ? "vision_model." : "";
      return names;
    }
  }
  if (checkpoint.has_weight("eagle_linear.weight")) {
    return Error(ErrorCode::unsupported,
                 checkpoint.path() +
                     ": the draft head (EAGLE) of another model: it has no embedding and no output of its own and cannot run "
                     "alone; name the folder of that model, which runs without a draft head");
  }
  return Error(ErrorCode::unsupported,
               checkpoint.path() + ": no embedding table under any name of the Mistral 3 family (" +
                   (names.layout_ == Layout::hf ? "model.language_model.embed_tokens.weight, …"
                                                : names.stored("language_model.embed_tokens.weight")) +
                   "); is this a model of another architecture?");
}

TensorNames TensorNames::of_new_files(Layout layout) {
  TensorNames names;
  names.layout_ = layout;
  names.text_prefix_ = "model.";
  names.head_ = "lm_head.";
  return names;
}

std::string TensorNames::stored(const std::string& canonical) const {
  switch (layout_) {
    case Layout::mistral: return renamed(canonical, kMistralOther, kMistralLayer);
    case Layout::gguf: return renamed(canonical, kGgufOther, kGgufLayer);
    case Layout::hf: break;
  }
  if (starts_with(canonical, kText)) return text_prefix_ + canonical.substr(kText.size());
  if (starts_with(canonical, "lm_head.")) return head_ + canonical.substr(8);
  if (starts_with(canonical, kVision)) {
    return vision_prefix_ + std::string(kVision) + vision_model_ + canonical.substr(kVision.size());
  }
  return vision_prefix_ + canonical;
}

std::string canonical_tensor_name(const std::string& name) {
  std::string_view rest = name;
  if (starts_with(rest, "language_model.model.")) return std::string(kText) + name.substr(21);
  if (starts_with(rest, "language_model.lm_head.")) return name.substr(15);
  if (starts_with(rest, "vision_tower.vision_model.")) {
    return std::string(kVision) + name.substr(26);
  }
  if (starts_with(rest, "model.")) rest.remove_prefix(6);
  for (std::string_view known : {kText, kVision,
                                 std::string_view("multi_modal_projector."),
                                 std::string_view("lm_head.")}) {
    if (starts_with(rest, known)) return std::string(rest);
  }
  return std::string(kText) + std::string(rest);
}

int64_t rotary_head_of(const std::string& canonical, const ModelConfig& config) {
  auto contains = [&](std::string_view part) {
    return canonical.find(part) != std::string::npos;
  };
  if (contains(".self_attn.q_proj.weight") || contains(".self_attn.k_proj.weight")) {
    return config.head_dim;
  }
  if (contains(".attention.q_proj.weight") || contains(".attention.k_proj.weight")) {
    return config.vision ? config.vision->head_dim : 0;
  }
  return 0;
}

Result<WeightView> matrix_view(const Checkpoint& checkpoint, const std::string& stored,
                               bool checked) {
  const TensorView* tensor = checkpoint.find(stored);
  if (tensor != nullptr && tensor->shape.size() > 2) {
    FormatId id = FormatId::f32;
    if (tensor->dtype == DType::bf16) id = FormatId::bf16;
    else if (tensor->dtype == DType::f16) id = FormatId::f16;
    else if (tensor->dtype != DType::f32) {
      return Error(ErrorCode::unsupported, "tensor " + stored + ": found shape " +
                                               shape_text(tensor->shape) + " of type " +
                                               std::string(dtype_name(tensor->dtype)) +
                                               ", expected F32, F16 or BF16");
    }
    int64_t rows = tensor->shape[0];
    int64_t columns = rows == 0 ? 0 : tensor->num_elements() / rows;
    return make_weight_view(id, rows, columns, tensor->bytes, stored);
  }
  return checked ? checkpoint.weight(stored) : checkpoint.weight_layout(stored);
}

Result<DecodedTensor> decode_tensor(const Checkpoint& checkpoint, const ModelConfig& config,
                                    const std::string& name) {
  TensorNames names = TRY(TensorNames::detect(checkpoint));
  std::string canonical = canonical_tensor_name(name);
  std::string stored = names.stored(canonical);
  if (canonical == "lm_head.weight" && config.tied) {
    stored = names.stored("language_model.embed_tokens.weight");
  }
  if (!checkpoint.has_weight(stored)) stored = name;
  if (!checkpoint.has_weight(stored)) {
    return Error(ErrorCode::not_found, "tensor " + name + ": not in " + checkpoint.path() +
                                           "; `bise inspect --tensors` lists the names");
  }
  DecodedTensor out;
  const TensorView* tensor = checkpoint.find(stored);
  if (tensor != nullptr && tensor->shape.size() < 2) {
    out.shape = tensor->shape;
    out.format = std::string(dtype_name(tensor->dtype));
    out.values = TRY(checkpoint.values(stored));
    return out;
  }
  WeightView view = TRY(matrix_view(checkpoint, stored));
  int64_t head = names.interleaved() ? rotary_head_of(canonical, config) : 0;
  if (head != 0 && view.rows % head == 0) view.order.interleaved_head = head;
  out.shape = {view.rows, view.columns};
  if (tensor != nullptr && tensor->shape.size() > 2) out.shape = tensor->shape;
  out.format = describe_format(view);
  uint64_t count = 0;
  if (!checked_mul(static_cast<uint64_t>(view.rows), static_cast<uint64_t>(view.columns), &count) ||
      count > (uint64_t{1} << 33)) {
    return Error(ErrorCode::too_large, "tensor " + name + ": too many elements to decode at once");
  }
  try {
    out.values.resize(count);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "tensor " + name + ": no memory for " +
                                               std::to_string(count) + " decoded values");
  }
  for (int64_t row = 0; row < view.rows; ++row) {
    decode_row(view, row,
               std::span(out.values).subspan(static_cast<size_t>(row * view.columns),
                                             static_cast<size_t>(view.columns)));
  }
  return out;
}

}  // namespace bise
