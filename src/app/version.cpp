// `bise version`: what this binary was built from and for.
#include "app/version.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "app/commands.h"
#include "app/terminal.h"
#include "backend/cpu/cpu_features.h"
#include "backend/create_cuda_backend.h"
#include "base/json.h"

namespace bise {
namespace {

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

Result<int> print_version(bool json) {
  BuildInfo info = build_info();
  std::string text;
  if (json) {
    text = Json{{"version", info.version},       {"commit", info.commit},
                {"compiler", info.compiler},     {"build_type", info.build_type},
                {"isa_levels", info.isa_levels}, {"backends", info.backends}}
               .dump() +
           "\n";
  } else {
    text = "bise " + info.version + " (" + info.commit + "), " + info.compiler + ", " +
           info.build_type + "\nISA levels: " + join(info.isa_levels) +
           "\nbackends: " + join(info.backends) + "\n";
  }
  TRY(write_output(text));
  return kExitDone;
}

}  // namespace

BuildInfo build_info() {
  std::vector<std::string> isa_levels;
  for (IsaLevel level : built_isa_levels()) isa_levels.push_back(isa_name(level));
  // The kernel tables of cmake/cpu_isa.cmake; which of them this CPU can run is doctor's to say.
  std::vector<std::string> backends = {"cpu"};
  if (is_built_with_cuda()) backends.push_back("cuda");
  return {BISE_VERSION, BISE_COMMIT, BISE_COMPILER, BISE_BUILD_TYPE, isa_levels, backends};
}

void add_version_command(CLI::App& app, Action& action) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command =
      app.add_subcommand("version", "version, commit, compiler, ISA levels and backends built in");
  command->add_flag("--json", *json, "print one JSON object");
  command->callback([json, &action] { action = [json] { return print_version(*json); }; });
}

}  // namespace bise
