#include <new>
#include <utility>

#include "model/exif.h"
#include "model/image_codecs.h"

namespace bise {

namespace {

// Bounds the tables of the resizer; libpng has the same limit.
constexpr int32_t kMaxEdge = 1'000'000;

Result<ImageSize> size_of(ImageFormat format, Bytes bytes) {
  switch (format) {
    case ImageFormat::jpeg: return jpeg_size(bytes);
    case ImageFormat::png: return png_size(bytes);
    case ImageFormat::webp: return webp_size(bytes);
    case ImageFormat::gif: return gif_size(bytes);
    case ImageFormat::bmp: return bmp_size(bytes);
  }
  return Error(ErrorCode::internal, "unknown picture format");
}

Result<RgbImage> decode(ImageFormat format, Bytes bytes, ImageSize size,
                        ImageProcessing processing) {
  switch (format) {
    case ImageFormat::jpeg: return decode_jpeg(bytes, size);
    case ImageFormat::png: return decode_png(bytes, size, processing == ImageProcessing::torch);
    case ImageFormat::webp: return decode_webp(bytes, size);
    case ImageFormat::gif: return decode_gif(bytes, size);
    case ImageFormat::bmp: return decode_bmp(bytes, size);
  }
  return Error(ErrorCode::internal, "unknown picture format");
}

struct Header {
  ImageFormat format = ImageFormat::png;
  ImageSize size;
};

Result<Header> read_header(Bytes bytes, const ImageLimits& limits) {
  if (bytes.empty()) return Error(ErrorCode::corrupt, "the picture is empty (0 bytes)");
  if (bytes.size() > limits.max_bytes) {
    return Error(ErrorCode::too_large, "the picture has " + std::to_string(bytes.size()) +
                                           " bytes, more than the limit of " +
                                           std::to_string(limits.max_bytes) +
                                           "; send a smaller one");
  }
  const std::optional<ImageFormat> format = image_format(bytes);
  if (!format) {
    return Error(
        ErrorCode::unsupported,
        "the bytes are no JPEG, PNG, WebP, GIF or BMP picture; convert it to one of these");
  }
  const std::string name = image_format_name(*format);
  const ImageSize size = TRY(size_of(*format, bytes).with_context(name));
  const std::string found = std::to_string(size.width) + " x " + std::to_string(size.height);
  if (size.width <= 0 || size.height <= 0) {
    return Error(ErrorCode::corrupt, name + ": the picture has no pixels (" + found + ")");
  }
  if (size.width > kMaxEdge || size.height > kMaxEdge ||
      static_cast<uint64_t>(size.width) * static_cast<uint64_t>(size.height) > limits.max_pixels) {
    return Error(ErrorCode::too_large,
                 name + ": the picture has " + found + " pixels, more than the limit of " +
                     std::to_string(limits.max_pixels) + " (" + std::to_string(kMaxEdge) +
                     " per side); scale it down first");
  }
  return Header{*format, size};
}

// The picture as it should be looked at; orientations as in EXIF, 1 to 8.
Result<RgbImage> turned(RgbImage image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool transpose = orientation >= 5;
  const bool mirror_x =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  RgbImage out = TRY(make_image(transpose ? ImageSize{image.height, image.width}
                                          : ImageSize{image.width, image.height}));
  // (x, y) of the upright picture is (u, v) of the stored one, then mirrored there.
  for (int32_t y = 0; y < out.height; ++y) {
    uint8_t* to = row_of(out, y);
    for (int32_t x = 0; x < out.width; ++x, to += 3) {
      int32_t u = transpose ? y : x;
      int32_t v = transpose ? x : y;
      if (mirror_x) u = image.width - 1 - u;
      if (mirror_y) v = image.height - 1 - v;
      const uint8_t* from = row_of(image, v) + static_cast<size_t>(u) * 3;
      to[0] = from[0];
      to[1] = from[1];
      to[2] = from[2];
    }
  }
  return out;
}

}  // namespace

std::optional<ImageFormat> image_format(Bytes bytes) {
  const std::string_view text = as_text(bytes);
  if (text.starts_with("\xff\xd8\xff")) return ImageFormat::jpeg;
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return ImageFormat::png;
  if (text.starts_with("RIFF") && text.size() >= 12 && text.substr(8, 4) == "WEBP") {
    return ImageFormat::webp;
  }
  if (text.starts_with("GIF87a") || text.starts_with("GIF89a")) return ImageFormat::gif;
  if (text.starts_with("BM")) return ImageFormat::bmp;
  return std::nullopt;
}

const char* image_format_name(ImageFormat format) {
  switch (format) {
    case ImageFormat::jpeg: return "JPEG";
    case ImageFormat::png: return "PNG";
    case ImageFormat::webp: return "WebP";
    case ImageFormat::gif: return "GIF";
    case ImageFormat::bmp: return "BMP";
  }
  return "picture";
}

Result<RgbImage> make_image(ImageSize size) {
  RgbImage image;
  image.width = size.width;
  image.height = size.height;
  const uint64_t bytes = static_cast<uint64_t>(size.width) * static_cast<uint64_t>(size.height) * 3;
  try {
    image.pixels.resize(bytes);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory,
                 "no memory for the " + std::to_string(bytes) + " bytes of a picture");
  }
  return image;
}

Result<RgbImage> decode_image(Bytes bytes, ImageProcessing processing, const ImageLimits& limits) {
  const Header header = TRY(read_header(bytes, limits));
  RgbImage image = TRY(decode(header.format, bytes, header.size, processing)
                           .with_context(image_format_name(header.format)));
  if (processing != ImageProcessing::torch) return image;
  return turned(std::move(image), exif_orientation(bytes, header.format));
}

Result<ImageSize> image_size(Bytes bytes, const ImageLimits& limits) {
  return TRY(read_header(bytes, limits)).size;
}

}  // namespace bise
