// Regions of interest beside images. After recon_ad/data/truth.py.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "image.h"

namespace recon_ad {

class Regions {
 public:
  // The regions of the images below `root`, from a folder with the same layout, or one image for all.
  // By default they are roi/ and roi.png in `root`. Throws UserError if the given path is not found.
  Regions(std::filesystem::path root, const std::optional<std::filesystem::path>& given);

  explicit operator bool() const { return single_ || !by_stem_.empty(); }

  // Returns the file of an image's region, or none if all pixels count.
  std::optional<std::filesystem::path> of(const std::filesystem::path& image) const;

  // Returns whether the file is itself a region, and not an image to judge.
  bool is_region(const std::filesystem::path& image) const;

 private:
  std::filesystem::path root_;
  std::optional<std::filesystem::path> single_;
  std::map<std::string, std::filesystem::path> by_stem_;
};

// Returns the pixels that count. Throws UserError if the region is broken, has another size than the
// image, or marks no pixel.
Mask load_region(const std::filesystem::path& file, const std::filesystem::path& image, Size size);

}  // namespace recon_ad
