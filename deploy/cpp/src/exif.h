// The orientation that a camera wrote beside the pixels.
#pragma once

#include "image.h"

namespace recon_ad {

// EXIF's orientation, 0 where it says none; `exif` is a TIFF header with its directory.
// Throws UserError where it is no such header, with the reason only.
int exif_orientation(const Bytes& exif);

// That of an XMP packet, 0 where it says none.
int xmp_orientation(const Bytes& xmp);

}  // namespace recon_ad
