// Cutting images into overlapping tiles and averaging tiles back. After recon_ad/ops/tiles.py.
#pragma once

#include <optional>
#include <vector>

#include "facts.h"
#include "image.h"

namespace recon_ad {

struct Corner {
  int row;
  int column;
};

// Returns the size to which an image is resized. If `resize` has no width, its height is that of the
// shorter side, and the aspect ratio is kept; it is less if the longer side would exceed 65536 px.
Size resized_size(Size image, Size resize);

// Returns the top left corners of the tiles that cover an image, row by row; the last tile ends with
// the image.
std::vector<Corner> tile_corners(Size image, Size tile, Size stride);

// Mirrors a side that is shorter than a tile (after its end) until it is as long; returns nothing if
// no side is shorter.
std::optional<Image> padded_to_tile(const Image& image, Size tile);

// Returns the weight of each pixel of a tile in the average.
Map tile_weights(Size tile, bool hann);

// Copies one tile into the core's input, in the plan's type and layout. The image has that type, or
// the plan's is float32, to which any type is converted.
void cut(const Image& image, Corner corner, const Plan& plan, void* to);

// An accumulator for the weighted average of overlapping tiles.
class Stitch {
 public:
  Stitch(Size size, const Map& weights) : total_(size), weight_(size), weights_(weights) {}

  void add(const float* tile, Corner corner);
  Map take();

 private:
  Map total_;
  Map weight_;
  const Map& weights_;
};

// Multiplies the values near the map's border in place.
void attenuate_border(Map& values, int border, float weight);

}  // namespace recon_ad
