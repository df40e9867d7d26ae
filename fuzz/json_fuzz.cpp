// base/json.h and base/utf8.h: what is read is written and read again the same; the text functions
// agree with each other on every input.
#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/utf8.h"

namespace bise {
namespace {

void check_json(std::string_view text) {
  auto parsed = parse_json(text, {.max_bytes = 1 << 16});
  if (!parsed) {
    CHECK(!parsed.error().message().empty());
    CHECK(is_valid_utf8(parsed.error().message()));
    return;
  }
  std::string written = parsed->dump();
  CHECK(parse_json(written).value().dump() == written);
  CHECK(Json::parse(text).dump() == written);
  for (const char* key : {"a", "b"}) {
    auto told = [](const auto& result) {
      if (!result) CHECK(is_valid_utf8(result.error().message()));
    };
    told(json_int(*parsed, key, 0, "root"));
    told(json_number(*parsed, key, 0, "root"));
    told(json_bool(*parsed, key, false, "root"));
    told(json_string(*parsed, key, "", "root"));
    told(json_object(*parsed, key, "root"));
  }
}

void check_utf8(std::string_view text) {
  std::string repaired = repair_utf8(text);
  CHECK(is_valid_utf8(repaired));
  CHECK(is_valid_utf8(text) == (repaired == text));
  size_t tail = incomplete_utf8_tail(text);
  CHECK(tail <= 3 && tail <= text.size());
  // Repair may be done in two parts when the cut is before an incomplete tail.
  std::string_view head = text.substr(0, text.size() - tail), rest = text.substr(text.size() - tail);
  CHECK(repair_utf8(head) + repair_utf8(rest) == repaired);
  CHECK(incomplete_utf8_tail(head) == 0 || tail > 0);
}

}  // namespace
}  // namespace bise

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  bise::check_json(text);
  bise::check_utf8(text);
  return 0;
}
