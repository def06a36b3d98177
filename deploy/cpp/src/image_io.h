// Image files to images and masks. After recon_ad/data/decode.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "error.h"
#include "image.h"

namespace recon_ad {

// An image of so many channels, its values as in the file or, with a range, scaled to words. The
// content decides what it is, not the suffix. Throws UserError.
Image decode_image(const std::filesystem::path& path, int channels,
                   const std::optional<InputRange>& range);

// A region of interest: 1 where it is marked. Throws UserError.
Mask decode_mask(const std::filesystem::path& path);

// For those who read one kind of file: it cannot be decoded, and why.
UserError broken(const std::string& name, const std::string& reason);

// Throws UserError where there are more pixels than are decoded.
void check_pixels(Size size, const std::string& name);

}  // namespace recon_ad
