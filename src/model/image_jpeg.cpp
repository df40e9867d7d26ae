#include <csetjmp>
#include <cstdio>
#include <vector>

#include <jpeglib.h>
#include <jerror.h>

#include "model/image_codecs.h"

namespace bise {

namespace {

// A progressive file may repeat scans without end over a large picture; real ones have about ten.
constexpr int kMaxScans = 200;

// All that libjpeg holds. Its errors come as a longjmp out of its calls, so the functions that call
// it have only trivial locals; memory is released here, by the destructor.
struct JpegReader {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_source_mgr source{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX + 64] = {};
  size_t num_bytes = 0;
  bool created = false;

  JpegReader() = default;
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() {
    if (created) jpeg_destroy_decompress(&info);
  }
};

JpegReader& reader_of(j_common_ptr info) { return *static_cast<JpegReader*>(info->client_data); }

[[noreturn]] void stop(j_common_ptr info) { std::longjmp(reader_of(info).jump, 1); }

[[noreturn]] void on_error(j_common_ptr info) {
  info->err->format_message(info, reader_of(info).message);
  stop(info);
}

// libjpeg fills what is missing with grey and only warns; half a picture is an error here. Warnings
// that cost no pixels (stray bytes between segments) pass.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC: on_error(info);
    default: break;
  }
}

void ignore_output(j_common_ptr) {}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  JpegReader& reader = reader_of(info);
  std::snprintf(reader.message, sizeof reader.message, "more than %d scans", kMaxScans);
  stop(info);
}

void no_source_action(j_decompress_ptr) {}

boolean on_end_of_bytes(j_decompress_ptr info) {
  JpegReader& reader = reader_of(reinterpret_cast<j_common_ptr>(info));
  std::snprintf(reader.message, sizeof reader.message,
                "the file ends at byte %zu before the picture is complete", reader.num_bytes);
  stop(reinterpret_cast<j_common_ptr>(info));
}

void skip_bytes(j_decompress_ptr info, long count) {
  if (count <= 0) return;
  if (static_cast<unsigned long>(count) > info->src->bytes_in_buffer) on_end_of_bytes(info);
  info->src->next_input_byte += count;
  info->src->bytes_in_buffer -= static_cast<size_t>(count);
}

// Reads the header and chooses the output: grey, RGB or CMYK. False with a message.
bool start(JpegReader& reader, Bytes bytes) {
  reader.num_bytes = bytes.size();
  reader.info.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = on_error;
  reader.errors.emit_message = on_message;
  reader.errors.output_message = ignore_output;
  reader.info.client_data = &reader;
  if (setjmp(reader.jump) != 0) return false;
  jpeg_create_decompress(&reader.info);
  reader.created = true;
  reader.source.next_input_byte = reinterpret_cast<const JOCTET*>(bytes.data());
  reader.source.bytes_in_buffer = bytes.size();
  reader.source.init_source = no_source_action;
  reader.source.fill_input_buffer = on_end_of_bytes;
  reader.source.skip_input_data = skip_bytes;
  reader.source.resync_to_restart = jpeg_resync_to_restart;
  reader.source.term_source = no_source_action;
  reader.info.src = &reader.source;
  reader.progress.progress_monitor = on_progress;
  reader.info.progress = &reader.progress;
  jpeg_read_header(&reader.info, TRUE);
  switch (reader.info.num_components) {
    case 1: reader.info.out_color_space = JCS_GRAYSCALE; break;
    case 3: reader.info.out_color_space = JCS_RGB; break;
    case 4: reader.info.out_color_space = JCS_CMYK; break;
    default:
      std::snprintf(reader.message, sizeof reader.message,
                    "%d colour components, expected 1, 3 or 4", reader.info.num_components);
      return false;
  }
  return true;
}

// Grey in place to RGB, or CMYK to RGB. CMYK is stored inverted, as Adobe does; Pillow takes this
// for every CMYK file, marked or not. K' = 255 - K, R = K' - C K' / 255.
void convert_row(const uint8_t* from, int num_components, int32_t width, uint8_t* to) {
  for (int32_t x = 0; x < width; ++x, from += num_components, to += 3) {
    if (num_components == 1) {
      to[0] = to[1] = to[2] = from[0];
      continue;
    }
    const uint8_t light = from[3];
    for (int c = 0; c < 3; ++c) {
      to[c] = static_cast<uint8_t>(light - mul_div_255(255u - from[c], light));
    }
  }
}

// `scratch`: one row of the decoder's own components. False with a message.
bool read_rows(JpegReader& reader, RgbImage& image, uint8_t* scratch) {
  if (setjmp(reader.jump) != 0) return false;
  jpeg_start_decompress(&reader.info);
  while (reader.info.output_scanline < reader.info.output_height) {
    uint8_t* to = row_of(image, static_cast<int32_t>(reader.info.output_scanline));
    JSAMPROW row = reader.info.out_color_components == 3 ? to : scratch;
    jpeg_read_scanlines(&reader.info, &row, 1);
    if (row == scratch) convert_row(scratch, reader.info.out_color_components, image.width, to);
  }
  return true;
}

}  // namespace

Result<ImageSize> jpeg_size(Bytes bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  size_t at = 2;
  while (at + 9 <= bytes.size()) {
    if (data[at] != 0xff) {  // stray bytes between segments are skipped, as libjpeg does
      ++at;
      continue;
    }
    const uint8_t marker = data[at + 1];
    if (marker == 0xff) {
      ++at;
      continue;
    }
    const bool start_of_frame =
        marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (start_of_frame) {
      return ImageSize{data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]};
    }
    if (marker == 0xda || marker == 0xd9) break;
    const bool has_no_length = marker == 0 || marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    at += has_no_length ? 2 : 2 + (static_cast<size_t>(data[at + 2]) << 8 | data[at + 3]);
  }
  return Error(ErrorCode::corrupt, "no frame header in " + std::to_string(bytes.size()) +
                                       " bytes; the file is damaged or cut off");
}

Result<RgbImage> decode_jpeg(Bytes bytes, ImageSize size) {
  JpegReader reader;
  if (!start(reader, bytes)) return Error(ErrorCode::corrupt, reader.message);
  if (static_cast<int32_t>(reader.info.image_width) != size.width ||
      static_cast<int32_t>(reader.info.image_height) != size.height) {
    return Error(ErrorCode::corrupt, "two frame headers of different size");
  }
  RgbImage image = TRY(make_image(size));
  std::vector<uint8_t> scratch(static_cast<size_t>(size.width) * 4);
  if (!read_rows(reader, image, scratch.data())) return Error(ErrorCode::corrupt, reader.message);
  return image;
}

}  // namespace bise
