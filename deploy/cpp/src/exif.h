// The orientation in a file's metadata.
#pragma once

#include "image.h"

namespace recon_ad {

// Returns EXIF's orientation, 0 if it has none; `exif` is a TIFF header with its directory.
// Throws UserError, with the reason only, if the header is not valid.
int exif_orientation(const Bytes& exif);

// Returns the orientation in an XMP packet, 0 if it has none.
int xmp_orientation(const Bytes& xmp);

}  // namespace recon_ad
