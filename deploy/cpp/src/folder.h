// Which files of a folder are images, in Python's order. After recon_ad/data/listing.py.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace recon_ad {

using Paths = std::vector<std::filesystem::path>;

// A file's name as code points; bytes that are no UTF-8 as Python's surrogates (U+DC80 to U+DCFF).
std::u32string decoded_name(const std::string& name);

// Without "." and doubled slashes, so that equal paths are spelled alike; ".." stays.
std::filesystem::path tidy(const std::filesystem::path& path);

// Follows links. Throws UserError where it may not be looked at.
bool is_folder(const std::filesystem::path& path);

// Whether it ends as images do, those too that this program does not read; in any case of letters.
bool has_image_suffix(const std::filesystem::path& path);

// Images directly in a folder, sorted by name. This and the next throw UserError where a folder
// may not be read, or a link leads back.
Paths images_in(const std::filesystem::path& folder);

// All files below a folder, and folders that bear an image's suffix, a folder's own before those
// below; dotfiles and dot-folders never.
Paths files_below(const std::filesystem::path& folder);

// One image, or all images in a folder and below it, but for the program's own output and the truth
// masks of a data set. Tells of other files; throws UserError where there are no images.
Paths inputs(const std::filesystem::path& given, const std::filesystem::path& output);

// The path below a folder, without an image's suffix.
std::string stem_below(const std::filesystem::path& file, const std::filesystem::path& folder);

}  // namespace recon_ad
