// `bise bench make-model`: a checkpoint with random weights of the published shape.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>
#include <memory>

#include "app/bench.h"
#include "app/random_model.h"
#include "app/terminal.h"
#include "app/text_format.h"

namespace fs = std::filesystem;

namespace bise {
namespace {

struct MakeModelOptions {
  RandomModelOptions model;
  std::string out, layout = "auto";
  int threads = 0;
  bool json = false;
};

Layout layout_of(const MakeModelOptions& options) {
  if (options.layout == "hf") return Layout::hf;
  if (options.layout == "mistral") return Layout::mistral;
  return options.layout == "gguf" || options.out.ends_with(".gguf") ? Layout::gguf : Layout::hf;
}

// Refused before anything is written: a disk that will be full is noticed by everyone on it.
Result<void> check_space(const std::string& out, uint64_t bytes) {
  constexpr uint64_t kReserve = uint64_t{64} << 20;
  std::error_code error;
  fs::path folder = fs::absolute(out, error);
  while (!folder.empty() && !fs::exists(folder, error) && folder != folder.parent_path()) folder = folder.parent_path();
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= bytes + kReserve) return {};
  return Error(ErrorCode::io, out + ": needs " + format_bytes(bytes) + ", but " + folder.string() + " has " +
                                  format_bytes(space.available) + " free; fewer --layers need less");
}

Result<int> make_model(MakeModelOptions options) {
  options.model.layout = layout_of(options);
  const bool gguf = options.model.layout == Layout::gguf;
  if (gguf != options.out.ends_with(".gguf")) {
    return Error(ErrorCode::invalid_argument,
                 options.out + ": the layout " + layout_name(options.model.layout) +
                     (gguf ? " is one file; expected a name that ends with .gguf" : " is a folder; its name may not end with .gguf"));
  }
  RandomModel model = TRY(plan_random_model(options.model));
  TRY(check_space(options.out, model.bytes));
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cores());
  const double start = now_seconds();
  {
    ProgressBar bar("writing");
    TRY(write_random_model(model, options.out, pool, [&bar](uint64_t done, uint64_t total) {
      bar.update(done, total);
      return !interrupted();
    }));
  }
  const double seconds = now_seconds() - start;
  const Json json = {{"path", options.out},
                     {"layout", layout_name(options.model.layout)},
                     {"format", model.format->name},
                     {"layers", options.model.shape.layers},
                     {"tensors", model.tensors.size()},
                     {"bytes", model.bytes},
                     {"seconds", seconds}};
  if (options.json) TRY(write_output(json_line(json)));
  else TRY(write_output(options.out + ": " + format_bytes(model.bytes) + " in " + std::to_string(model.tensors.size()) +
                        " tensors, " + model.format->name + ", layout " + layout_name(options.model.layout) + "\n"));
  return kExitDone;
}

}  // namespace

void add_bench_make_model(CLI::App& bench, Action& action) {
  auto options = std::make_shared<MakeModelOptions>();
  CLI::App* command = bench.add_subcommand("make-model", "write a checkpoint with random weights of the published shape");
  command->add_option("OUT", options->out, "a folder, or a file that ends with .gguf")->required();
  command->add_option("--format", options->model.format, "weight format")->check(CLI::IsMember(model_format_names()))->required();
  command->add_option("--layout", options->layout, "auto: gguf when OUT ends with .gguf, else hf")
      ->check(CLI::IsMember({"auto", "hf", "mistral", "gguf"}))
      ->capture_default_str();
  ModelShape& shape = options->model.shape;
  auto size = [&](const char* name, int64_t& value, const char* text, int64_t low, int64_t high) {
    command->add_option(name, value, text)->check(CLI::Range(low, high))->capture_default_str();
  };
  size("--layers", shape.layers, "decoder layers", 1, 1000);
  size("--hidden", shape.hidden, "width of the residual", 1, 1 << 20);
  size("--ffn", shape.ffn, "width of the feed-forward part", 1, 1 << 22);
  size("--heads", shape.heads, "query heads", 1, 1 << 12);
  size("--kv-heads", shape.kv_heads, "key and value heads", 1, 1 << 12);
  size("--head-dim", shape.head_dim, "size of a head", 2, 1 << 12);
  size("--vocab", shape.vocab, "tokens", 512, 1 << 22);
  command->add_option("--seed", options->model.seed, "of the random numbers")->capture_default_str();
  command->add_option("--threads", options->threads, "CPU threads; 0: all usable cores")
      ->check(CLI::Range(0, 1024))
      ->envname("BISE_THREADS")
      ->capture_default_str();
  command->add_flag("--json", options->json, "print one JSON object");
  command->footer(
      "Weights have mean 0 and standard deviation 0.02, norms are 1. There is no vision tower. Folders get no\n"
      "tokenizer: `bise bench` needs none; other programs that want one can be given any. GGUF files get a\n"
      "vocabulary of bytes and filler words. The same options give the same bytes.");
  command->callback([options, &action] { action = [options] { return make_model(*options); }; });
}

}  // namespace bise
