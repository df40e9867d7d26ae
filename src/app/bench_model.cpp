#include "app/bench_model.h"

#include <algorithm>
#include <map>
#include <set>

#include "app/terminal.h"
#include "base/random.h"
#include "model/tensor_names.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr double kPeakSeconds = 0.2;  // of one measurement between two rounds

// Ordinary ids; which ones does not matter for the work they make.
std::vector<int32_t> prompt_ids(const ModelConfig& config, int64_t count, int sequence) {
  std::vector<int32_t> ids;
  const int32_t first = std::min(config.vocab_size / 2, 1000);  // behind the control tokens
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = random_bits(1, static_cast<uint64_t>(sequence), static_cast<uint64_t>(i));
    ids.push_back(first + static_cast<int32_t>(bits % static_cast<uint64_t>(config.vocab_size - first)));
  }
  return ids;
}

// While one sequence reads its prompt, those before it decode already: the tokens they may take then.
int64_t head_start(const EngineOptions& options, int sequences, int64_t prompt_tokens) {
  if (sequences == 1) return 0;
  const int64_t rows = options.max_step_tokens - sequences;  // left to prompts when all others decode
  return (sequences * prompt_tokens + rows - 1) / rows + 1;
}

}  // namespace

Result<MainFormat> main_format(const Checkpoint& checkpoint, const ModelConfig& config) {
  const TensorNames names = TRY(TensorNames::detect(checkpoint));
  struct Held {
    uint64_t bytes = 0;
    WeightView weight;
  };
  std::map<std::string, Held> held;
  auto add = [&](const std::string& canonical) -> Result<void> {
    const WeightView view = TRY(checkpoint.weight(names.stored(canonical)));
    Held& same = held[describe_format(view)];
    same.bytes += view.codes.size();
    same.weight = view;
    return {};
  };
  for (int32_t i = 0; i < config.num_layers; ++i) {
    for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      TRY(add("language_model.layers." + std::to_string(i) + "." + part + ".weight"));
    }
  }
  TRY(add(config.tied ? "language_model.embed_tokens.weight" : "lm_head.weight"));
  const auto most = std::max_element(held.begin(), held.end(), [](const auto& a, const auto& b) {
    return a.second.bytes < b.second.bytes;
  });
  return MainFormat{most->first, most->second.weight};
}

Result<ModelBench> ModelBench::open(const std::string& model, const CommonOptions& options) {
  ModelBench bench;
  bench.session_ = TRY(open_session(model, {options, /*needs_text=*/false, /*makes_engine=*/false}, make_log(options.log_level)));
  bench.engine_options_ = engine_options(options);
  bench.format_ = TRY(main_format(*bench.session_->checkpoint, bench.config()));
  return bench;
}

Json ModelBench::row() const {
  Json row = {{"model", session_->path},
              {"format", format_.name},
              {"threads", session_->backend->num_threads()},
              {"isa", session_->backend->isa()}};
  if (const auto& device = session_->model->memory_plan().device) row["cpu_layers"] = device->host_layers;
  return row;
}

Result<std::unique_ptr<Engine>> ModelBench::engine(int sequences, int64_t prompt_tokens, int64_t steps) const {
  EngineOptions options = engine_options_;
  options.max_sequences = sequences;
  options.prefix_cache = false;  // every round reads its prompts anew
  const int64_t tokens = prompt_tokens + 1 + steps + head_start(options, sequences, prompt_tokens);
  const int64_t context = options.context > 0 ? options.context : config().context_length;
  if (tokens > context) {  // answers would be cut short
    return Error(ErrorCode::too_large, std::to_string(prompt_tokens) + " tokens and " +
                                           std::to_string(tokens - prompt_tokens) +
                                           " more for the rounds do not fit the context of " + std::to_string(context) +
                                           ": ask for fewer tokens, steps or rounds, or raise --context");
  }
  options.kv_tokens = sequences * static_cast<int64_t>(round_up(static_cast<uint64_t>(tokens), kKvBlockSize));
  return Engine::create(*session_->model, options);
}

Result<ModelBench::Running> ModelBench::prefill(Engine& engine, int sequences, int64_t prompt_tokens,
                                                int64_t steps) const {
  // With nothing to follow each ends with its first token.
  const int64_t answer = steps == 0 ? 1 : 1 + steps + head_start(engine_options_, sequences, prompt_tokens);
  Running running;
  for (int i = 0; i < sequences; ++i) {
    NewSequence sequence;
    sequence.ids = prompt_ids(config(), prompt_tokens, i);
    sequence.params.temperature = 0.0;
    sequence.params.ignore_eos = true;
    sequence.params.max_tokens = static_cast<int32_t>(answer);
    running.ids.push_back(TRY(engine.submit(std::move(sequence))));
  }
  std::set<SequenceId> waiting(running.ids.begin(), running.ids.end());
  double generated = 0;
  const double start = now_seconds();
  while (!waiting.empty()) {
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    CHECK(!engine.idle());
    for (const SequenceEvent& event : engine.step()) {
      if (event.error) return *event.error;
      if (!event.token) continue;
      waiting.erase(event.sequence);
      ++generated;
    }
  }
  running.prompt_seconds = now_seconds() - start;
  running.tokens = static_cast<double>(prompt_tokens) + generated / sequences;
  return running;
}

Result<double> ModelBench::step(Engine& engine, Running& running) const {
  if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
  size_t tokens = 0;
  const double start = now_seconds();
  for (const SequenceEvent& event : engine.step()) {
    if (event.error) return *event.error;
    if (event.token) ++tokens;
  }
  const double seconds = now_seconds() - start;
  CHECK(tokens == running.ids.size());  // none waits and none has ended
  ++running.tokens;
  return seconds;
}

void ModelBench::finish(Engine& engine, const Running& running) const {
  for (SequenceId id : running.ids) engine.cancel(id);
  engine.step();  // tells of their ends
}

double ModelBench::step_bytes(const Engine& engine, int sequences, double tokens) const {
  return static_cast<double>(session_->model->step_bytes()) +
         sequences * static_cast<double>(engine.kv_step_bytes(static_cast<int64_t>(tokens + 0.5)));
}

double ModelBench::read_bandwidth() {
  if (!probe_) probe_ = session_->backend->probe_reads(kPeakSeconds);
  return probe_->read();
}
double ModelBench::measure_disk() const {
  constexpr double kSeconds = 1.0;  // longer than a disk's bursts
  return streams() ? measure_stream_disk(session_->forecast, kSeconds) / 1e9 : 0.0;
}
double ModelBench::measure_matrix_peak(int64_t rows) const {
  return peak_of(session_->backend->measure_matrix_peak(kPeakSeconds), arithmetic(rows));
}

}  // namespace bise
