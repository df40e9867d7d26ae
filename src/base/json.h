// A thin door to nlohmann::ordered_json: bounded parsing and typed access whose errors carry the
// path. Costs 2 s of compile time: include it in .cpp files, not in headers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bise {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  size_t max_depth = 64;
  size_t max_values = size_t{8} << 20;  // of any type; each takes 16 bytes and what it holds
  bool reject_duplicate_keys = true;
};

// Parses one JSON value; anything but white space behind it is an error. Messages say the byte. Takes
// time linear in the text (times the logarithm of an object's keys). Without `reject_duplicate_keys`
// the last value of a key counts, in the place of the first.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// Field access on an object. A missing key or null gives `fallback` (the published configs write
// null on purpose), and so does an `object` that is null; a wrong type is an Error that names
// `path.key`. Numbers must be finite; integers are refused when they have a fraction or do not fit.
// A look-up costs time linear in the keys: walk over large objects instead.
Result<int64_t> json_int(const Json& object, const char* key, int64_t fallback,
                         const std::string& path);
Result<double> json_number(const Json& object, const char* key, double fallback,
                           const std::string& path);
Result<bool> json_bool(const Json& object, const char* key, bool fallback, const std::string& path);
Result<std::string> json_string(const Json& object, const char* key, const std::string& fallback,
                                const std::string& path);
// The sub-object or nullptr when the key is missing or null; another type is an Error.
Result<const Json*> json_object(const Json& object, const char* key, const std::string& path);
// Whether the key is there and not null.
bool json_has(const Json& object, const char* key);
const char* json_type_name(const Json& value);

}  // namespace bise
