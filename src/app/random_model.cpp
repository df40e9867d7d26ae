#include "app/random_model.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "app/random_matrix.h"
#include "io/gguf_writer.h"
#include "io/safetensors_writer.h"
#include "model/tensor_names.h"
#include "text/gguf_bpe.h"

namespace fs = std::filesystem;

namespace bise {
namespace {

constexpr int64_t kContext = 262144, kOriginalContext = 4096;
constexpr double kTheta = 1e6, kYarnFactor = 64, kBetaFast = 4, kBetaSlow = 1, kNormEps = 1e-5;

Error invalid(const std::string& message) { return Error(ErrorCode::invalid_argument, message); }

Result<void> check_shape(const ModelShape& s) {
  if (s.heads % s.kv_heads != 0) {
    return invalid("--heads: found " + std::to_string(s.heads) + ", expected a multiple of --kv-heads " +
                   std::to_string(s.kv_heads));
  }
  if (s.head_dim % 2 != 0) {
    return invalid("--head-dim: found " + std::to_string(s.head_dim) + ", expected an even number");
  }
  return {};
}
// Every matrix has hidden, ffn or heads * head_dim columns.
Result<void> check_groups(const ModelShape& s, const ModelFormat& format) {
  for (int64_t columns : {s.hidden, s.ffn, s.heads * s.head_dim}) {
    if (columns % format.group == 0) continue;
    return invalid("--format " + format.name + ": found " + std::to_string(columns) +
                   " columns, expected a multiple of its groups of " + std::to_string(format.group));
  }
  return {};
}

// --- descriptions

Json hf_config(const RandomModel& model) {
  const ModelShape& s = model.options.shape;
  Json config = {{"architectures", {"Ministral3ForCausalLM"}},
                 {"model_type", "ministral3"},
                 {"hidden_size", s.hidden},
                 {"num_hidden_layers", s.layers},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head_dim},
                 {"intermediate_size", s.ffn},
                 {"vocab_size", s.vocab},
                 {"hidden_act", "silu"},
                 {"rms_norm_eps", kNormEps},
                 {"sliding_window", nullptr},
                 {"attention_dropout", 0.0},
                 {"initializer_range", kRandomDeviation},
                 {"use_cache", true},
                 {"rope_parameters",
                  {{"rope_type", "yarn"},
                   {"type", "yarn"},
                   {"rope_theta", kTheta},
                   {"factor", kYarnFactor},
                   {"beta_fast", kBetaFast},
                   {"beta_slow", kBetaSlow},
                   {"original_max_position_embeddings", kOriginalContext},
                   {"max_position_embeddings", kContext},
                   {"mscale", 1.0},
                   {"mscale_all_dim", 0.0},
                   {"llama_4_scaling_beta", 0}}},
                 {"max_position_embeddings", kContext},
                 {"bos_token_id", 1},
                 {"eos_token_id", 2},
                 {"pad_token_id", 11},
                 {"tie_word_embeddings", false},
                 {"dtype", model.format->dtype}};
  if (model.format->describe != nullptr) model.format->describe(*model.format, config, Layout::hf);
  return config;
}

Json mistral_params(const RandomModel& model) {
  const ModelShape& s = model.options.shape;
  Json params = {{"dim", s.hidden},
                 {"n_layers", s.layers},
                 {"head_dim", s.head_dim},
                 {"hidden_dim", s.ffn},
                 {"n_heads", s.heads},
                 {"n_kv_heads", s.kv_heads},
                 {"norm_eps", kNormEps},
                 {"vocab_size", s.vocab},
                 {"tied_embeddings", false},
                 {"model_type", "transformer"},
                 {"rope_theta", kTheta},
                 {"max_position_embeddings", kContext},
                 {"sliding_window", nullptr},
                 {"llama_4_scaling", nullptr},
                 {"yarn",
                  {{"factor", kYarnFactor},
                   {"original_max_position_embeddings", kOriginalContext},
                   {"beta", kBetaFast},
                   {"alpha", kBetaSlow},
                   {"apply_scale", true}}}};
  if (model.format->describe != nullptr) model.format->describe(*model.format, params, Layout::mistral);
  return params;
}

// A vocabulary that llama.cpp and this program accept: a few control tokens, the 256 bytes, and words that
// stand for nothing.
void add_tokenizer(GgufMetadata& metadata, int64_t vocab) {
  constexpr int32_t kNormal = 1, kControl = 3;
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "[INST]", "[/INST]"};
  std::vector<int32_t> types(tokens.size(), kControl);
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    tokens.push_back(to_byte_alphabet(std::string_view(&c, 1)));
  }
  for (size_t id = tokens.size(); id < static_cast<size_t>(vocab); ++id) tokens.push_back("word" + std::to_string(id));
  types.resize(tokens.size(), kNormal);
  metadata.set_string("tokenizer.ggml.model", "gpt2");
  metadata.set_string("tokenizer.ggml.pre", "tekken");
  metadata.set_strings("tokenizer.ggml.tokens", tokens);
  metadata.set_i32s("tokenizer.ggml.token_type", types);
  metadata.set_strings("tokenizer.ggml.merges", {});
  metadata.set_u32("tokenizer.ggml.bos_token_id", 1);
  metadata.set_u32("tokenizer.ggml.eos_token_id", 2);
  metadata.set_u32("tokenizer.ggml.unknown_token_id", 0);
}

