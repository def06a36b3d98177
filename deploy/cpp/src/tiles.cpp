#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace recon_ad {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr std::int64_t kLongest = 1 << 16;  // px, limit of the longer side when the shorter one is given

std::vector<int> tile_starts(int length, int tile, int stride) {
  std::vector<int> starts;
  for (int start = 0; start < length - tile; start += stride) starts.push_back(start);
  starts.push_back(std::max(0, length - tile));
  return starts;
}

// Returns the place that a place beyond the end mirrors; the border is behind the last pixel.
int mirrored(int place, int length) {
  const int within = place % (2 * length);
  return within < length ? within : 2 * length - 1 - within;
}

std::vector<double> hann_window(int length) {
  std::vector<double> window(static_cast<std::size_t>(length));
  for (int i = 0; i < length; ++i) {
    // At pixel centres, so that no weight is zero: a corner of the image has one tile only.
    const double sine = std::sin(kPi * (i + 0.5) / length);
    window[std::size_t(i)] = sine * sine;
  }
  return window;
}

template <class From, class To>
void copy_tile(const std::vector<From>& values, const Image& image, Corner corner, const Plan& plan,
               To* to) {
  const std::size_t n = std::size_t(image.channels);
  const std::size_t next_pixel = plan.channels_first ? 1 : n;
  const std::size_t next_channel = plan.channels_first ? plan.tile.pixels() : 1;
  for (int y = 0; y < plan.tile.height; ++y) {
    const std::size_t first = std::size_t(corner.row + y) * image.size.width + corner.column;
    const From* from = values.data() + first * n;
    for (int x = 0; x < plan.tile.width; ++x, to += next_pixel) {
      for (std::size_t c = 0; c < n; ++c) {
        if constexpr (std::is_same_v<From, To>) {
          to[c * next_channel] = *from++;
        } else {
          to[c * next_channel] = to_unit(*from++);
        }
      }
    }
  }
}

}  // namespace

Size resized_size(Size image, Size resize) {
  if (resize.width != 0) return resize;
  std::int64_t to = resize.height, of = std::min(image.height, image.width);
  const std::int64_t longer = std::max(image.height, image.width);
  if (to * longer > kLongest * of) {
    to = kLongest;
    of = longer;
  }
  const auto side = [&](std::int64_t n) {
    return int(std::max<std::int64_t>(1, (2 * n * to + of) / (2 * of)));
  };
  return {side(image.height), side(image.width)};
}

std::vector<Corner> tile_corners(Size image, Size tile, Size stride) {
  std::vector<Corner> corners;
  for (const int row : tile_starts(image.height, tile.height, stride.height)) {
    for (const int column : tile_starts(image.width, tile.width, stride.width)) {
      corners.push_back({row, column});
    }
  }
  return corners;
}

std::optional<Image> padded_to_tile(const Image& image, Size tile) {
  const Size size{std::max(image.size.height, tile.height), std::max(image.size.width, tile.width)};
  if (size == image.size) return std::nullopt;
  Image made{size, image.channels, {}};
  std::visit(
      [&](const auto& values) {
        std::decay_t<decltype(values)> filled(size.pixels() * std::size_t(image.channels));
        auto to = filled.begin();
        for (int y = 0; y < size.height; ++y) {
          const std::size_t row = std::size_t(mirrored(y, image.size.height)) * image.size.width;
          for (int x = 0; x < size.width; ++x) {
            const std::size_t at = (row + mirrored(x, image.size.width)) * image.channels;
            to = std::copy_n(values.begin() + std::ptrdiff_t(at), image.channels, to);
          }
        }
        made.values = std::move(filled);
      },
      image.values);
  return made;
}

Map tile_weights(Size tile, bool hann) {
  Map weights(tile, 1.0F);
  if (!hann) return weights;
  const auto rows = hann_window(tile.height);
  const auto columns = hann_window(tile.width);
  for (int y = 0; y < tile.height; ++y) {
    for (int x = 0; x < tile.width; ++x) {
      weights.row(y)[x] = float(rows[std::size_t(y)] * columns[std::size_t(x)]);
    }
  }
  return weights;
}

void cut(const Image& image, Corner corner, const Plan& plan, void* to) {
  std::visit(
      [&](const auto& values) {
        using T = typename std::decay_t<decltype(values)>::value_type;
        if (plan.type == Type::float32) {
          copy_tile(values, image, corner, plan, static_cast<float*>(to));
        } else {
          copy_tile(values, image, corner, plan, static_cast<T*>(to));
        }
      },
      image.values);
}

void Stitch::add(const float* tile, Corner corner) {
  const Size size = weights_.size;
  for (int y = 0; y < size.height; ++y) {
    float* total = total_.row(corner.row + y) + corner.column;
    float* weight = weight_.row(corner.row + y) + corner.column;
    const float* here = weights_.row(y);
    for (int x = 0; x < size.width; ++x) {
      total[x] += *tile++ * here[x];
      weight[x] += here[x];
    }
  }
}

Map Stitch::take() {
  for (std::size_t i = 0; i < total_.values.size(); ++i) total_.values[i] /= weight_.values[i];
  return std::move(total_);
}

void attenuate_border(Map& values, int border, float weight) {
  const Size size = values.size;
  for (int y = 0; border > 0 && y < size.height; ++y) {
    const bool all = y < border || y >= size.height - border;
    for (int x = 0; x < size.width; ++x) {
      if (all || x < border || x >= size.width - border) values.row(y)[x] *= weight;
    }
  }
}

}  // namespace recon_ad
