// Regions of interest that lie beside images. After recon_ad/data/truth.py.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "image.h"

namespace recon_ad {

class Regions {
 public:
  // Of the images below `root`: from a folder laid out as it is, or one image for all; where none
  // is given, from roi/ and roi.png in `root` itself. Throws UserError where there is no such path.
  Regions(std::filesystem::path root, const std::optional<std::filesystem::path>& given);

  explicit operator bool() const { return single_ || !by_stem_.empty(); }

  // The file that says which pixels of an image count; none where all do.
  std::optional<std::filesystem::path> of(const std::filesystem::path& image) const;

  // Whether the file is itself a region, and no image to judge.
  bool is_region(const std::filesystem::path& image) const;

 private:
  std::filesystem::path root_;
  std::optional<std::filesystem::path> single_;
  std::map<std::string, std::filesystem::path> by_stem_;
};

// The pixels that count. Throws UserError where the region is broken, has another size than the
// image or marks no pixel.
Mask load_region(const std::filesystem::path& file, const std::filesystem::path& image, Size size);

}  // namespace recon_ad
