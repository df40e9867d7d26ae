// `bise bench load`: how long a model takes to load, cold and warm, beside the rate at which the disk gives
// the same bytes past the page cache.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>

#include "app/bench.h"
#include "app/bench_math.h"
#include "app/bench_model.h"
#include "app/machine.h"
#include "app/model_files.h"
#include "app/model_source.h"
#include "app/options.h"
#include "app/session.h"
#include "app/terminal.h"

namespace bise {
namespace {

struct LoadOptions {
  std::string model;
  int reps = 3;
  bool json = false;
  CommonOptions common;
};

struct Mode {
  std::vector<double> seconds, cached;  // of each load; the share of the files that was in memory before
  std::vector<double> memory;           // GB/s that it came at before each load
  uint64_t peak_bytes = 0;
};

// Takes twice the memory that the weights need and gives it back: what the host of a virtual machine gives only when it is touched,
// and slower than a disk reads (0.4 GB/s were seen), is there for the load then. GB/s. Leaves room for the files in the page cache,
// which counts as available.
Result<double> touch_memory(Backend& backend, uint64_t weight_bytes) {
  const uint64_t available = available_memory(),
                 spare = available > weight_bytes ? (available - weight_bytes) / 4 * 3 : 0;
  const uint64_t bytes = std::max<uint64_t>(std::min(2 * weight_bytes, spare), 1);
  const double start = now_seconds();
  const Buffer memory = TRY(backend.allocate(bytes, "touching memory"));
  std::memset(memory.data(), 1, bytes);
  return static_cast<double>(bytes) / (now_seconds() - start) / 1e9;
}

// The files of the model, of which the page cache is to hold nothing, and the largest of them.
struct ModelFileList {
  std::vector<std::string> all;
  std::string largest;
  uint64_t stored_bytes = 0;
};
Result<ModelFileList> files_of(const LoadOptions& options) {
  const std::string path = TRY(resolve_model(options.model, model_places_from_environment()));
  const Checkpoint checkpoint = TRY(open_checkpoint(path, options.common, make_log(options.common.log_level)));
  ModelFileList files{checkpoint.files(), "", checkpoint.total_bytes()};
  uint64_t most = 0;
  for (const std::string& file : files.all) {
    std::error_code error;
    const uint64_t bytes = std::filesystem::file_size(file, error);
    if (error || bytes < most) continue;
    most = bytes;
    files.largest = file;
  }
  return files;
}

Result<int> bench_load(const LoadOptions& options) {
  constexpr uint64_t kDiskBytes = uint64_t{2} << 30;
  constexpr double kCold = 0.05;  // so much of the files in memory is still called cold
  const ModelFileList files = TRY(files_of(options));
  const std::unique_ptr<Backend> backend = TRY(create_backend("cpu", {}));
  Json facts;
  Mode modes[2];  // cold, warm
  LimitedRates cold;  // GB/s, beside the disk just before and after
  bool direct = true;
  uint64_t file_bytes = 0, weight_bytes = 0;
  const bool peaks = reset_peak_memory();
  auto measure_disk = [&] {
    const auto speed = measure_disk_file(files.largest, kDiskBytes);
    direct = direct && !(speed && speed->cached);
    return speed ? speed->gb_per_s() : 0.0;
  };
  for (int rep = 0; rep < options.reps; ++rep) {
    const double disk_before = measure_disk();
    for (Mode& mode : modes) {
      // A cold load leaves nothing in the page cache: it reads past it.
      if (&mode == &modes[0]) drop_cached(files.all);
      else fill_cache(files.all);
      mode.memory.push_back(TRY(touch_memory(*backend, files.stored_bytes)));
      mode.cached.push_back(cached_share(files.all));
      reset_peak_memory();
      const ModelBench bench = TRY(ModelBench::open(options.model, options.common));
      const Session& session = bench.session();
      mode.seconds.push_back(session.load_seconds);
      mode.peak_bytes = std::max(mode.peak_bytes, peak_memory());
      facts = bench.row();
      file_bytes = session.checkpoint->total_bytes();
      weight_bytes = session.model->weight_bytes();
      if (&mode == &modes[0])
        cold.add(static_cast<double>(file_bytes) / session.load_seconds / 1e9, disk_before, measure_disk());
    }
  }
  RowWriter writer({{"format", "format", 0, -8},
                    {"mode", "mode", 0, -5},
                    {"cached_before", "in memory", 2},
                    {"load_s", "seconds", 2},
                    {"load_s_min", "min", 2},
                    {"load_s_max", "max", 2},
                    {"load_gb_s", "GB/s", 2},
                    {"disk_gb_s", "disk GB/s", 2},
                    {"load_share", "share", 3, 6},
                    {"memory_gb_s", "memory GB/s", 2},
                    {"peak_rss_mb", "peak MB", 0},
                    {"weights_mb", "weights MB", 0, 10},
                    {"memory_ratio", "ratio", 3, 6}},
                   options.json);
  for (const Mode& mode : modes) {
    const bool is_cold = &mode == &modes[0];
    const Spread seconds = spread_of(mode.seconds);
    const double cached = spread_of(mode.cached).max;
    Json row = facts;
    row["mode"] = is_cold ? "cold" : "warm";
    row["cached_before"] = cached;
    row["load_s"] = seconds.median;
    row["load_s_min"] = seconds.min;
    row["load_s_max"] = seconds.max;
    row["load_gb_s"] = share_of(static_cast<double>(file_bytes), seconds.median) / 1e9;
    const bool told = direct && cold.limits().min > 0;
    row["disk_gb_s"] = told ? Json(cold.limits().median) : Json();
    // What the disk has not given in full is no share of its rate.
    if (is_cold && told && cached <= kCold) add_shares(row, "load", cold.shares());
    else row["load_share"] = nullptr;
    row["memory_gb_s"] = spread_of(mode.memory).median;
    row["peak_rss_mb"] = peaks || is_cold ? Json(static_cast<double>(mode.peak_bytes) / (1 << 20)) : Json();
    row["weights_mb"] = static_cast<double>(weight_bytes) / (1 << 20);
    row["stored_mb"] = static_cast<double>(file_bytes) / (1 << 20);
    row["memory_ratio"] = share_of(static_cast<double>(mode.peak_bytes), static_cast<double>(file_bytes));
    TRY(writer.write(row));
  }
  const Log log = make_log(options.common.log_level);
  if (spread_of(modes[0].cached).max > kCold) {
    log.warning("the page cache could not be emptied of the model's files (another program maps them?): the row \"cold\" is not");
  }
  if (!direct) log.warning(files.largest + ": this file system has no reads past the page cache, so the disk's rate is not known");
  return kExitDone;
}

}  // namespace

void add_bench_load(CLI::App& bench, Action& action) {
  auto options = std::make_shared<LoadOptions>();
  CLI::App* command = bench.add_subcommand("load", "time to load, cold and warm, beside the disk's rate");
  command->add_option("MODEL", options->model, "the model")->required();
  command->add_option("--reps", options->reps, "rounds of a cold and a warm load")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "print JSON objects, one per line");
  add_common_options(*command, options->common);
  command->footer(
      "cold: the page cache was asked to forget the files before; warm: to read them. disk_gb_s: direct reads\n"
      "(O_DIRECT, 8 MiB, 4 threads) of the model's largest file just before and after each cold load, to which load_share\n"
      "holds it. Memory is touched before (memory_gb_s): what the host of a virtual machine must give first comes slower than\n"
      "files. Medians. peak_rss_mb counts pages of the files as long as they are mapped.");
  command->callback([options, &action] { action = [options] { return bench_load(*options); }; });
}

}  // namespace bise
