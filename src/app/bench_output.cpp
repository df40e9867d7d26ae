#include <algorithm>

#include "app/bench.h"
#include "app/terminal.h"
#include "app/text_format.h"

namespace bise {
namespace {

std::string padded(const std::string& text, int width) {
  const size_t wanted = static_cast<size_t>(std::abs(width));
  const std::string fill(wanted > text.size() ? wanted - text.size() : 0, ' ');
  return width < 0 ? text + fill : fill + text;
}

std::string cell(const Json& row, const TableColumn& column) {
  const auto value = row.find(column.field);
  if (value == row.end() || value->is_null()) return "-";
  if (value->is_string()) return value->get<std::string>();
  if (value->is_boolean()) return value->get<bool>() ? "yes" : "no";
  return format_fixed(value->get<double>(), column.decimals);
}

}  // namespace

Result<void> RowWriter::write(const Json& row) {
  if (as_json_) return write_output(json_line(row));
  std::string head, line;
  for (const TableColumn& column : columns_) {
    head += (head.empty() ? "" : "  ") + padded(column.title, column.width);
    line += (line.empty() ? "" : "  ") + padded(cell(row, column), column.width);
  }
  const std::string text = (head_written_ ? "" : head + "\n") + line + "\n";
  head_written_ = true;
  return write_output(text);
}

}  // namespace bise
