// Words above a picture. After recon_ad/report/caption.py and recon_ad/report/wording.py.
#pragma once

#include <string>
#include <vector>

#include "image.h"
#include "table.h"

namespace recon_ad {

// What an overlay says of an image: its verdict, its score and the threshold, with the digits that
// tell these apart, the normalised score where there is one, and, with a classifier, the
// probability of a defect.
std::vector<std::string> verdict(const Judgement& judgement);

struct Picture {
  Size size;
  Bytes values;  // [height, width, 3]
};

// The picture below a dark strip with the words, beside each other as they fit; in the colour of
// marks where the image is rejected, else in white.
Picture with_caption(const Picture& picture, const std::vector<std::string>& words, bool rejected);

}  // namespace recon_ad
