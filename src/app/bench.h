// What the commands of `bise bench` share. Each is a file bench_*.cpp.
#pragma once

#include <string>
#include <vector>

#include "app/bench_math.h"
#include "app/commands.h"
#include "base/json.h"

namespace bise {

void add_bench_run(CLI::App& bench, Action& action);
void add_bench_rows(CLI::App& bench, Action& action);  // decode, prefill, batch
void add_bench_load(CLI::App& bench, Action& action);
void add_bench_ops(CLI::App& bench, Action& action);
void add_bench_serve(CLI::App& bench, Action& action);
void add_bench_make_model(CLI::App& bench, Action& action);

// One line of JSON for stdout.
inline std::string json_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// The fields NAME_share, NAME_share_min and NAME_share_max: the median of the ratios to limits and their spread.
inline void add_shares(Json& row, const std::string& name, const Spread& shares) {
  row[name + "_share"] = shares.median;
  row[name + "_share_min"] = shares.min;
  row[name + "_share_max"] = shares.max;
}

// A column of the table that a person reads: the field of the row, its title, and for numbers how many
// decimals. Wider values push their line out.
struct TableColumn {
  std::string field, title;
  int decimals = 0;
  int width = 9;  // negative: text, aligned to the left
};

// Prints rows as they come: JSON lines, or a table with a head before the first row.
class RowWriter {
 public:
  RowWriter(std::vector<TableColumn> columns, bool as_json)
      : columns_(std::move(columns)), as_json_(as_json) {}
  Result<void> write(const Json& row);

 private:
  std::vector<TableColumn> columns_;
  bool as_json_, head_written_ = false;
};

}  // namespace bise
