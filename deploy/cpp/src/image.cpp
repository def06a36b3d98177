#include "image.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.h"

namespace recon_ad {
namespace {

// ITU-R 601 in 16 binary places, as Pillow rounds it.
std::uint8_t luma(const std::uint8_t* p) {
  return std::uint8_t((p[0] * 19595U + p[1] * 38470U + p[2] * 7471U + 0x8000U) >> 16);
}

// The weights add up to a little more than 1 in binary, and white must not become whiter.
double precise_luma(double r, double g, double b) {
  const double sum = r * 0.299 + g * 0.587 + b * 0.114;
  return std::clamp(sum, std::min({r, g, b}), std::max({r, g, b}));
}

std::uint16_t luma(const std::uint16_t* p) {
  return std::uint16_t(std::nearbyint(precise_luma(p[0], p[1], p[2])));
}

float luma(const float* p) { return float(precise_luma(p[0], p[1], p[2])); }

std::string general(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

template <class T>
Words to_range(const std::vector<T>& values, double black, double white) {
  Words words(values.size());
  const float low = float(black);
  const float step = float(65535.0 / (white - black));
  for (std::size_t i = 0; i < values.size(); ++i) {
    // With a very small range the product may be NaN.
    const float word = std::max(0.0F, (float(values[i]) - low) * step);
    words[i] = std::uint16_t(std::nearbyint(std::min(word, 65535.0F)));
  }
  return words;
}

}  // namespace

std::string type_name(const Image& image) {
  constexpr const char* names[] = {"uint8", "uint16", "float32"};
  return names[image.values.index()];
}

Image with_channels(Image image, int channels, const std::string& name) {
  const int have = image.channels;
  if (have == channels) return image;
  if (!(have == 1 && channels == 3) && !(have == 3 && channels == 1)) {
    throw UserError(name + ": has " + std::to_string(have) + " channels and not " +
                    std::to_string(channels) + ": give images of one kind");
  }
  const std::size_t pixels = image.size.pixels();
  std::visit(
      [&](auto& values) {
        std::decay_t<decltype(values)> made(pixels * std::size_t(channels));
        for (std::size_t i = 0; i < pixels; ++i) {
          if (channels == 1) {
            made[i] = luma(&values[3 * i]);
          } else {
            std::fill_n(&made[3 * i], 3, values[i]);
          }
        }
        values = std::move(made);
      },
      image.values);
  image.channels = channels;
  return image;
}

Image scaled(Image image, const std::optional<InputRange>& range, const std::string& name) {
  if (!range) return image;
  const double black = range->first;
  const double white = range->second;
  const auto made = std::visit(
      [&](const auto& values) -> std::optional<Words> {
        using T = typename std::decay_t<decltype(values)>::value_type;
        if (black == 0 && white == kWhite<T>) return std::nullopt;
        const auto [low, high] = std::minmax_element(values.begin(), values.end());
        if (!(*low >= black && *high <= white)) {
          throw UserError(name + " has values from " + general(*low) + " to " + general(*high) +
                          ", outside the range from " + general(black) + " to " + general(white) +
                          ": scale it, or set config.data.input_range to what black and white "
                          "are.");
        }
        return to_range(values, black, white);
      },
      image.values);
  if (made) image.values = *made;
  return image;
}

Image over_black(const Image& image) {
  Image made{image.size, image.channels - 1, {}};
  const int n = made.channels;
  std::visit(
      [&](const auto& values) {
        using T = typename std::decay_t<decltype(values)>::value_type;
        std::vector<T> laid(image.size.pixels() * std::size_t(n));
        const T* from = values.data();
        T* to = laid.data();
        for (std::size_t i = 0; i < image.size.pixels(); ++i, from += n + 1, to += n) {
          const float share = to_unit(from[n]);
          for (int c = 0; c < n; ++c) to[c] = T(std::nearbyint(float(from[c]) * share));
        }
        made.values = std::move(laid);
      },
      image.values);
  return made;
}

Image turned(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const int h = image.size.height;
  const int w = image.size.width;
  const bool quarter = orientation >= 5;
  const Size size = quarter ? Size{w, h} : image.size;
  // Maps a pixel of the upright image to its place in the file.
  const auto source = [&](int y, int x) -> std::pair<int, int> {
    switch (orientation) {
      case 2: return {y, w - 1 - x};
      case 3: return {h - 1 - y, w - 1 - x};
      case 4: return {h - 1 - y, x};
      case 5: return {x, y};
      case 6: return {h - 1 - x, y};
      case 7: return {h - 1 - x, w - 1 - y};
      default: return {x, w - 1 - y};
    }
  };
  std::visit(
      [&](auto& values) {
        std::decay_t<decltype(values)> made(values.size());
        auto to = made.begin();
        for (int y = 0; y < size.height; ++y) {
          for (int x = 0; x < size.width; ++x) {
            const auto [row, column] = source(y, x);
            const std::size_t at = (std::size_t(row) * w + column) * image.channels;
            to = std::copy_n(values.begin() + std::ptrdiff_t(at), image.channels, to);
          }
        }
        values = std::move(made);
      },
      image.values);
  image.size = size;
  return image;
}

Bytes rgb(const Image& image) {
  const std::size_t pixels = image.size.pixels();
  const int n = image.channels;
  Bytes shown(pixels * 3);
  std::visit(
      [&](const auto& values) {
        using T = typename std::decay_t<decltype(values)>::value_type;
        for (std::size_t i = 0; i < pixels; ++i) {
          for (int c = 0; c < 3; ++c) {
            const T value = values[i * std::size_t(n) + (n == 3 ? c : 0)];
            if constexpr (std::is_same_v<T, std::uint8_t>) {
              shown[3 * i + c] = value;
            } else {
              const float unit = std::clamp(to_unit(value), 0.0F, 1.0F);
              shown[3 * i + c] = std::uint8_t(std::nearbyint(unit * 255.0F));
            }
          }
        }
      },
      image.values);
  return shown;
}

}  // namespace recon_ad
