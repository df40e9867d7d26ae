#include "model/weights.h"

#include <cmath>
#include <functional>
#include <utility>

#include "base/file.h"
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
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, TensorNames names, const Placement& placement,
         const std::function<bool(uint64_t, uint64_t)>& progress, const Log& log)
      : checkpoint_(checkpoint),
        config_(config),
        names_(std::move(names)),
        placement_(placement),
        progress_(progress),
        log_(log) {}

  // A weight that load() will pack.
  struct Found {
    PlannedWeight planned;
    WeightSize size;
    Backend* backend;
  };
  // All of them in its order, which is that of their use, and nothing read but the tables of the files.
  Result<std::vector<Found>> survey() {
    is_survey_ = true;
    auto done = load();
    is_survey_ = false;
    if (!done) return std::move(done).error();
    return std::exchange(found_, {});
  }
  void place(const Placement& placement) { placement_ = placement; }

  Result<ModelWeights> load() {
    const std::string text = "language_model.";
    ModelWeights w;
    num_parameters_ = bytes_ = read_bytes_ = 0;
    const std::vector<Part> table = {{text + "embed_tokens.weight", config_.vocab_size}};
    const std::string fields = "vocab_size and hidden_size";
    // One matrix that is both lies twice where two backends need it.
    const bool is_shared = config_.tied && placement_.host == nullptr;
    backend_ = &placement_.of_embedding();
    if (!is_shared) w.embedding = TRY(linear(table, config_.hidden_size, fields, WeightRole::table));
    const uint64_t table_bytes = w.embedding.bytes;
    BlockShape shape{config_.hidden_size, config_.num_heads, config_.num_kv_heads, config_.head_dim,
                     config_.intermediate_size};
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      std::string prefix = text + "layers." + std::to_string(i) + ".";
      backend_ = &placement_.of_layer(i);
      layer_ = i;
      w.layers.push_back(TRY(block(prefix, kTextBlock, shape)));
    }
    backend_ = placement_.main;
    if (config_.tied && !is_shared)
      num_parameters_ -= static_cast<uint64_t>(config_.vocab_size) * static_cast<uint64_t>(config_.hidden_size);
    const std::vector<Part> head = config_.tied ? table : std::vector<Part>{{"lm_head.weight", config_.vocab_size}};
    (is_shared ? w.embedding : w.head.emplace()) = TRY(linear(head, config_.hidden_size, fields, WeightRole::head));
    w.norm = TRY(vector(text + "norm.weight", config_.hidden_size, "hidden_size"));
    w.step_bytes = bytes_ - table_bytes;
    role_ = WeightRole::vision;
    if (config_.vision) w.vision = TRY(vision(*config_.vision));
    role_ = WeightRole::layer;
    w.num_parameters = num_parameters_;
    w.bytes = bytes_;
    warn_of_decoded();
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
    if (is_survey_) return Buffer();
    std::vector<float> values = TRY(checkpoint_.values(tensor->name));
    for (float value : values) {
      if (!std::isfinite(value)) {
        return Error(ErrorCode::corrupt, checkpoint_.path() + ": tensor " + tensor->name +
                                             " holds a value that is not finite");
      }
    }
    num_parameters_ += values.size();
    bytes_ += values.size() * sizeof(float);
    return backend_->upload(values);
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

  void warn_of_decoded() const {
    if (num_decoded_ == 0) return;
    log_.warning(checkpoint_.path() + ": " + std::to_string(num_decoded_) + " products (" + decoded_ +
                 (num_decoded_ > 1 ? " and others" : "") + ", " + std::to_string(decoded_bytes_ >> 20) +
                 " MiB) have a layout without a fast kernel and are decoded at every use: right, but "
                 "about 100 times slower than memory");
  }

  // The parts of one product, stacked. `columns` is shared.
  Result<Weight> linear(const std::vector<Part>& parts, int64_t columns, const std::string& fields,
                        std::optional<WeightRole> role = std::nullopt) {
    std::vector<WeightView> views;
    for (const Part& part : parts) {
      const std::string stored = names_.stored(part.name);
      if (!checkpoint_.has_weight(stored)) TRY(find(part.name));  // the error of a missing tensor
      WeightView view = TRY(matrix_view(checkpoint_, stored, !is_survey_));
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
    if (is_survey_) {
      WeightSize size;
      size.cost = backend_->weight_cost(views);
      size.role = role.value_or(role_);
      size.layer = layer_;
      size.columns = columns;
      found_.push_back({{std::move(views), WeightHome::memory, role_ == WeightRole::vision ? 1 : 0}, size, backend_});
      return Weight();
    }
    Weight weight = TRY(backend_->pack_weight(views).with_context(checkpoint_.path() + ": " + views[0].name));
    for (const WeightView& view : views) {
      read_bytes_ += view.codes.size() + view.scale.bytes.size() + view.zero.bytes.size();
      if (!weight.is_mapped) checkpoint_.drop(view);
    }
    bytes_ += weight.bytes;
    if (weight.decoded_bytes > 0) {
      if (num_decoded_++ == 0) decoded_ = views[0].name + " " + describe_format(views[0]);
      decoded_bytes_ += weight.decoded_bytes;
    }
    if (progress_ && !progress_(read_bytes_, checkpoint_.total_bytes())) {
      return Error(ErrorCode::cancelled, "loading was interrupted");
    }
    return weight;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  TensorNames names_;
  Placement placement_;
  Backend* backend_ = nullptr;  // of what is being loaded
  const std::function<bool(uint64_t, uint64_t)>& progress_;
  const Log& log_;
  bool warned_ = false;
  int64_t num_decoded_ = 0;  // products without a kernel, the first of them, and their bytes
  std::string decoded_;
  uint64_t decoded_bytes_ = 0;
  uint64_t num_parameters_ = 0, bytes_ = 0, read_bytes_ = 0;
  WeightRole role_ = WeightRole::layer;  // of what is being loaded
  int32_t layer_ = 0;
  bool is_survey_ = false;
  std::vector<Found> found_;
};

// Whether most of what is to be in memory is in the page cache already: then the maps are the quickest
// way. The answer is a sample of the pages.
bool is_cached(std::span<const PlannedWeight> weights, std::span<const StoredFile> files) {
  constexpr double kMostly = 0.9;
  double cached = 0.0, all = 0.0;
  for (const StoredFile& file : files) {
    const std::byte *low = nullptr, *high = nullptr;
    for (const PlannedWeight& weight : weights) {
      if (weight.home != WeightHome::memory) continue;
      for (const WeightView& view : weight.parts) {
        if (!find_in_files({&file, 1}, view.codes)) continue;
        const std::byte* begin = view.codes.data();
        if (low == nullptr || std::less<>()(begin, low)) low = begin;
        if (high == nullptr || std::less<>()(high, begin + view.codes.size())) high = begin + view.codes.size();
      }
    }
    if (low == nullptr || low == high) continue;
    const Bytes part(low, high);
    cached += cached_share(file.path, part) * static_cast<double>(part.size());
    all += static_cast<double>(part.size());
  }
  return cached >= kMostly * all;
}

}  // namespace

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  Backend& backend, const WeightLoadOptions& options, const Log& log,
                                  MemoryPlan* memory) {
  TensorNames names = TRY(TensorNames::detect(checkpoint));
  Placement placement(backend);
  Loader loader(checkpoint, config, std::move(names), placement, options.progress, log);
  std::vector<Loader::Found> found = TRY(loader.survey());
  std::vector<WeightSize> sizes;
  std::optional<DevicePlan> device;
  if (options.memory.device_ceiling > 0) {
    for (const Loader::Found& weight : found) sizes.push_back(weight.size);
    device = TRY(plan_device(config, sizes, options.memory));
    placement = Placement(backend, device->host_layers);
    loader.place(placement);
    found = TRY(loader.survey());
  }

  // What the host's memory is planned for.
  std::vector<StoredFile> files;
  for (const FileMap* map : checkpoint.maps()) files.push_back({map->path(), map->bytes()});
  Backend& host = placement.of_embedding();
  ModelConfig part = config;
  MemoryRequest request = options.memory;
  if (device) request.context = device->context;
  if (placement.host != nullptr) part.num_layers = placement.host_layers;
  else if (device) request.ceiling = 0;  // nothing is the host's
  sizes.clear();
  for (Loader::Found& weight : found) {
    weight.size.is_in_file = lies_in_files(files, weight.planned.parts);
    if (weight.backend == &host) sizes.push_back(weight.size);
  }
  *memory = TRY(plan_memory(part, sizes, request));
  memory->device = device;
  if (options.ring_bytes > 0) memory->ring_bytes = options.ring_bytes;

  WeightPlan plan, of_device;
  std::vector<WeightSize> device_sizes;
  Bytes first_streamed;
  for (Loader::Found& weight : found) {
    if (weight.backend != &host) {
      device_sizes.push_back(weight.size);
      of_device.weights.push_back(std::move(weight.planned));
      continue;
    }
    weight.planned.home = memory->homes[plan.weights.size()];
    if (weight.planned.home == WeightHome::streamed && first_streamed.empty()) {
      first_streamed = weight.planned.parts[0].codes;
    }
    plan.weights.push_back(std::move(weight.planned));
  }
  if (options.on_plan) options.on_plan(*memory, first_streamed);
  plan.files = files;
  plan.bounded = memory->bounded;
  plan.direct = options.read || !is_cached(plan.weights, plan.files);
  plan.ring_bytes = memory->ring_bytes;
  plan.read = options.read;
  plan.log = log;
  log.info(plan.direct ? "weights are read past the page cache"
                       : "weights are in the page cache and are read through it");
  TRY(host.plan_weights(std::move(plan)).with_context(checkpoint.path()));
  if (placement.host != nullptr) {
    of_device.files = std::move(files);
    of_device.log = log;
    of_device.ring_bytes = options.ring_bytes > 0 ? options.ring_bytes : loading_ring_bytes(device_sizes);
    of_device.direct = options.read || !is_cached(of_device.weights, of_device.files);
    of_device.read = options.read;
    TRY(backend.plan_weights(std::move(of_device)).with_context(checkpoint.path()));
  }
  return loader.load();
}

}  // namespace bise
