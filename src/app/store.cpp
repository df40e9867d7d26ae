// `bise list` and `bise rm`: the local model store.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>

#include "app/commands.h"
#include "app/embedded_model.h"
#include "app/model_source.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "base/json.h"

namespace bise {
namespace {

Result<int> list(bool json) {
  ModelPlaces places = model_places_from_environment();
  std::vector<StoredModel> models = TRY(list_store(places));
  // Not of the store, but found by the same name where the store has none of it.
  uint64_t embedded_bytes = 0;
  for (const EmbeddedFile& file : embedded_files()) embedded_bytes += file.bytes.size();
  const bool embedded = std::none_of(models.begin(), models.end(),
                                     [](const StoredModel& m) { return m.name == kEmbeddedModel; });
  std::string text;
  if (json) {
    Json rows = Json::array();
    for (const StoredModel& model : models) {
      rows.push_back({{"name", model.name},
                      {"path", model.path},
                      {"bytes", model.bytes},
                      {"files", model.num_files}});
    }
    if (embedded) {
      rows.push_back({{"name", kEmbeddedModel},
                      {"path", nullptr},
                      {"bytes", embedded_bytes},
                      {"files", embedded_files().size()},
                      {"embedded", true}});
    }
    text = Json{{"store", places.store}, {"models", rows}}.dump(-1, ' ', false,
                                                                Json::error_handler_t::replace) +
           "\n";
  } else {
    const auto add_row = [&text](std::string name, uint64_t bytes, const std::string& where) {
      if (name.size() < 32) name.resize(32, ' ');
      text += name + "  " + format_bytes(bytes) + "  " + where + "\n";
    };
    for (const StoredModel& model : models) add_row(model.name, model.bytes, model.path);
    if (models.empty()) text = "no models in " + places.store + "\n";
    if (embedded) add_row(kEmbeddedModel, embedded_bytes, "in the program");
  }
  TRY(write_output(text));
  return kExitDone;
}

}  // namespace

void add_store_commands(CLI::App& app, Action& action) {
  auto json = std::make_shared<bool>(false);
  CLI::App* list_command = app.add_subcommand("list", "models in the local store");
  list_command->add_flag("--json", *json, "print one JSON object");
  list_command->callback([json, &action] { action = [json] { return list(*json); }; });

  auto name = std::make_shared<std::string>();
  CLI::App* remove_command = app.add_subcommand("rm", "remove a model from the local store");
  remove_command->add_option("NAME", *name, "name as `bise list` shows it")->required();
  remove_command->callback([name, &action] {
    action = [name]() -> Result<int> {
      TRY(remove_from_store(*name, model_places_from_environment()));
      return kExitDone;
    };
  });
}

}  // namespace bise
