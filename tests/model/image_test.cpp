// Pictures against Pillow, transformers and mistral-common (tests/golden/own/images.json), and
// damaged and hostile files.
#include "model/image.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/file.h"
#include "base/json.h"
#include "support/sha256.h"

namespace bise {
namespace {

const std::string kFolder = std::string(BISE_GOLDEN_DIR) + "/own/";

std::string golden_file(const std::string& name) {
  return read_file(kFolder + "images/" + name, 1 << 24).value();
}

const Json& goldens() {
  static const Json json = parse_json(read_file(kFolder + "images.json", 1 << 24).value()).value();
  return json;
}

std::string sha256_of(const void* data, size_t bytes) {
  return sha256_hex({static_cast<const std::byte*>(data), bytes});
}

struct Reference {
  ImageProcessing processing;
  const char* key;
};
constexpr Reference kReferences[] = {{ImageProcessing::torch, "torch"},
                                     {ImageProcessing::mistral_common, "mistral_common"}};

void expect_size(const Json& want, int32_t width, int32_t height, const std::string& what) {
  EXPECT_EQ(want[0].get<int32_t>(), width) << what;
  EXPECT_EQ(want[1].get<int32_t>(), height) << what;
}

int32_t orientation_in(const std::string& file) {
  return file.starts_with("exif-") ? file[5] - '0' : 1;
}

TEST(Image, decoded_pictures_equal_those_of_the_reference) {
  for (const Json& c : goldens()["cases"]) {
    const std::string file = c["file"].get<std::string>();
    const std::string bytes = golden_file(file);
    const auto size = image_size(as_bytes(bytes), {});
    ASSERT_TRUE(size) << file << ": " << size.error().message();
    expect_size(c["size"], size->width, size->height, file);
    for (const auto& [processing, key] : kReferences) {
      const auto image = decode_image(as_bytes(bytes), processing, {});
      ASSERT_TRUE(image) << file << ": " << image.error().message();
      const std::string what = file + ", " + key;
      expect_size(c[key]["decoded"], image->width, image->height, what);
      if (!c.contains("decoded")) {
        EXPECT_EQ(c[key]["rgb"], sha256_of(image->pixels.data(), image->pixels.size())) << what;
        continue;
      }
      // Another build of the decoder may differ by a level; the reference's picture lies beside it.
      if (processing == ImageProcessing::torch && orientation_in(file) != 1) continue;
      const std::string png = golden_file(c["decoded"].get<std::string>());
      const auto want = decode_image(as_bytes(png), processing, {});
      ASSERT_TRUE(want) << want.error().message();
      ASSERT_EQ(want->pixels.size(), image->pixels.size()) << what;
      int worst = 0;
      for (size_t i = 0; i < want->pixels.size(); ++i) {
        worst = std::max(worst, std::abs(want->pixels[i] - image->pixels[i]));
      }
      EXPECT_LE(worst, 1) << what;
    }
  }
}

TEST(Image, processed_pixels_equal_those_of_the_reference) {
  const auto longest = goldens()["longest"].get<int32_t>();
  const auto unit = goldens()["unit"].get<int32_t>();
  for (const Json& c : goldens()["cases"]) {
    const std::string file = c["file"].get<std::string>();
    const std::string bytes = golden_file(file);
    for (const auto& [processing, key] : kReferences) {
      const Json& want = c[key];
      if (!want.contains("target")) continue;  // the reference fails
      const std::string what = file + ", " + key;
      const auto got = load_image(as_bytes(bytes), longest, unit, processing, {});
      ASSERT_TRUE(got) << what << ": " << got.error().message();
      expect_size(want["target"], got->width, got->height, what);
      EXPECT_EQ(got->width, got->columns * unit) << what;
      EXPECT_EQ(got->height, got->rows * unit) << what;
      ASSERT_EQ(got->pixels.size(), static_cast<size_t>(got->width) * got->height * 3) << what;
      const bool lossy = c.contains("decoded");
      if (processing == ImageProcessing::torch && !lossy) {
        EXPECT_EQ(want["pixels"], sha256_of(got->pixels.data(), got->pixels.size() * 4)) << what;
      }
      // One level is 1 / (255 * 0.26) = 0.015. OpenCV rounds positions otherwise in one-row
      // pictures.
      const double tolerance = lossy ? 0.02 : processing == ImageProcessing::torch ? 0.0 : 2e-5;
      for (const Json& sample : want["samples"]) {
        EXPECT_NEAR(sample[1].get<float>(), got->pixels[sample[0].get<size_t>()], tolerance)
            << what << " at " << sample[0];
      }
    }
  }
}

// The formula of the antialiased resize in double, one output value at a time.
double antialiased_weight(double x) {
  x = std::fabs(x);
  if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
  if (x < 2) return -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2;
  return 0;
}

double slow_value(const std::function<double(int32_t)>& at, int32_t from, int32_t to, int32_t i) {
  const double scale = static_cast<double>(from) / to, stretch = std::max(scale, 1.0);
  const double centre = scale * (i + 0.5);
  double sum = 0, total = 0;
  for (int32_t j = 0; j < from; ++j) {
    const double w = antialiased_weight((j + 0.5 - centre) / stretch);
    sum += w * at(j);
    total += w;
  }
  return sum / total;
}

TEST(Image, resize_keeps_to_the_formula_in_double) {
  // A first pass off by one level counts up to 1.25 times (the sum of a cubic's absolute weights),
  // and the last value is rounded: 2 levels at most. On average there is the rounding alone.
  double sum = 0;
  int64_t count = 0;
  uint32_t state = 1;
  for (int32_t width : {1, 5, 27, 28, 29, 61, 97}) {
    for (int32_t height : {1, 3, 28, 31, 83}) {
      RgbImage image{width, height, {}};
      for (int32_t i = 0; i < width * height * 3; ++i) {
        state = state * 1664525 + 1013904223;
        image.pixels.push_back(static_cast<uint8_t>(state >> 24));
      }
      const auto got = process_image(image, 56, 28, ImageProcessing::torch);
      ASSERT_TRUE(got) << got.error().message();
      for (size_t c = 0; c < 3; ++c) {
        // Rounded and clamped between the passes, as the formula says.
        std::vector<double> across(static_cast<size_t>(height) * got->width);
        for (int32_t y = 0; y < height; ++y) {
          for (int32_t x = 0; x < got->width; ++x) {
            const auto at = [&](int32_t j) {
              return double(image.pixels[(static_cast<size_t>(y) * width + j) * 3 + c]);
            };
            across[static_cast<size_t>(y) * got->width + x] =
                std::clamp(std::round(slow_value(at, width, got->width, x)), 0.0, 255.0);
          }
        }
        static constexpr double kMean[] = {0.48145466, 0.4578275, 0.40821073};
        static constexpr double kStd[] = {0.26862954, 0.26130258, 0.27577711};
        for (int32_t y = 0; y < got->height; ++y) {
          for (int32_t x = 0; x < got->width; ++x) {
            const auto at = [&](int32_t j) {
              return across[static_cast<size_t>(j) * got->width + x];
            };
            const double want = std::clamp(slow_value(at, height, got->height, y), 0.0, 255.0);
            const double value =
                got->pixels[(c * got->height + y) * got->width + x] * kStd[c] * 255 +
                kMean[c] * 255;
            ASSERT_NEAR(want, value, 2.0) << width << " x " << height << " at " << x << ", " << y;
            sum += std::fabs(want - value);
            ++count;
          }
        }
      }
    }
  }
  EXPECT_LT(sum / static_cast<double>(count), 0.3);
}

TEST(Image, target_sizes_follow_the_rule_of_each_reference) {
  struct Case {
    ImageSize from, torch, mistral_common;
  };
  for (const Case& c :
       {Case{{28, 28}, {28, 28}, {28, 28}}, Case{{29, 28}, {56, 28}, {56, 28}},
        Case{{1024, 768}, {1036, 784}, {1036, 784}}, Case{{4000, 3000}, {1540, 1176}, {1540, 1176}},
        Case{{2740, 4563}, {924, 1540}, {952, 1540}}, Case{{1, 4000}, {28, 1540}, {28, 1540}}}) {
    const ImageSize torch = target_size(c.from, 1540, 28, ImageProcessing::torch);
    EXPECT_EQ(torch.width, c.torch.width);
    EXPECT_EQ(torch.height, c.torch.height);
    const ImageSize common = target_size(c.from, 1540, 28, ImageProcessing::mistral_common);
    EXPECT_EQ(common.width, c.mistral_common.width);
    EXPECT_EQ(common.height, c.mistral_common.height);
  }
}

std::string refusal(std::string_view bytes, const ImageLimits& limits = {}) {
  const auto image = decode_image(as_bytes(bytes), ImageProcessing::torch, limits);
  return image ? "accepted" : image.error().message();
}

TEST(Image, every_cut_of_every_format_is_refused_in_one_line) {
  for (const char* file :
       {"png-rgb8.png", "png-palette4-interlaced.png", "jpeg-420.jpg", "jpeg-progressive.jpg",
        "jpeg-cmyk.jpg", "webp-lossy.webp", "webp-lossless-alpha.webp", "webp-animated.webp",
        "gif-plain.gif", "gif-interlaced.gif", "bmp-24bit.bmp", "bmp-8bit.bmp", "bmp-rle8.bmp"}) {
    const std::string whole = golden_file(file);
    ASSERT_EQ("accepted", refusal(whole)) << file;
    // What may be missing without loss of a pixel: checksums and end marks, later frames.
    const size_t last = whole.size() * (std::string_view(file) == "webp-animated.webp" ? 2 : 4) / 5;
    for (size_t length = 0; length < last; ++length) {
      const std::string message = refusal(std::string_view(whole).substr(0, length));
      ASSERT_NE("accepted", message) << file << " cut to " << length;
      ASSERT_EQ(std::string::npos, message.find('\n')) << message;
    }
  }
}

TEST(Image, flipped_bytes_never_crash) {
  for (const char* file :
       {"png-palette4-interlaced.png", "jpeg-progressive.jpg", "jpeg-ycck.jpg",
        "webp-lossy-alpha.webp", "webp-animated-offset.webp", "gif-offset-transparent.gif",
        "bmp-rle4.bmp", "bmp-16bit-565.bmp", "exif-6.jpg"}) {
    const std::string whole = golden_file(file);
    for (size_t at = 0; at < whole.size(); ++at) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(~damaged[at]);
      ImageLimits limits;
      limits.max_pixels = 1 << 16;
      const std::string message = refusal(damaged, limits);
      ASSERT_EQ(std::string::npos, message.find('\n')) << message;
    }
  }
}

TEST(Image, messages_name_format_place_and_what_to_do) {
  EXPECT_EQ("the picture is empty (0 bytes)", refusal(""));
  EXPECT_EQ("the bytes are no JPEG, PNG, WebP, GIF or BMP picture; convert it to one of these",
            refusal("%PDF-1.7 and so on"));
  const std::string png = golden_file("png-rgb8.png");
  EXPECT_EQ("PNG: the file ends at byte 60 before the picture is complete",
            refusal(png.substr(0, 60)));
  const std::string jpeg = golden_file("jpeg-420.jpg");
  EXPECT_EQ("JPEG: the file ends at byte 700 before the picture is complete",
            refusal(jpeg.substr(0, 700)));
  const std::string bmp = golden_file("bmp-24bit.bmp");
  EXPECT_NE(std::string::npos,
            refusal(bmp.substr(0, 100)).find("BMP: pixels: the file ends at byte"));
}

// Width and height are overwritten in a good file; nothing is allocated for them.
TEST(Image, huge_dimensions_are_refused_from_the_header) {
  std::string png = golden_file("png-rgb8.png");
  for (size_t i = 16; i < 24; ++i) png[i] = '\x7f';
  EXPECT_NE(std::string::npos, refusal(png).find("more than the limit of")) << refusal(png);
  std::string narrow = golden_file("png-rgb8.png");
  narrow.replace(16, 8, std::string("\0\0\0\1\x04\0\0\0", 8));  // 1 x 67,108,864
  EXPECT_NE(std::string::npos, refusal(narrow).find("more than the limit of")) << refusal(narrow);
  std::string gif = golden_file("gif-plain.gif");
  gif.replace(6, 4, "\xff\xff\xff\xff");
  EXPECT_NE(std::string::npos, refusal(gif).find("GIF: the picture has 65535 x 65535 pixels"));
  std::string bmp = golden_file("bmp-24bit.bmp");
  bmp.replace(18, 8, "\xff\xff\xff\x7f\xff\xff\xff\x7f");
  EXPECT_NE(std::string::npos, refusal(bmp).find("more than the limit of"));
  std::string jpeg = golden_file("jpeg-444.jpg");
  jpeg.replace(jpeg.find("\xff\xc0") + 5, 4, "\xff\xff\xff\xff");
  EXPECT_NE(std::string::npos, refusal(jpeg).find("JPEG: the picture has 65535 x 65535 pixels"));
  for (const char* file : {"png-rgb8.png", "jpeg-444.jpg", "webp-lossy.webp", "gif-plain.gif"}) {
    ImageLimits limits;
    limits.max_pixels = 100;
    EXPECT_NE(std::string::npos, refusal(golden_file(file), limits).find("limit of 100 ")) << file;
    EXPECT_FALSE(image_size(as_bytes(golden_file(file)), limits)) << file;
    limits = {};
    limits.max_bytes = 50;
    EXPECT_NE(std::string::npos, refusal(golden_file(file), limits).find("limit of 50;")) << file;
  }
}

TEST(Image, a_picture_is_refused_by_a_tower_without_sizes) {
  const RgbImage image{1, 1, {1, 2, 3}};
  EXPECT_FALSE(process_image(image, 0, 28, ImageProcessing::torch));
  EXPECT_FALSE(process_image(image, 1540, 0, ImageProcessing::torch));
  EXPECT_FALSE(process_image(RgbImage{}, 1540, 28, ImageProcessing::mistral_common));
}

}  // namespace
}  // namespace bise
