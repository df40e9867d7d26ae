// EXIF: the orientation a camera wrote into a picture, and nothing else of it.
#pragma once

#include "base/bytes.h"
#include "model/image_codecs.h"

namespace bise {

// 1 to 8; 1 (upright) when there is none or it cannot be read. Looks at the first Exif block of a
// JPEG (APP1), PNG (eXIf) or WebP (EXIF chunk); other formats have none.
int exif_orientation(Bytes bytes, ImageFormat format);

}  // namespace bise
