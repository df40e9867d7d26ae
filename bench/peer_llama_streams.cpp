// Tokens per second of llama.cpp with several streams in one batch, through its C API: its server without HTTP,
// JSON and detokenizing, so at least as fast as the server. Every stream reads 16 tokens and then draws 96, the
// most likely ones. Not built here; against a release of llama.cpp (headers, and a folder of its libraries):
//
//   g++ -std=c++20 -O3 -Illama.cpp/include -Illama.cpp/ggml/include bench/peer_llama_streams.cpp -o peer_llama_streams
//       LIBS/libllama.so LIBS/libggml.so LIBS/libggml-base.so -Wl,-rpath,LIBS
//   peer_llama_streams LIBS MODEL.gguf THREADS STREAMS [REPS]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {

constexpr int kPrompt = 16, kAnswer = 96;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Streams {
  llama_context* context;
  int vocab_size, count;

  void add(llama_batch& batch, llama_token token, int position, int stream, bool wants_logits) const {
    const int i = batch.n_tokens++;
    batch.token[i] = token;
    batch.pos[i] = position;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = stream;
    batch.logits[i] = wants_logits;
  }
  llama_token most_likely(int row) const {
    const float* logits = llama_get_logits_ith(context, row);
    return static_cast<llama_token>(std::max_element(logits, logits + vocab_size) - logits);
  }
  // Seconds for all answers.
  double run() const {
    llama_memory_clear(llama_get_memory(context), true);
    llama_batch batch = llama_batch_init(kPrompt * count, 0, 1);
    std::vector<llama_token> next(static_cast<size_t>(count));
    const double start = now();
    std::vector<int> rows;
    for (int s = 0; s < count; ++s) {
      for (int i = 0; i < kPrompt; ++i) add(batch, 1000 + (s * 131 + i * 7919) % 20000, i, s, i + 1 == kPrompt);
      rows.push_back(batch.n_tokens - 1);
    }
    if (llama_decode(context, batch) != 0) std::exit(2);
    for (int s = 0; s < count; ++s) next[static_cast<size_t>(s)] = most_likely(rows[static_cast<size_t>(s)]);
    for (int t = 1; t < kAnswer; ++t) {
      batch.n_tokens = 0;
      for (int s = 0; s < count; ++s) add(batch, next[static_cast<size_t>(s)], kPrompt + t - 1, s, true);
      if (llama_decode(context, batch) != 0) std::exit(2);
      for (int s = 0; s < count; ++s) next[static_cast<size_t>(s)] = most_likely(s);
    }
    const double seconds = now() - start;
    llama_batch_free(batch);
    return seconds;
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 1;
  llama_log_set([](ggml_log_level level, const char* text, void*) { if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr); }, nullptr);
  ggml_backend_load_all_from_path(argv[1]);
  llama_backend_init();
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  llama_model* model = llama_model_load_from_file(argv[2], model_params);
  if (model == nullptr) return 2;
  const int streams = std::atoi(argv[4]), reps = argc > 5 ? std::atoi(argv[5]) : 3;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(streams * 256);
  params.n_seq_max = static_cast<uint32_t>(streams);
  params.n_threads = params.n_threads_batch = std::atoi(argv[3]);
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) return 2;
  const Streams run{context, llama_vocab_n_tokens(llama_model_get_vocab(model)), streams};
  double best = 0;
  for (int i = 0; i < reps; ++i) best = std::max(best, streams * kAnswer / run.run());
  std::printf("{\"streams\": %d, \"threads\": %s, \"tokens_per_s\": %.1f}\n", streams, argv[3], best);
  std::fflush(stdout);
  std::_Exit(0);  // its libraries do not like to be unloaded
}