GgufMetadata gguf_metadata(const RandomModel& model) {
  const ModelShape& s = model.options.shape;
  auto u32 = [](int64_t value) { return static_cast<uint32_t>(value); };
  const std::string arch = "mistral3";
  GgufMetadata m;
  m.set_string("general.architecture", arch);
  m.set_string("general.name", "random " + model.format->name);
  m.set_u32(arch + ".block_count", u32(s.layers));
  m.set_u32(arch + ".context_length", u32(kContext));
  m.set_u32(arch + ".embedding_length", u32(s.hidden));
  m.set_u32(arch + ".feed_forward_length", u32(s.ffn));
  m.set_u32(arch + ".attention.head_count", u32(s.heads));
  m.set_u32(arch + ".attention.head_count_kv", u32(s.kv_heads));
  m.set_u32(arch + ".attention.key_length", u32(s.head_dim));
  m.set_u32(arch + ".attention.value_length", u32(s.head_dim));
  m.set_f32(arch + ".attention.layer_norm_rms_epsilon", static_cast<float>(kNormEps));
  m.set_u32(arch + ".vocab_size", u32(s.vocab));
  m.set_u32(arch + ".rope.dimension_count", u32(s.head_dim));
  m.set_f32(arch + ".rope.freq_base", static_cast<float>(kTheta));
  m.set_string(arch + ".rope.scaling.type", "yarn");
  m.set_f32(arch + ".rope.scaling.factor", static_cast<float>(kYarnFactor));
  m.set_u32(arch + ".rope.scaling.original_context_length", u32(kOriginalContext));
  m.set_f32(arch + ".rope.scaling.yarn_beta_fast", static_cast<float>(kBetaFast));
  m.set_f32(arch + ".rope.scaling.yarn_beta_slow", static_cast<float>(kBetaSlow));
  m.set_f32(arch + ".rope.scaling.yarn_log_multiplier", 0.0f);
  m.set_f32(arch + ".attention.temperature_scale", 0.0f);
  add_tokenizer(m, s.vocab);
  return m;
}

// --- data

// Gives one writer the bytes of all tensors, in the writer's order.
class Filler {
 public:
  using Progress = std::function<bool(uint64_t, uint64_t)>;
  Filler(const RandomModel& model, ThreadPool& pool, const Progress& progress)
      : model_(model), pool_(pool), progress_(progress) {
    for (size_t i = 0; i < model.tensors.size(); ++i) by_name_[model.tensors[i].name] = i;
  }

  template <class Writer>
  Result<void> fill(Writer& writer) {
    for (const auto& stored : writer.tensors()) {
      const size_t index = by_name_.at(stored.name);
      TRY(fill_one(writer, model_.tensors[index], index));
    }
    return {};
  }

 private:
  // In pieces of whole blocks, made by all threads and then written.
  template <class Writer>
  Result<void> fill_one(Writer& writer, const RandomTensor& tensor, uint64_t stream) {
    constexpr uint64_t kPiece = uint64_t{2} << 20;
    const uint64_t block = random_element_bytes(tensor);
    // Whole elements, and of codes whole draws of 8 bytes.
    const uint64_t piece = kPiece / (8 * block) * (8 * block), total = TRY(random_tensor_bytes(tensor));
    const uint64_t at_once = piece * 4 * static_cast<uint64_t>(pool_.num_threads());
    for (uint64_t at = 0; at < total; at += at_once) {
      const uint64_t count = std::min(at_once, total - at);
      buffer_.resize(std::max<size_t>(buffer_.size(), count));
      const uint64_t pieces = ceil_div(count, piece);
      pool_.parallel_for(static_cast<int64_t>(pieces), 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const uint64_t first = static_cast<uint64_t>(i) * piece;
          auto part = std::span(buffer_).subspan(first, std::min(piece, count - first));
          fill_random_tensor(tensor, model_.options.seed, stream, (at + first) / block, part);
        }
      });
      TRY(writer.write(Bytes(buffer_).first(count)));
      done_ += count;
      if (progress_ && !progress_(done_, model_.bytes)) return Error(ErrorCode::cancelled, "writing was interrupted");
    }
    return {};
  }

  const RandomModel& model_;
  ThreadPool& pool_;
  const Progress& progress_;
  std::map<std::string, size_t> by_name_;
  std::vector<std::byte> buffer_;
  uint64_t done_ = 0;
};

DType dtype_of(const RandomTensor& tensor) {
  if (tensor.content != RandomContent::weights) return tensor.dtype;
  switch (tensor.format) {
    case FormatId::f32: return DType::f32;
    case FormatId::f16: return DType::f16;
    case FormatId::fp8_e4m3: return DType::f8_e4m3;
    default: break;
  }
  CHECK(tensor.format == FormatId::bf16);
  return DType::bf16;
}

