#pragma once

#include "image.h"

namespace recon_ad {

// Bilinear with antialiasing, in floats as Pillow computes it; each channel by itself. The image is
// to be of another size. Bytes and words become floats in [0, 1].
Image resized(const Image& image, Size size);
Map resized(const Map& map, Size size);

}  // namespace recon_ad
