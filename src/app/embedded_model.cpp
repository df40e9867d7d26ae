#include "app/embedded_model.h"

#include <cstddef>
#include <filesystem>
#include <system_error>

#include "base/file.h"

// clang-format off
#define BISE_EMBED(number, name, path)                                  \
  asm(".section .rodata\n"                                              \
      ".balign 64\n"                                                    \
      "bise_embedded_" #number ":\n"                                    \
      ".incbin \"" path "\"\n"                                          \
      "bise_embedded_end_" #number ":\n"                                \
      ".byte 0\n"                                                       \
      ".previous\n");                                                   \
  extern "C" const std::byte bise_embedded_##number[];                    \
  extern "C" const std::byte bise_embedded_end_##number[];
#include BISE_DEMO_FILES
#undef BISE_EMBED
// clang-format on

namespace fs = std::filesystem;

namespace bise {

const std::vector<EmbeddedFile>& embedded_files() {
  static const std::vector<EmbeddedFile> files = {
#define BISE_EMBED(number, name, path) \
  {name, Bytes(bise_embedded_##number, bise_embedded_end_##number)},
#include BISE_DEMO_FILES
#undef BISE_EMBED
  };
  return files;
}

Result<std::string> unpack_embedded_model(const std::string& root) {
  const std::string folder =
      root + "/" + kEmbeddedModel + "-" + std::string(BISE_DEMO_DIGEST).substr(0, 16);
  const std::string advice =
      "; the demo model is unpacked there; set BISE_HOME to a folder that can be written";
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) return Error(ErrorCode::io, folder + ": " + ec.message() + advice);
  for (const EmbeddedFile& file : embedded_files()) {
    const std::string path = folder + "/" + file.name;
    std::error_code size_ec;
    if (fs::file_size(path, size_ec) == file.bytes.size() && !size_ec) continue;
    const auto write = [&]() -> Result<void> {
      FileWriter writer = TRY(FileWriter::create(path));
      TRY(writer.write(file.bytes));
      return writer.commit();
    };
    if (auto written = write(); !written) {
      return Error(written.error().code(), written.error().message() + advice);
    }
  }
  return folder;
}

}  // namespace bise
