// `bise bench`: speed, always beside a limit of the machine that was measured in the same process.
#include "app/bench.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace bise {

void add_bench_command(CLI::App& app, Action& action) {
  CLI::App* bench = app.add_subcommand("bench", "speed, beside the measured limit of the machine");
  bench->require_subcommand(1);
  add_bench_run(*bench, action);
  add_bench_rows(*bench, action);
  add_bench_load(*bench, action);
  add_bench_ops(*bench, action);
  add_bench_serve(*bench, action);
  add_bench_make_model(*bench, action);
}

}  // namespace bise
