// The demo model that is part of the program (models/demo, made by python/demo_model).
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace bise {

inline constexpr char kEmbeddedModel[] = "demo";

struct EmbeddedFile {
  const char* name;  // without a folder
  Bytes bytes;
};
// In the order of their names.
const std::vector<EmbeddedFile>& embedded_files();

// The folder `root`/demo-DIGEST with these files. What is missing there or has another size is written
// first; each file gets its name when it is whole, so that any number of processes may do so at once.
Result<std::string> unpack_embedded_model(const std::string& root);

}  // namespace bise
