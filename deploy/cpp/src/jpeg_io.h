// JPEG files to pixels, by libjpeg.
#pragma once

#include <string>

#include "image.h"

namespace recon_ad {

// Upright, gray or RGB. Throws UserError; `name` is what messages call the file.
Image decode_jpeg(const Bytes& file, const std::string& name);

}  // namespace recon_ad
