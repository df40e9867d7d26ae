// `bise list` and `bise rm`: the local model store.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "app/commands.h"
#include "app/model_source.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "base/json.h"

namespace bise {
namespace {

Result<int> list(bool json) {
  ModelPlaces places = model_places_from_environment();
  std::vector<StoredModel> models = TRY(list_store(places));
  std::string text;
  if (json) {
    Json rows = Json::array();
    for (const StoredModel& model : models) {
      rows.push_back({{"name", model.name},
                      {"path", model.path},
                      {"bytes", model.bytes},
                      {"files", model.num_files}});
    }
    text = Json{{"store", places.store}, {"models", rows}}.dump(-1, ' ', false,
                                                                Json::error_handler_t::replace) +
           "\n";
  } else {
    for (const StoredModel& model : models) {
      std::string name = model.name;
      if (name.size() < 32) name.resize(32, ' ');
      text += name + "  " + format_bytes(model.bytes) + "  " + model.path + "\n";
    }
    if (models.empty()) text = "no models in " + places.store + "\n";
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
