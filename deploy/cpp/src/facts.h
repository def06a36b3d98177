// What a runner of the model has to know, from the metadata of its files.
// recon_ad/detector/onnx_detector.py reads the same.
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
  std::string pair;  // the same in the files of one export
  Type type;         // of the images that the core takes
  bool channels_first;
  int batch_size;
  int channels;
  Size tile;
  Size stride;
  bool hann;                   // how overlapping tiles are averaged; else uniformly
  // Before the image is tiled; of width 0: the height is that of the shorter side.
  std::optional<Size> resize;
  int border;                  // px along the image's border whose residual is multiplied
  float border_weight;
  int opening;   // radius in px of the disk that the mask is opened with; 0: none
  std::int64_t min_area;  // in px; smaller regions are dropped
  std::optional<InputRange> input_range;
  double image_threshold;
  double pixel_threshold;
  // Image and pixel threshold of each category, by its name as in a URL.
  std::map<std::string, std::pair<double, double>> categories;
  std::optional<double> median_score;  // of good images; none where it is not known
  std::map<std::string, double> category_medians;  // of each category whose median is known
  bool of_regions;  // whether the thresholds are of regions of interest only
};

// Throws UserError where a fact is missing, not understood or out of its bounds, or the file is of
// another kind than `tail` says; `name` is the file's.
Plan plan_of(const Facts& facts, bool tail, const std::string& name);

// The score for people to read; none where there is none. After recon_ad/detector/normalised.py.
std::optional<double> normalised(const Plan& plan, double score);

// Takes the thresholds of a category, or leaves those of all together where `category` is empty.
// Throws UserError where there are none of it.
void choose_category(Plan& plan, const std::string& category);

}  // namespace recon_ad
