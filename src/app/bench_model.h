// Timing one loaded model: what `bise bench run`, `decode`, `prefill` and `batch` have in common.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/session.h"
#include "base/error.h"
#include "base/json.h"

namespace bise {

// Which format holds most bytes of what a step reads, and how its products are computed.
struct MainFormat {
  std::string name;
  WeightView weight;  // one of its matrices
};
Result<MainFormat> main_format(const Checkpoint& checkpoint, const ModelConfig& config);

// A session with the facts that every row repeats, and the peaks measured between its rounds.
class ModelBench {
 public:
  static Result<ModelBench> open(const std::string& model, const CommonOptions& options);

  const Session& session() const { return *session_; }
  const ModelConfig& config() const { return session_->model->config(); }
  // {"model", "format", "threads", "isa"}: the beginning of every row.
  Json row() const;

  // Sequences that run side by side.
  struct Running {
    std::vector<SequenceId> ids;
    double prompt_seconds = 0;  // until each had its first token
    double tokens = 0;          // of one in the cache, the mean of all
  };
  // An engine of its own, with room for `sequences` that read `prompt_tokens` and then take `steps` steps.
  Result<std::unique_ptr<Engine>> engine(int sequences, int64_t prompt_tokens, int64_t steps) const;
  // Starts them and runs until each has its first token. `steps` more can follow.
  Result<Running> prefill(Engine& engine, int sequences, int64_t prompt_tokens, int64_t steps) const;
  // One step of decoding: seconds.
  Result<double> step(Engine& engine, Running& running) const;
  void finish(Engine& engine, const Running& running) const;

  // Bytes of weights, and of K and V of `sequences` that hold `tokens` each, that one step reads.
  double step_bytes(const Engine& engine, int sequences, double tokens) const;

  double read_bandwidth();  // a reading, GB/s
  // Whether weights stream; the disk's own rate where they lie, GB/s (0: nothing streams).
  bool streams() const { return session_->model->memory_plan().streams; }
  double measure_disk() const;
  // What the model's products of so many rows multiply, and how fast the processor does that at most, TFLOP/s.
  Arithmetic arithmetic(int64_t rows) const { return session_->backend->product_arithmetic(format_.weight, rows); }
  double measure_matrix_peak(int64_t rows) const;

 private:
  ModelBench() = default;
  std::unique_ptr<Session> session_;
  MainFormat format_;
  EngineOptions engine_options_;
  std::unique_ptr<ReadProbe> probe_;
};

}  // namespace bise
