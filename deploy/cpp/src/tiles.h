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

// The size to which an image is resized. Where `resize` has no width, its height is that of the
// shorter side, and the aspect ratio is kept; less where the longer one would be beyond 65536 px.
Size resized_size(Size image, Size resize);

// Top left corners of the tiles that cover an image, row by row; the last tile ends with the image.
std::vector<Corner> tile_corners(Size image, Size tile, Size stride);

// A side that is shorter than a tile mirrored (after its end) until it is as long; none where no
// side is.
std::optional<Image> padded_to_tile(const Image& image, Size tile);

// How much each pixel of a tile counts in the average.
Map tile_weights(Size tile, bool hann);

// Copies one tile to where the core takes it, in the plan's type and layout. The image has that
// type, or the plan's is float32, which any becomes.
void cut(const Image& image, Corner corner, const Plan& plan, void* to);

// A weighted average of overlapping tiles in the making.
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

// Multiplies, in place, what is near the map's border.
void attenuate_border(Map& values, int border, float weight);

}  // namespace recon_ad
