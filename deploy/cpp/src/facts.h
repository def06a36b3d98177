// The facts that running a model takes, from the metadata of its files. After
// recon_ad/detector/onnx_detector.py.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "image.h"

namespace recon_ad {

using Facts = std::map<std::string, std::string>;  // without the prefix "recon_ad_"

enum class Type { uint8, uint16, float32 };  // in the order of Image's values

struct Plan {
  std::string pair;  // identical in the files of one export
  Type type;         // type of the images that the core takes
  bool channels_first;
  int batch_size;
  int channels;
  Size tile;
  Size stride;
  bool hann;                   // overlapping tiles are averaged by a Hann window, else uniformly
  // Size before tiling. If its width is 0, its height is that of the shorter side.
  std::optional<Size> resize;
  int border;                  // px along the image's border whose residual is weighted
  float border_weight;
  int opening;   // radius in px of the disk that the mask is opened with, 0 for none
  std::int64_t min_area;  // in px; smaller regions are dropped
  std::optional<InputRange> input_range;
  double image_threshold;
  double pixel_threshold;
  // Image and pixel threshold of each category, by its name as in a URL.
  std::map<std::string, std::pair<double, double>> categories;
  std::optional<double> median_score;  // of good images, if known
  std::map<std::string, double> category_medians;  // of the categories with a known median
  bool of_regions;  // whether the thresholds are of regions of interest only
};

// Reads a plan. Throws UserError if a fact is missing, malformed or out of its bounds, or if the file
// is of another kind than `tail` requires; `name` is the file's.
Plan plan_of(const Facts& facts, bool tail, const std::string& name);

// Returns the score on the scale for people, if it is defined. After
// recon_ad/detector/normalised.py.
std::optional<double> normalised(const Plan& plan, double score);

// Sets the thresholds of a category, or keeps the general ones if `category` is empty. Throws
// UserError if the category is unknown.
void choose_category(Plan& plan, const std::string& category);

}  // namespace recon_ad
