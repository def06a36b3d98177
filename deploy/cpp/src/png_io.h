// Decoding and encoding of PNG files, by libpng.
#pragma once

#include <string>

#include "image.h"

namespace recon_ad {

struct Png {
  Image image;  // upright, transparency laid over black, a palette as its colours
  bool palette = false;
};

// Throws UserError; `name` is the file's name in messages.
Png decode_png(const Bytes& file, const std::string& name);

// Returns a PNG file of pixels [h, w, 3].
Bytes encode_png(const Bytes& rgb, Size size);

}  // namespace recon_ad
