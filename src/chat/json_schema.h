// Is this JSON a valid JSON Schema of draft 7? A check against the rules of the draft's
// meta-schema, written out, for refusing requests; validating instances is the business of others.
// Of formats only "regex" would be looked at by the reference; here a pattern need only be a
// string.
#pragma once

#include <optional>
#include <string>

#include "chat/python_json.h"

namespace bise {

struct SchemaFault {
  std::string path;      // from the schema's root: ".properties.x.type"
  std::string expected;  // what should stand there
};
// The first fault in document order, or nothing. Recursion follows the nesting, which the JSON
// parser has bounded.
std::optional<SchemaFault> find_schema_fault(const PyJson& schema);

}  // namespace bise
