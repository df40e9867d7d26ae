#include "chat/image_url.h"

#include <array>
#include <filesystem>

#include "base/file.h"
#include "chat/python_json.h"
#include "chat/request.h"

namespace bise {
namespace {

constexpr uint8_t kNotBase64 = 64;

constexpr std::array<uint8_t, 256> make_base64_table() {
  std::array<uint8_t, 256> table{};
  for (uint8_t& entry : table) entry = kNotBase64;
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (uint8_t i = 0; i < 64; ++i) table[static_cast<uint8_t>(kAlphabet[i])] = i;
  return table;
}
constexpr std::array<uint8_t, 256> kBase64Table = make_base64_table();

Error malformed(const std::string& place, const std::string& problem) {
  return refused("malformed", place, place + ": " + problem);
}

}  // namespace

Result<std::string> decode_base64(std::string_view text) {
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int quad = 0, padding = 0;  // letters of the group of four so far; '=' in a row
  for (char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) {
      return Error(ErrorCode::corrupt, "the base64 text holds characters beyond ASCII");
    }
    if (c == '=') {
      if (quad >= 2 && quad + ++padding >= 4) return out;  // complete; the rest is ignored
      continue;
    }
    uint8_t value = kBase64Table[static_cast<unsigned char>(c)];
    if (value == kNotBase64) continue;
    padding = 0;
    bits = (bits << 6 | value) & 0xFFFFFF;
    if (quad > 0) out += static_cast<char>(bits >> (6 - 2 * quad));
    quad = (quad + 1) % 4;
  }
  if (quad != 0) return Error(ErrorCode::corrupt, "the base64 text is cut or lacks its padding");
  return out;
}

namespace {

// The true path of a regular file below `root`. One message for all refusals: what lies outside is
// not to be explored.
Result<std::string> path_below(const std::string& root, const std::string& path, const std::string& place) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path folder = fs::canonical(root, error);
  fs::path file;
  if (!error) file = fs::canonical(path, error);
  const bool below = !error && std::distance(folder.begin(), folder.end()) < std::distance(file.begin(), file.end()) &&
                     std::equal(folder.begin(), folder.end(), file.begin());
  if (!below || !fs::is_regular_file(file, error)) {
    return malformed(place, "there is no such file in the folder of allowed images");
  }
  return file.string();
}

bool is_remote(std::string_view url) {
  return url.starts_with("http://") || url.starts_with("https://");
}

}  // namespace

std::vector<RemoteImage> remote_images(const PyJson& body) {
  std::vector<RemoteImage> out;
  const PyJson* messages = body.find("messages");
  if (messages == nullptr || messages->array() == nullptr) return out;
  for (size_t m = 0; m < messages->array()->size(); ++m) {
    const PyJson* content = (*messages->array())[m].find("content");
    if (content == nullptr || content->array() == nullptr) continue;
    for (size_t i = 0; i < content->array()->size(); ++i) {
      const PyJson* url = (*content->array())[i].find("image_url");
      if (url != nullptr && url->object() != nullptr) url = url->find("url");
      if (url == nullptr || url->string() == nullptr || !is_remote(*url->string())) continue;
      out.push_back({"messages[" + std::to_string(m) + "].content[" + std::to_string(i) + "]", *url->string()});
    }
  }
  return out;
}

Result<std::string> load_image_url(std::string_view url, const ImageSources& sources,
                                   const std::string& place) {
  const uint64_t max_bytes = sources.max_bytes;
  if (url.starts_with("data:")) {
    size_t comma = url.find(',');
    if (comma == std::string_view::npos || !url.substr(0, comma).ends_with(";base64") ||
        comma + 1 == url.size()) {
      return malformed(place, "not a base64 data URL; expected data:<type>;base64,<payload>");
    }
    std::string_view payload = url.substr(comma + 1);
    if (payload.size() / 4 > max_bytes / 3 + 1) {
      return malformed(place, "the image is larger than " + std::to_string(max_bytes) + " bytes");
    }
    Result<std::string> bytes = decode_base64(payload);
    if (!bytes) return malformed(place, bytes.error().message());
    return bytes;
  }
  if (url.starts_with("file://")) {
    if (!sources.allow_files) {
      return malformed(place, "file:// images are not read here; send the image as a data URL");
    }
    std::string path(url.substr(7));
    if (!sources.file_root.empty()) path = TRY(path_below(sources.file_root, path, place));
    Result<std::string> bytes = read_file(path, max_bytes);
    if (!bytes) return malformed(place, bytes.error().message());
    return bytes;
  }
  if (is_remote(url)) {
    if (sources.fetched == nullptr) {
      return malformed(place, "http(s) images are not fetched here; send the image as a data URL");
    }
    auto found = sources.fetched->find(url);
    if (found == sources.fetched->end()) return malformed(place, "the image was not fetched");
    return found->second;
  }
  return malformed(place, "unknown image URL; expected data:<type>;base64,<payload>");
}

}  // namespace bise
