#include "chat/system_prompt.h"

#include <array>
#include <cstdio>
#include <filesystem>

#include "base/file.h"
#include "base/utf8.h"
#include "chat/python_json.h"

namespace bise {
namespace {

constexpr uint64_t kMaxPromptBytes = uint64_t{4} << 20;

std::string iso_date(std::chrono::sys_days day) {
  std::chrono::year_month_day date(day);
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%04d-%02u-%02u", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  return text.data();
}

// One pass, so that what was filled in is never looked at again.
std::string fill_in(std::string_view text, std::string_view name, std::chrono::sys_days today) {
  const std::array<std::pair<std::string_view, std::string>, 3> fields = {{
      {"{name}", std::string(name)},
      {"{today}", iso_date(today)},
      {"{yesterday}", iso_date(today - std::chrono::days(1))},
  }};
  std::string out;
  for (size_t at = 0; at < text.size();) {
    bool filled = false;
    for (const auto& [field, value] : fields) {
      if (text.substr(at, field.size()) != field) continue;
      out += value;
      at += field.size();
      filled = true;
      break;
    }
    if (!filled) out += text[at++];
  }
  return out;
}

// …/models--org--name/snapshots/<revision> is "name"; any other folder is called by its own name.
std::string model_name(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  fs::path path = fs::absolute(folder, ignored).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.parent_path().filename() == "snapshots") {
    std::string repository = path.parent_path().parent_path().filename().string();
    size_t dashes = repository.rfind("--");
    if (dashes != std::string::npos) return repository.substr(dashes + 2);
  }
  return path.filename().string();
}

void append_part(std::string& list, const char* type, std::string_view text) {
  if (text.empty()) return;
  if (list.size() > 1) list += ", ";
  list += std::string("{\"type\": \"") + type + "\", \"" + type + "\": ";
  append_python_json_string(list, text);
  list += "}";
}

}  // namespace

std::string system_prompt_content(std::string_view text, std::string_view name,
                                  std::chrono::sys_days today) {
  constexpr std::string_view kBegin = "[THINK]", kEnd = "[/THINK]";
  std::string filled = fill_in(repair_utf8(text), name, today);
  std::string_view rest = filled;
  std::string list = "[";
  bool has_thinking = false;
  while (true) {
    size_t begin = rest.find(kBegin);
    size_t end = begin == std::string_view::npos ? begin : rest.find(kEnd, begin);
    if (end == std::string_view::npos) break;
    has_thinking = true;
    append_part(list, "text", rest.substr(0, begin));
    append_part(list, "thinking", rest.substr(begin + kBegin.size(), end - begin - kBegin.size()));
    rest = rest.substr(end + kEnd.size());
  }
  if (has_thinking) {
    append_part(list, "text", rest);
    return list + "]";
  }
  std::string out;
  append_python_json_string(out, filled);
  return out;
}

Result<std::optional<std::string>> default_system_prompt(const std::string& folder,
                                                         std::chrono::sys_days today) {
  for (const char* file : {"SYSTEM_PROMPT.txt", "CHAT_SYSTEM_PROMPT.txt"}) {
    std::string path = folder + "/" + file;
    if (!file_exists(path)) continue;
    std::string text = TRY(read_file(path, kMaxPromptBytes));
    return std::optional(system_prompt_content(text, model_name(folder), today));
  }
  return std::optional<std::string>();
}

}  // namespace bise
