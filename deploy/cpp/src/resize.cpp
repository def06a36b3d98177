#include "resize.h"

#include <algorithm>
#include <cmath>

namespace recon_ad {
namespace {

// The old pixels, from `first` on, that make a new one, and their weights.
struct Share {
  int first;
  std::vector<double> weights;
};

// Returns a triangle around each new pixel's centre, as wide as the new pixel, at least two old ones.
std::vector<Share> shares(int from, int to) {
  const double scale = double(from) / to;
  const double support = std::max(scale, 1.0);
  std::vector<Share> all;
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, int(centre - support + 0.5));
    const int end = std::min(from, int(centre + support + 0.5));
    Share share{first, {}};
    double sum = 0;
    for (int x = first; x < end; ++x) {
      // Multiplied by the inverse, not divided, so that the last bit is Pillow's, too.
      const double distance = std::fabs((x - centre + 0.5) * (1.0 / support));
      share.weights.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
      sum += share.weights.back();
    }
    for (double& weight : share.weights) {
      if (sum != 0) weight /= sum;
    }
    all.push_back(std::move(share));
  }
  return all;
}

// Both passes sum in double precision and keep floats, the horizontal one first. Pillow 13 does the
// vertical one first where that is cheaper, which changes the last bit of some values.
Floats horizontal(const Floats& values, Size from, int width, int channels) {
  const std::size_t n = std::size_t(channels);
  Floats made(std::size_t(from.height) * width * n);
  const auto all = shares(from.width, width);
  float* to = made.data();
  for (int y = 0; y < from.height; ++y) {
    const float* row = values.data() + std::size_t(y) * from.width * n;
    for (const Share& share : all) {
      for (std::size_t c = 0; c < n; ++c) {
        const float* old = row + std::size_t(share.first) * n + c;
        double sum = 0;
        for (const double weight : share.weights) {
          sum += *old * weight;
          old += n;
        }
        *to++ = float(sum);
      }
    }
  }
  return made;
}

Floats vertical(const Floats& values, Size from, int height, int channels) {
  const std::size_t stride = std::size_t(from.width) * channels;
  Floats made(std::size_t(height) * stride);
  std::vector<double> sums(stride);
  float* to = made.data();
  for (const Share& share : shares(from.height, height)) {
    std::fill(sums.begin(), sums.end(), 0.0);
    const float* row = values.data() + std::size_t(share.first) * stride;
    for (const double weight : share.weights) {
      for (std::size_t x = 0; x < stride; ++x) sums[x] += *row++ * weight;
    }
    for (const double sum : sums) *to++ = float(sum);
  }
  return made;
}

Floats resampled(Floats values, Size from, Size to, int channels) {
  if (to.width != from.width) values = horizontal(values, from, to.width, channels);
  if (to.height != from.height) {
    values = vertical(values, {from.height, to.width}, to.height, channels);
  }
  return values;
}

}  // namespace

Image resized(const Image& image, Size size) {
  Floats unit = std::visit(
      [](const auto& values) {
        Floats made(values.size());
        std::transform(values.begin(), values.end(), made.begin(),
                       [](auto value) { return to_unit(value); });
        return made;
      },
      image.values);
  return {size, image.channels, resampled(std::move(unit), image.size, size, image.channels)};
}

Map resized(const Map& map, Size size) {
  Map made;
  made.size = size;
  made.values = resampled(map.values, map.size, size, 1);
  return made;
}

}  // namespace recon_ad
