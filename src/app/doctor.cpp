// `bise doctor`: what this machine has for running models, measured where that takes under a
// second, and what to change.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>

#include "app/commands.h"
#include "app/machine.h"
#include "app/model_source.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "app/version.h"
#include "backend/backend.h"
#include "base/json.h"

namespace bise {
namespace {

struct DoctorOptions {
  std::string folder;
  bool json = false;
};

struct Findings {
  Machine machine;
  std::string isa;  // the level that `--isa auto` takes
  double read_gb_s = 0;
  std::string folder;
  std::optional<DiskSpeed> disk;
  std::vector<std::string> advice;
};

std::vector<std::string> advise(const Findings& found) {
  std::vector<std::string> advice;
  const Machine& m = found.machine;
  if (found.isa == "scalar") {
    advice.push_back(
        "this CPU has no AVX2 with FMA and F16C: answers come from plain loops and will be slow");
  }
  if (m.cpu_quota && *m.cpu_quota + 0.01 < m.online_cores) {
    advice.push_back("the container may use " + format_fixed(*m.cpu_quota, 1) + " of " +
                     std::to_string(m.online_cores) + " cores; raise its CPU limit for more speed");
  }
  if (m.memory_limit && *m.memory_limit < m.memory_total) {
    advice.push_back("the container may use " + format_bytes(*m.memory_limit) + " of " +
                     format_bytes(m.memory_total) + " memory; weights and KV cache must fit in it");
  }
  if (m.transparent_huge_pages == "never") {
    advice.push_back(
        "transparent huge pages are off; `echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled` as root saves address look-ups");
  }
  if (!found.disk) {
    advice.push_back("no model file below " + found.folder +
                     " to measure the disk with; scripts/demo.sh --fetch-only fetches one");
  } else if (found.disk->cached) {
    advice.push_back("the file system of " + found.folder +
                     " allows no direct reads, so the disk figure is that of the page cache");
  }
  std::vector<std::string> backends = build_info().backends;
  if (!m.gpus.empty() && std::find(backends.begin(), backends.end(), "cuda") == backends.end()) {
    advice.push_back("a GPU is present, but this build has no GPU backend: the CPU is used");
  }
  return advice;
}

double disk_mb_s(const DiskSpeed& disk) {
  return disk.seconds > 0 ? static_cast<double>(disk.bytes) / disk.seconds / 1e6 : 0;
}

std::string join(const std::vector<std::string>& words, const char* none) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text.empty() ? none : text;
}

std::string as_json(const Findings& found) {
  const Machine& m = found.machine;
  Json json = {{"cpu", m.cpu_model},
               {"cpu_features", m.cpu_features},
               {"isa", found.isa},
               {"isa_levels_built", build_info().isa_levels},
               {"cores_online", m.online_cores},
               {"cores_usable", m.usable_cores},
               {"memory_nodes", m.memory_nodes.size()},
               {"cpu_quota", m.cpu_quota ? Json(*m.cpu_quota) : Json()},
               {"memory_bytes", m.memory_total},
               {"memory_available_bytes", m.memory_available},
               {"memory_limit_bytes", m.memory_limit ? Json(*m.memory_limit) : Json()},
               {"transparent_huge_pages", m.transparent_huge_pages},
               {"huge_pages", m.huge_pages_total},
               {"huge_page_bytes", m.huge_page_bytes},
               {"read_gb_s", found.read_gb_s},
               {"model_folder", found.folder}};
  json["disk"] = Json();
  if (found.disk) {
    json["disk"] = {{"file", found.disk->file},
                    {"bytes", found.disk->bytes},
                    {"mb_s", disk_mb_s(*found.disk)},
                    {"cached", found.disk->cached}};
  }
  json["gpus"] = m.gpus;
  json["advice"] = found.advice;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string as_text(const Findings& found) {
  const Machine& m = found.machine;
  auto line = [](const char* label, const std::string& value) {
    std::string text = label;
    text.resize(18, ' ');
    return text + value + "\n";
  };
  std::string quota =
      m.cpu_quota ? ", limited to " + format_fixed(*m.cpu_quota, 1) + " by cgroup" : "";
  std::string limit =
      m.memory_limit ? ", limited to " + format_bytes(*m.memory_limit) + " by cgroup" : "";
  std::string text;
  text += line("CPU", m.cpu_model.empty() ? "unknown" : m.cpu_model);
  text += line("features", join(m.cpu_features, "none that the kernels use"));
  text +=
      line("ISA level", found.isa + " (built in: " + join(build_info().isa_levels, "none") + ")");
  text += line("cores", std::to_string(m.usable_cores) + " usable of " +
                            std::to_string(m.online_cores) + quota +
                            (m.memory_nodes.size() > 1 ? ", on " + std::to_string(m.memory_nodes.size()) + " memory nodes" : ""));
  text += line("memory", format_bytes(m.memory_total) + ", " + format_bytes(m.memory_available) +
                             " available" + limit);
  text += line(
      "huge pages",
      "transparent: " + (m.transparent_huge_pages.empty() ? "unknown" : m.transparent_huge_pages) +
          ", reserved: " + std::to_string(m.huge_pages_total) + " of " +
          format_bytes(m.huge_page_bytes));
  text += line("read bandwidth", format_fixed(found.read_gb_s, 1) + " GB/s with " +
                                     std::to_string(m.usable_cores) + " threads");
  text +=
      line("disk", found.disk ? format_fixed(disk_mb_s(*found.disk), 0) + " MB/s" +
                                    (found.disk->cached ? " (from the page cache)" : "") + ", " +
                                    format_bytes(found.disk->bytes) + " of " + found.disk->file
                              : "not measured");
  text += line("GPUs", join(m.gpus, "none"));
  for (const std::string& advice : found.advice) text += line("advice", advice);
  if (found.advice.empty()) text += line("advice", "nothing to change");
  return text;
}

Result<int> doctor(const DoctorOptions& options) {
  constexpr double kBandwidthSeconds = 0.5;
  constexpr uint64_t kDiskBytes = uint64_t{256} << 20;
  Findings found;
  found.machine = read_machine();
  std::unique_ptr<Backend> backend = TRY(create_backend("cpu", {}));
  found.isa = backend->isa();
  found.read_gb_s = measure_read_bandwidth(found.machine.usable_cores, kBandwidthSeconds);
  found.folder = options.folder.empty() ? model_places_from_environment().store : options.folder;
  found.disk = measure_disk(found.folder, kDiskBytes);
  found.advice = advise(found);
  TRY(write_output(options.json ? as_json(found) : as_text(found)));
  return kExitDone;
}

}  // namespace

void add_doctor_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = app.add_subcommand("doctor", "what this machine has, and what to change");
  command->add_option(
      "--folder", options->folder,
      "folder whose largest file measures the disk (default: the local model store)");
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options, &action] { action = [options] { return doctor(*options); }; });
}

}  // namespace bise
