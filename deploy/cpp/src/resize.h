#pragma once

#include "image.h"

namespace recon_ad {

// Resizes bilinearly with antialiasing, each channel separately, in floats as Pillow computes it. The
// image has to have another size. Bytes and words become floats in [0, 1].
Image resized(const Image& image, Size size);
Map resized(const Map& map, Size size);

}  // namespace recon_ad
