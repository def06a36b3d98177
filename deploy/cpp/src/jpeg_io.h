// Decoding of JPEG files, by libjpeg.
#pragma once

#include <string>

#include "image.h"

namespace recon_ad {

// Returns the image upright, gray or RGB. Throws UserError; `name` is the file's name in messages.
Image decode_jpeg(const Bytes& file, const std::string& name);

}  // namespace recon_ad
