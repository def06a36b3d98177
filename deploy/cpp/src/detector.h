// A detector from its ONNX files, by OpenVINO. After recon_ad/detector/inference.py and
// recon_ad/detector/onnx_detector.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <openvino/openvino.hpp>

#include "facts.h"
#include "image.h"

namespace recon_ad {

struct Prediction {
  float score;
  bool label;  // whether the image is anomalous, and, with a classifier, defective
  Mask mask;   // pixels above the pixel threshold, opened, in regions of at least the minimum area
  std::optional<float> defect_probability;  // the classifier's, if there is one
};

class Detector {
 public:
  // Opens M.onnx and M.tail.onnx, with the thresholds of a category or, where it is empty, the
  // general ones. Throws UserError if the files are missing, damaged, of another program, of two
  // exports, or may run for ever, or if the category is unknown.
  Detector(const std::filesystem::path& model, const std::string& category);

  const Plan& plan() const { return plan_; }

  // Judges an image by its pixels that count, or by all. Throws UserError if the image has the wrong
  // number of channels or a type that the model does not take, or if the model does not run or its
  // outputs are not a detector's.
  Prediction predict(const Image& image, const std::optional<Mask>& roi);

 private:
  Map residual_map(const Image& image);
  Map stitched(const Image& image);
  Prediction decide(const Map& residual, const std::optional<Mask>& roi);

  std::string name_;  // the model's name in messages
  Plan plan_;
  Map weights_;
  ov::InferRequest core_;
  ov::InferRequest tail_;
  bool classifies_;  // whether the tail gives the probability of a defect
  bool any_batch_;   // whether the core takes any number of tiles at a time
};

}  // namespace recon_ad
