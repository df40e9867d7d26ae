#include "model/model.h"

#include "model/decoder.h"
#include "model/rope.h"
#include "model/vision.h"
#include "model/weights.h"

namespace bise {

struct Model::State {
  ModelConfig config;
  ModelWeights weights;
  MemoryPlan memory;
  std::vector<float> frequencies;
  Placement placement;
  // Memory of the running step, kept between steps: the one thing here that changes after loading,
  // and of no effect on results.
  DecoderScratch scratch;
};

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

Result<Model> Model::load(const Checkpoint& checkpoint, Backend& backend,
                          const ModelLoadOptions& options, const Log& log) {
  auto state = std::make_unique<State>();
  state->config = TRY(read_model_config(checkpoint, options.config, log));
  state->weights =
      TRY(load_weights(checkpoint, state->config, backend, options.weights, log, &state->memory));
  state->placement = Placement(backend, state->memory.device ? state->memory.device->host_layers : 0);
  state->frequencies = rope_frequencies(state->config.rope, state->config.head_dim);
  return Model(std::move(state));
}

const ModelConfig& Model::config() const { return state_->config; }
Backend& Model::backend() const { return *state_->placement.main; }
const Placement& Model::placement() const { return state_->placement; }
uint64_t Model::step_bytes() const { return state_->weights.step_bytes; }
uint64_t Model::weight_bytes() const { return state_->weights.bytes; }
const MemoryPlan& Model::memory_plan() const { return state_->memory; }
uint64_t Model::num_parameters() const { return state_->weights.num_parameters; }

Result<void> Model::forward(const Batch& batch, KvCache& cache, MatrixView logits) const {
  auto done = decoder_forward(state_->config, state_->weights, state_->frequencies, state_->placement, batch, cache,
                              state_->scratch, logits);
  if (!done) {  // nothing of a failed step is left to run in the next one; it was told why already
    static_cast<void>(state_->placement.main->synchronize());
    if (state_->placement.host != nullptr) static_cast<void>(state_->placement.host->synchronize());
  }
  return done;
}

Result<ImageFeatures> Model::encode_image(const ProcessedImage& image) const {
  if (!state_->config.vision) {
    return Error(ErrorCode::unsupported,
                 "this model was loaded without a vision tower and cannot read pictures");
  }
  return vision_forward(state_->config, *state_->weights.vision, *state_->placement.main, image);
}

}  // namespace bise