Result<void> write_safetensors(const RandomModel& model, const std::string& folder, Filler& filler) {
  const bool hf = model.options.layout == Layout::hf;
  std::vector<StoredTensor> tensors;
  for (const RandomTensor& t : model.tensors) tensors.push_back({t.name, dtype_of(t), t.shape});
  SafetensorsWriterOptions options;
  options.stem = hf ? "model" : "consolidated";
  SafetensorsWriter writer = TRY(SafetensorsWriter::create(folder, std::move(tensors), options));
  TRY(filler.fill(writer));
  TRY(writer.commit());
  // Last: without it the folder is no model.
  FileWriter config = TRY(FileWriter::create(folder + (hf ? "/config.json" : "/params.json")));
  const std::string text = (hf ? hf_config(model) : mistral_params(model)).dump(2) + "\n";
  TRY(config.write(as_bytes(text)));
  return config.commit();
}

// An empty folder at `path`; *made tells whether it was made here.
Result<void> prepare_folder(const std::string& path, bool* made) {
  std::error_code error;
  *made = fs::create_directories(path, error);
  if (error) return Error(ErrorCode::io, path + ": cannot make this folder: " + error.message());
  if (!fs::is_empty(path, error) || error) {
    return invalid(path + ": the folder is not empty; name one that is empty or not there");
  }
  return {};
}

}  // namespace

Result<RandomModel> plan_random_model(const RandomModelOptions& options) {
  RandomModel model;
  model.options = options;
  model.format = TRY(find_model_format(options.format, options.layout));
  const ModelFormat& format = *model.format;
  const ModelShape& s = options.shape;
  TRY(check_shape(s));
  TRY(check_groups(s, format));
  const TensorNames names = TensorNames::of_new_files(options.layout);
  auto stem = [&](const std::string& canonical) {
    const std::string name = names.stored(canonical + "weight");
    return name.substr(0, name.size() - std::string("weight").size());
  };
  auto matrix = [&](const std::string& canonical, int64_t rows, int64_t columns, bool in_body) {
    for (RandomTensor& t : format.tensors(format, {stem(canonical), rows, columns, in_body}, options.layout)) {
      model.tensors.push_back(std::move(t));
    }
  };
  // GGUF keeps vectors in float32, the others in the type of the activations.
  const DType vector_type = options.layout == Layout::gguf || format.dtype == "float32" ? DType::f32
                            : format.dtype == "float16"                                ? DType::f16
                                                                                       : DType::bf16;
  auto norm = [&](const std::string& canonical) {
    model.tensors.push_back({.name = stem(canonical) + "weight", .shape = {s.hidden}, .dtype = vector_type, .value = 1.0});
  };
  const std::string text = "language_model.";
  matrix(text + "embed_tokens.", s.vocab, s.hidden, false);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = text + "layers." + std::to_string(i) + ".";
    norm(layer + "input_layernorm.");
    matrix(layer + "self_attn.q_proj.", s.heads * s.head_dim, s.hidden, true);
    matrix(layer + "self_attn.k_proj.", s.kv_heads * s.head_dim, s.hidden, true);
    matrix(layer + "self_attn.v_proj.", s.kv_heads * s.head_dim, s.hidden, true);
    matrix(layer + "self_attn.o_proj.", s.hidden, s.heads * s.head_dim, true);
    norm(layer + "post_attention_layernorm.");
    matrix(layer + "mlp.gate_proj.", s.ffn, s.hidden, true);
    matrix(layer + "mlp.up_proj.", s.ffn, s.hidden, true);
    matrix(layer + "mlp.down_proj.", s.hidden, s.ffn, true);
  }
  norm(text + "norm.");
  matrix("lm_head.", s.vocab, s.hidden, false);
  for (const RandomTensor& tensor : model.tensors) {
    const uint64_t bytes = TRY(random_tensor_bytes(tensor).with_context("--format " + format.name));
    if (!checked_add(model.bytes, bytes, &model.bytes)) return invalid("the size of all tensors overflows");
  }
  return model;
}

Result<void> write_random_model(const RandomModel& model, const std::string& path, ThreadPool& pool,
                                const std::function<bool(uint64_t, uint64_t)>& progress) {
  Filler filler(model, pool, progress);
  if (model.options.layout == Layout::gguf) {
    std::vector<GgufTensor> tensors;
    for (const RandomTensor& t : model.tensors) {
      CHECK(t.content == RandomContent::weights || t.dtype == DType::f32);
      const FormatId id = t.content == RandomContent::weights ? t.format : FormatId::f32;
      tensors.push_back({t.name, weight_format(id).ggml_type, t.shape});
    }
    GgufWriter writer = TRY(GgufWriter::create(path, gguf_metadata(model), std::move(tensors)));
    TRY(filler.fill(writer));
    return writer.commit();
  }
  bool made = false;
  TRY(prepare_folder(path, &made));
  Result<void> written = write_safetensors(model, path, filler);
  std::error_code ignored;
  if (!written && made) fs::remove(path, ignored);  // only when it is empty
  return written;
}

}  // namespace bise
