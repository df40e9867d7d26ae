// The bytes behind an image_url: a base64 data URL, a file where the caller allows files, or what the
// caller has fetched. The network is never asked from here: who may ask it looks up the addresses
// first (remote_images) and gives the bytes along.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace bise {

class PyJson;

using FetchedImages = std::map<std::string, std::string, std::less<>>;  // bytes by URL

struct ImageSources {
  bool allow_files = false;
  std::string file_root;  // empty: any file; else only regular files below it, links followed first
  uint64_t max_bytes = 0;
  const FetchedImages* fetched = nullptr;  // of http and https; nullptr: none may be
};

// The images of a chat-completions body whose bytes lie elsewhere (http, https), in their order; one
// that is named twice is there twice. A body that is malformed has none: encoding it says why.
struct RemoteImage {
  std::string place;  // "messages[0].content[1]"
  std::string url;
};
std::vector<RemoteImage> remote_images(const PyJson& body);

// `place` names the part in messages. At most `max_bytes` come back.
Result<std::string> load_image_url(std::string_view url, const ImageSources& sources,
                                   const std::string& place);

// Python's forgiving base64: other characters are skipped, missing padding is an error.
Result<std::string> decode_base64(std::string_view text);

}  // namespace bise
