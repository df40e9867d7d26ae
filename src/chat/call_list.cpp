#include "chat/call_list.h"

#include <utility>

#include "chat/python_json.h"

namespace bise {

std::optional<std::vector<ListedCall>> parse_call_list(std::string_view text) {
  Result<PyJson> list = parse_python_json(text);
  if (!list || list->array() == nullptr) return std::nullopt;
  std::vector<ListedCall> calls;
  for (const PyJson& item : *list->array()) {
    const PyJson* name = item.find("name");
    if (name == nullptr || name->string() == nullptr || name->string()->empty())
      return std::nullopt;
    const PyJson* arguments = item.find("arguments");
    calls.push_back({join_surrogates(*name->string()),
                     arguments == nullptr ? "{}" : join_surrogates(dump_python_json(*arguments))});
  }
  return calls;
}

}  // namespace bise
