// Operations on masks. After recon_ad/ops/masks.py and recon_ad/report/pictures.py.
#pragma once

#include <cstdint>

#include "image.h"

namespace recon_ad {

constexpr std::uint8_t kLine[] = {255, 120, 0};  // the colour of marks

// Returns the mask opened by a disk of that radius (0 for none), without its 8-connected regions of
// less than `min_area` pixels.
Mask clean_mask(Mask mask, int opening, std::int64_t min_area);

// Returns the number of 8-connected regions.
int count_regions(const Mask& mask);

// Draws the mask's edge as a solid line into a picture [h, w, 3].
void outline(Bytes& rgb, const Mask& mask);

}  // namespace recon_ad
