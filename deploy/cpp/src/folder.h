// Listing of a folder's images, in Python's order. After recon_ad/data/listing.py.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace recon_ad {

using Paths = std::vector<std::filesystem::path>;

// Returns a name as code points; bytes that are not UTF-8 are Python's surrogates (U+DC80 to U+DCFF).
std::u32string decoded_name(const std::string& name);

// Returns a path without "." and doubled slashes, so that equal paths are spelled alike; ".." stays.
std::filesystem::path tidy(const std::filesystem::path& path);

// Follows links. Throws UserError if access is denied.
bool is_folder(const std::filesystem::path& path);

// Returns whether the suffix is an image's, in upper or lower case, also of kinds that this program
// does not read.
bool has_image_suffix(const std::filesystem::path& path);

// Returns the images directly in a folder, sorted by name. This and the next function throw UserError
// if a folder may not be read, or a link leads back.
Paths images_in(const std::filesystem::path& folder);

// Returns all files below a folder, and folders with an image's suffix, a folder's own before those
// below, without dotfiles and dot-folders.
Paths files_below(const std::filesystem::path& folder);

// Returns one image, or all images in a folder and below it, without the program's own output and the
// truth masks of a data set. Reports other files; throws UserError if no image is found.
Paths inputs(const std::filesystem::path& given, const std::filesystem::path& output);

// Returns the path below a folder, without an image's suffix.
std::string stem_below(const std::filesystem::path& file, const std::filesystem::path& folder);

}  // namespace recon_ad
