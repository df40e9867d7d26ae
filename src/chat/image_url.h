// The bytes behind an image_url: a base64 data URL, or a file where the caller allows files. The
// network is never asked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bise {

struct ImageSources {
  bool allow_files = false;
  std::string file_root;  // empty: any file; else only regular files below it, links followed first
  uint64_t max_bytes = 0;
};
// `place` names the part in messages. At most `max_bytes` come back.
Result<std::string> load_image_url(std::string_view url, const ImageSources& sources,
                                   const std::string& place);

// Python's forgiving base64: other characters are skipped, missing padding is an error.
Result<std::string> decode_base64(std::string_view text);

}  // namespace bise
