// Decoding of image files to images and masks. After recon_ad/data/decode.py
// and recon_ad/data/pillow_files.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "error.h"
#include "image.h"

namespace recon_ad {

// Returns an image with that number of channels, its values as in the file or, with a range, scaled to
// words. The content decides the format, not the suffix. Throws UserError.
Image decode_image(const std::filesystem::path& path, int channels,
                   const std::optional<InputRange>& range);

// Returns a region of interest, 1 where it is marked. Throws UserError.
Mask decode_mask(const std::filesystem::path& path);

// Returns the error of a file that cannot be decoded, with the reason.
UserError broken(const std::string& name, const std::string& reason);

// Throws UserError if there are more pixels than are decoded.
void check_pixels(Size size, const std::string& name);

}  // namespace recon_ad
