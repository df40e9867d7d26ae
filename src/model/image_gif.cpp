#include <gif_lib.h>

#include <algorithm>
#include <array>
#include <vector>

#include "model/image_codecs.h"

namespace bise {

namespace {

constexpr int kTransparencyFlag = 1;

struct GifSource {
  Bytes bytes;
  size_t offset = 0;
};

int on_read(GifFileType* gif, GifByteType* to, int count) {
  auto& source = *static_cast<GifSource*>(gif->UserData);
  const size_t take = std::min(static_cast<size_t>(count), source.bytes.size() - source.offset);
  if (take > 0) std::memcpy(to, source.bytes.data() + source.offset, take);
  source.offset += take;
  return static_cast<int>(take);
}

// A file read up to its first picture.
class GifReader {
 public:
  explicit GifReader(Bytes bytes) : source_{bytes} {}
  GifReader(const GifReader&) = delete;
  GifReader& operator=(const GifReader&) = delete;
  ~GifReader() {
    if (gif_) DGifCloseFile(gif_, nullptr);
  }

  Result<void> open() {
    int code = 0;
    gif_ = DGifOpen(&source_, on_read, &code);
    if (!gif_) return error(code);
    while (true) {
      GifRecordType type = UNDEFINED_RECORD_TYPE;
      if (DGifGetRecordType(gif_, &type) != GIF_OK) return error(gif_->Error);
      if (type == IMAGE_DESC_RECORD_TYPE) {
        if (DGifGetImageDesc(gif_) != GIF_OK) return error(gif_->Error);
        return {};
      }
      if (type == TERMINATE_RECORD_TYPE) {
        return Error(ErrorCode::corrupt, "the file has no picture before its end mark");
      }
      TRY(read_extension());
    }
  }

  const GifImageDesc& frame() const { return gif_->Image; }
  // Pillow widens the screen when the first frame leaves it.
  ImageSize size() const {
    return {std::max(gif_->SWidth, frame().Left + frame().Width),
            std::max(gif_->SHeight, frame().Top + frame().Height)};
  }
  std::array<Rgba, 256> palette() const;

  // One row of indices, in file order.
  Result<void> read_row(uint8_t* to) {
    if (DGifGetLine(gif_, to, frame().Width) != GIF_OK) return error(gif_->Error);
    return {};
  }
  // What lies outside the frame.
  uint8_t background() const { return static_cast<uint8_t>(std::max(transparent_, 0)); }

 private:
  Error error(int code) const {
    const char* text = GifErrorString(code);
    return Error(ErrorCode::corrupt, std::string(text ? text : "damaged data") + " (byte " +
                                         std::to_string(source_.offset) + " of " +
                                         std::to_string(source_.bytes.size()) + ")");
  }

  Result<void> read_extension() {
    int function = 0;
    GifByteType* block = nullptr;  // length, then data
    if (DGifGetExtension(gif_, &function, &block) != GIF_OK) return error(gif_->Error);
    if (function == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4 &&
        (block[1] & kTransparencyFlag)) {
      transparent_ = block[4];
    }
    while (block) {
      if (DGifGetExtensionNext(gif_, &block) != GIF_OK) return error(gif_->Error);
    }
    return {};
  }

  GifSource source_;
  GifFileType* gif_ = nullptr;
  int transparent_ = -1;
};

// Like Pillow: no table, or one that counts up in grey, means grey; entries beyond a table are
// black.
std::array<Rgba, 256> GifReader::palette() const {
  std::array<Rgba, 256> palette{};
  const ColorMapObject* map = frame().ColorMap ? frame().ColorMap : gif_->SColorMap;
  bool grey = true;
  for (int i = 0; map && i < map->ColorCount && i < 256; ++i) {
    const GifColorType& c = map->Colors[i];
    palette[static_cast<size_t>(i)] = {c.Red, c.Green, c.Blue, 255};
    grey = grey && c.Red == i && c.Green == i && c.Blue == i;
  }
  for (size_t i = 0; grey && i < 256; ++i) {
    const auto v = static_cast<uint8_t>(i);
    palette[i] = {v, v, v, 255};
  }
  if (transparent_ >= 0) palette[static_cast<size_t>(transparent_)].a = 0;
  return palette;
}

}  // namespace

Result<ImageSize> gif_size(Bytes bytes) {
  GifReader reader(bytes);
  TRY(reader.open());
  return reader.size();
}

Result<RgbImage> decode_gif(Bytes bytes, ImageSize size) {
  GifReader reader(bytes);
  TRY(reader.open());
  const GifImageDesc& frame = reader.frame();
  if (frame.Width <= 0 || frame.Height <= 0) {
    return Error(ErrorCode::corrupt, "the first frame has no pixels");
  }
  const std::array<Rgba, 256> palette = reader.palette();
  RgbImage image = TRY(make_image(size));
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    put_over_white(image.pixels.data() + i, palette[reader.background()]);
  }

  // Interlaced: every 8th row, then the 4ths, the 2nds and the rest.
  struct Pass {
    int first, step;
  };
  static constexpr Pass kInterlaced[] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};
  static constexpr Pass kPlain[] = {{0, 1}};
  const std::span<const Pass> passes =
      frame.Interlace ? std::span<const Pass>(kInterlaced) : std::span<const Pass>(kPlain);
  std::vector<uint8_t> row(static_cast<size_t>(frame.Width));
  for (const Pass& pass : passes) {
    for (int y = pass.first; y < frame.Height; y += pass.step) {
      TRY(reader.read_row(row.data()));
      uint8_t* to = row_of(image, frame.Top + y) + 3 * static_cast<size_t>(frame.Left);
      for (size_t x = 0; x < row.size(); ++x) put_over_white(to + 3 * x, palette[row[x]]);
    }
  }
  return image;
}

}  // namespace bise
