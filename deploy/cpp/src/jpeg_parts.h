// The parts of a JPEG file that has to be whole. After recon_ad/data/jpeg.py.
#pragma once

#include <cstddef>
#include <vector>

#include "image.h"

namespace recon_ad {

// A marker that ends entropy-coded data, and the data that a decoder gets instead.
struct JpegEnd {
  std::size_t place;
  Bytes ahead;
};

struct JpegParts {
  std::size_t scans = 0;
  std::vector<JpegEnd> ends;
};

// Returns the parts of a file. Throws UserError, whose text is the reason, if it is cut: without its
// end marker, with too few restart markers, or with scans that leave coefficients open.
JpegParts jpeg_parts(const Bytes& file);

}  // namespace recon_ad
