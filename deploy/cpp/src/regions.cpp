#include "regions.h"

#include <algorithm>

#include "error.h"
#include "folder.h"
#include "image_io.h"

namespace recon_ad {
namespace {

namespace fs = std::filesystem;

std::map<std::string, fs::path> stems(const fs::path& folder) {
  std::map<std::string, fs::path> found;
  if (!is_folder(folder)) return found;
  for (const fs::path& file : files_below(folder)) {
    if (has_image_suffix(file)) found[stem_below(file, folder)] = file;
  }
  return found;
}

bool is_called_roi(const fs::path& file) {
  std::string stem = file.stem().string();
  std::transform(stem.begin(), stem.end(), stem.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return stem == "roi";
}

std::string sides(Size size) {
  return std::to_string(size.height) + " × " + std::to_string(size.width);
}

}  // namespace

Regions::Regions(fs::path root, const std::optional<fs::path>& given) : root_(std::move(root)) {
  if (!given) {
    const Paths images = images_in(root_);
    const auto found = std::find_if(images.begin(), images.end(), is_called_roi);
    if (found != images.end()) single_ = *found;
    by_stem_ = stems(root_ == "." ? fs::path("roi") : root_ / "roi");
    return;
  }
  std::error_code ignored;
  if (!fs::exists(*given, ignored)) {
    throw UserError(given->string() + ": region of interest not found: check the path");
  }
  if (fs::is_regular_file(*given, ignored)) single_ = *given;
  by_stem_ = stems(*given);
}

std::optional<fs::path> Regions::of(const fs::path& image) const {
  const auto found = by_stem_.find(stem_below(image, root_));
  return found == by_stem_.end() ? single_ : found->second;
}

bool Regions::is_region(const fs::path& image) const {
  return image == single_ || std::any_of(by_stem_.begin(), by_stem_.end(),
                                         [&](const auto& entry) { return entry.second == image; });
}

Mask load_region(const fs::path& file, const fs::path& image, Size size) {
  Mask roi = decode_mask(file);
  if (roi.size != size) {
    throw UserError(file.string() + ": the region of interest has " + sides(roi.size) +
                    " pixels (height × width) and its image " + image.string() + " has " +
                    sides(size) + ": draw the region of interest on the image's own pixels");
  }
  if (std::find(roi.values.begin(), roi.values.end(), 1) == roi.values.end()) {
    throw UserError(file.string() + ": the region of interest marks no pixel, so nothing in " +
                    image.string() + " would count: draw what counts in white");
  }
  return roi;
}

}  // namespace recon_ad
