// Golden files that are kept compressed.
#pragma once

#include <zlib.h>

#include <stdexcept>
#include <string>

namespace bise::testing {

inline std::string gunzip_file(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) throw std::runtime_error("cannot open " + path);
  std::string text, part(size_t{1} << 16, '\0');
  int got = 0;
  while ((got = gzread(file, part.data(), static_cast<unsigned>(part.size()))) > 0) {
    text.append(part, 0, static_cast<size_t>(got));
  }
  bool whole = got == 0 && gzclose(file) == Z_OK;
  if (!whole) throw std::runtime_error("cannot read " + path);
  return text;
}

}  // namespace bise::testing
