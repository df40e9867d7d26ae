#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/terminal.h"

namespace bise {
namespace {

// Errors are one line, whatever a file name or a library put into the message.
void print_error(const std::string& message) {
  std::string line = terminal_safe(message);
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  std::fprintf(stderr, "error: %s\n", line.c_str());
}

void add_commands(CLI::App& app, Action& action) {
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "MODEL is a folder (Hugging Face or Mistral layout), a .gguf file, a name in the local "
      "store\n"
      "(`bise list`), a Hugging Face repository id whose snapshot is in the cache, or `demo`: the small\n"
      "test model in the program.\n"
      "`bise COMMAND --help` shows the options of a command with defaults and units. Options shown "
      "with\n"
      "(Env:NAME) may be set by that environment variable; the option wins.\n"
      "Exit codes: 0 done, 1 the world was not as asked, 2 wrong usage, 130 interrupted.");
  add_run_command(app, action);
  add_chat_command(app, action);
  add_serve_command(app, action);
  add_inspect_command(app, action);
  add_bench_command(app, action);
  add_eval_command(app, action);
  add_probe_command(app, action);
  add_store_commands(app, action);
  add_doctor_command(app, action);
  add_version_command(app, action);
}

// What is wrong with a command line, in our own words where the library's are vague.
std::string usage_problem(const CLI::App& app, const CLI::ParseError& error) {
  std::vector<std::string> rest = app.remaining(true);
  if (!rest.empty() && rest[0].rfind('-', 0) == 0) return "unknown option " + rest[0];
  const CLI::App* last = &app;
  while (!last->get_subcommands().empty()) last = last->get_subcommands()[0];
  bool lacks_command = last->get_require_subcommand_min() > 0;
  if (lacks_command) {
    std::string names;
    for (const CLI::App* known : last->get_subcommands([](const CLI::App*) { return true; })) {
      names += (names.empty() ? "" : ", ") + known->get_name();
    }
    return (rest.empty() ? "a command is missing" : "unknown command " + rest[0]) + "; known are " +
           names;
  }
  if (!rest.empty()) return "unexpected argument " + rest[0];
  return error.what();
}

int parse_and_run(int argc, const char* const* argv) {
  CLI::App app("bise: runs Mistral Medium 3.5 and its siblings from their published files", "bise");
  Action action;
  add_commands(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return write_output(app.help()) ? kExitDone : kExitFailed;
  } catch (const CLI::CallForAllHelp&) {
    return write_output(app.help("", CLI::AppFormatMode::All)) ? kExitDone : kExitFailed;
  } catch (const CLI::ParseError& e) {
    std::string command = "bise";
    for (const CLI::App* chosen = &app; !chosen->get_subcommands().empty();) {
      chosen = chosen->get_subcommands()[0];
      command += " " + chosen->get_name();
    }
    print_error(usage_problem(app, e) + " (see `" + command + " --help`)");
    return kExitUsage;
  }
  Result<int> result = action();
  if (result) return *result;
  if (result.error().code() == ErrorCode::cancelled) {
    print_error("interrupted");
    return kExitInterrupted;
  }
  print_error(result.error().message());
  return kExitFailed;
}

}  // namespace

int run_program(int argc, const char* const* argv) {
  handle_signals();
  try {
    return parse_and_run(argc, argv);
  } catch (const std::bad_alloc&) {
    print_error("out of memory; a smaller --context or model needs less");
  } catch (const std::exception& e) {
    print_error(e.what());
  }
  return kExitFailed;
}

}  // namespace bise
