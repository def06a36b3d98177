// Captions above a picture. After recon_ad/report/caption.py and recon_ad/report/wording.py.
#pragma once

#include <string>
#include <vector>

#include "image.h"
#include "table.h"

namespace recon_ad {

// Returns the words of an image's overlay: its verdict, its score and the threshold, with enough
// digits to tell these apart, the normalised score if known, and, with a classifier, the
// probability of a defect.
std::vector<std::string> verdict(const Judgement& judgement);

struct Picture {
  Size size;
  Bytes values;  // [height, width, 3]
};

// Returns the picture below a dark strip with the words, side by side as they fit. They have the
// colour of marks where the image is rejected, else they are white.
Picture with_caption(const Picture& picture, const std::vector<std::string>& words, bool rejected);

}  // namespace recon_ad
