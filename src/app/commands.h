// The commands of `bise`: each function adds one subcommand with its options to the parser. When
// the command line is read, the chosen one stores what is to be done in `action`; main runs it and
// turns the result into the exit code.
#pragma once

#include <functional>

#include "base/error.h"

namespace CLI {
class App;
}

namespace bise {

constexpr int kExitDone = 0, kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130;

using Action = std::function<Result<int>()>;

void add_run_command(CLI::App& app, Action& action);
void add_chat_command(CLI::App& app, Action& action);
void add_serve_command(CLI::App& app, Action& action);
void add_inspect_command(CLI::App& app, Action& action);
void add_bench_command(CLI::App& app, Action& action);
void add_eval_command(CLI::App& app, Action& action);  // ppl
void add_probe_command(CLI::App& app, Action& action);
void add_store_commands(CLI::App& app, Action& action);  // list, rm
void add_doctor_command(CLI::App& app, Action& action);
void add_version_command(CLI::App& app, Action& action);

// Reads argv, runs the command, prints an error as one line. Never throws.
int run_program(int argc, const char* const* argv);

}  // namespace bise
