// The two resizers of the reference tools, on interleaved RGB.
#pragma once

#include "model/image.h"

namespace bise {

// torch's uint8 bicubic with antialiasing (Keys' cubic with a = -0.5, fixed-point weights), bit for
// bit. Sizes are positive. Streams over the source rows: beside the result, memory holds only the
// rows one result row needs.
Result<RgbImage> resize_antialiased(const RgbImage& from, ImageSize to);

// OpenCV's float32 INTER_CUBIC: a = -0.75, four taps, no antialiasing, values may leave 0..255.
// Interleaved, [height, width, 3].
Result<std::vector<float>> resize_cubic(const RgbImage& from, ImageSize to);

}  // namespace bise
