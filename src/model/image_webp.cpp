#include <webp/decode.h>

#include <algorithm>
#include <new>
#include <vector>

#include "model/image_codecs.h"

namespace bise {

namespace {

// RIFF (4), size (4), "WEBP" (4), then chunks: name (4), little-endian length (4), data, padding to
// even. An extended file starts with VP8X: flags (1), reserved (3), canvas width - 1 and height - 1
// (3 each). An animation keeps its pictures in ANMF chunks: x / 2, y / 2, width - 1, height - 1,
// duration (3 each), flags (1), then the chunks of a single picture (ALPH, VP8, VP8L).
constexpr size_t kRiffHeader = 12, kChunkHeader = 8, kFrameHeader = 16;
constexpr uint8_t kAlphaFlag = 0x10, kAnimationFlag = 0x02;

int32_t read_24(Bytes bytes, size_t offset) {
  const auto* p = reinterpret_cast<const uint8_t*>(bytes.data()) + offset;
  return p[0] | p[1] << 8 | p[2] << 16;
}

// The picture that counts: the file itself, or the first frame of an animation.
struct Still {
  Bytes bytes;
  ImageSize canvas;
  int32_t x = 0, y = 0;
  bool alpha = false;
};

const char* status_text(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY: return "no memory for the picture";
    case VP8_STATUS_UNSUPPORTED_FEATURE: return "a feature the decoder does not know";
    case VP8_STATUS_NOT_ENOUGH_DATA: return "the file ends before the picture is complete";
    default: return "the data are damaged";
  }
}

Error status_error(VP8StatusCode status, Bytes bytes) {
  return Error(status == VP8_STATUS_OUT_OF_MEMORY ? ErrorCode::out_of_memory : ErrorCode::corrupt,
               std::string(status_text(status)) + " (" + std::to_string(bytes.size()) + " bytes)");
}

Result<Still> first_frame(Bytes bytes, Still still) {
  size_t at = kRiffHeader;
  while (at + kChunkHeader <= bytes.size()) {
    const uint64_t length = load_le<uint32_t>(bytes.data() + at + 4);
    const Bytes rest = bytes.subspan(at + kChunkHeader);
    if (length > rest.size()) break;
    if (as_text(bytes).substr(at, 4) == "ANMF" && length >= kFrameHeader) {
      still.x = read_24(rest, 0) * 2;
      still.y = read_24(rest, 3) * 2;
      still.bytes = rest.subspan(kFrameHeader, length - kFrameHeader);
      return still;
    }
    at += kChunkHeader + length + (length & 1);
  }
  return Error(ErrorCode::corrupt, "an animation without a whole first frame in " +
                                       std::to_string(bytes.size()) + " bytes");
}

Result<Still> find_still(Bytes bytes) {
  if (bytes.size() >= 30 && as_text(bytes).substr(kRiffHeader, 4) == "VP8X") {
    const auto flags = static_cast<uint8_t>(bytes[20]);
    Still still;
    still.bytes = bytes;
    still.canvas = {read_24(bytes, 24) + 1, read_24(bytes, 27) + 1};
    still.alpha = (flags & kAlphaFlag) != 0;
    if ((flags & kAnimationFlag) != 0) return first_frame(bytes, still);
    return still;
  }
  WebPBitstreamFeatures features;
  const VP8StatusCode status =
      WebPGetFeatures(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &features);
  if (status != VP8_STATUS_OK) return status_error(status, bytes);
  Still still;
  still.bytes = bytes;
  still.canvas = {features.width, features.height};
  still.alpha = features.has_alpha != 0;
  return still;
}

}  // namespace

Result<ImageSize> webp_size(Bytes bytes) { return TRY(find_still(bytes)).canvas; }

Result<RgbImage> decode_webp(Bytes bytes, ImageSize size) {
  const Still still = TRY(find_still(bytes));
  const auto* data = reinterpret_cast<const uint8_t*>(still.bytes.data());
  WebPBitstreamFeatures features;
  VP8StatusCode status = WebPGetFeatures(data, still.bytes.size(), &features);
  if (status != VP8_STATUS_OK) return status_error(status, still.bytes);
  const ImageSize frame{features.width, features.height};
  if (frame.width > size.width - still.x || frame.height > size.height - still.y) {
    return Error(ErrorCode::corrupt,
                 "a frame of " + std::to_string(frame.width) + " x " +
                     std::to_string(frame.height) + " at " + std::to_string(still.x) + ", " +
                     std::to_string(still.y) + " does not fit the canvas of " +
                     std::to_string(size.width) + " x " + std::to_string(size.height));
  }

  RgbImage image = TRY(make_image(size));
  // What a frame leaves free is transparent black: white with alpha, black without.
  if (still.alpha) std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{255});
  // RGB goes straight to its place; RGBA is composited from a buffer.
  const size_t pixel_bytes = still.alpha ? 4 : 3;
  const size_t frame_row = static_cast<size_t>(frame.width) * pixel_bytes;
  std::vector<uint8_t> rgba;
  if (still.alpha) {
    try {
      rgba.resize(frame_row * static_cast<size_t>(frame.height));
    } catch (const std::bad_alloc&) {
      return Error(ErrorCode::out_of_memory, "no memory for a picture of this size");
    }
  }
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) {
    return Error(ErrorCode::internal, "the WebP library does not match its headers");
  }
  config.output.is_external_memory = 1;
  config.output.colorspace = still.alpha ? MODE_RGBA : MODE_RGB;
  WebPRGBABuffer& out = config.output.u.RGBA;
  if (still.alpha) {
    out.rgba = rgba.data();
    out.stride = static_cast<int>(frame_row);
    out.size = rgba.size();
  } else {
    const size_t skipped = static_cast<size_t>(still.y) * row_bytes(image) + 3u * still.x;
    out.rgba = image.pixels.data() + skipped;
    out.stride = static_cast<int>(row_bytes(image));
    out.size = image.pixels.size() - skipped;
  }
  status = WebPDecode(data, still.bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) return status_error(status, still.bytes);

  for (int32_t y = 0; still.alpha && y < frame.height; ++y) {
    const uint8_t* from = rgba.data() + static_cast<size_t>(y) * frame_row;
    uint8_t* to = row_of(image, still.y + y) + 3 * static_cast<size_t>(still.x);
    for (int32_t x = 0; x < frame.width; ++x, from += 4, to += 3) {
      put_over_white(to, {from[0], from[1], from[2], from[3]});
    }
  }
  return image;
}

}  // namespace bise
