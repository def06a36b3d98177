// Images [height, width, channels], maps and masks [height, width], in rows, and their scaling.
// After recon_ad/data/arrays.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace recon_ad {

// A gigapixel at most: a header that promises more is refused.
constexpr std::size_t kMaxPixels = std::size_t{1} << 30;

struct Size {
  int height = 0;
  int width = 0;

  std::size_t pixels() const { return std::size_t(height) * std::size_t(width); }
};

inline bool operator==(Size a, Size b) { return a.height == b.height && a.width == b.width; }
inline bool operator!=(Size a, Size b) { return !(a == b); }

template <class T>
struct Plane {
  Size size;
  std::vector<T> values;

  Plane() = default;
  explicit Plane(Size s, T value = T()) : size(s), values(s.pixels(), value) {}

  T* row(int y) { return values.data() + std::size_t(y) * size.width; }
  const T* row(int y) const { return values.data() + std::size_t(y) * size.width; }
};

using Map = Plane<float>;
using Mask = Plane<std::uint8_t>;  // 0 or 1

using Bytes = std::vector<std::uint8_t>;
using Words = std::vector<std::uint16_t>;
using Floats = std::vector<float>;

// Bytes mean 0 to 255, words 0 to 65535, floats [0, 1].
struct Image {
  Size size;
  int channels = 0;
  std::variant<Bytes, Words, Floats> values;
};

// The values in the files that mean black and white.
using InputRange = std::pair<double, double>;

template <class T>
constexpr float kWhite = T(-1);  // of an integer type

template <>
inline constexpr float kWhite<float> = 1.0F;

template <class T>
float to_unit(T value) {
  return float(value) / kWhite<T>;
}

// Returns NumPy's name of the type.
std::string type_name(const Image& image);

// Returns the image with that number of channels: gray is repeated, RGB turned to gray by luma;
// `name` is its name in messages.
Image with_channels(Image image, int channels, const std::string& name);

// Returns an image from a file (bytes or words) with the given values scaled to 0 and 65535, or
// unchanged without a range, or with the type's own.
Image scaled(Image image, const std::optional<InputRange>& range, const std::string& name);

// Returns the colours laid over black by the alpha, which is the last channel.
Image over_black(const Image& image);

// Turns an image upright by EXIF's orientation (1 to 8; others do nothing).
Image turned(Image image, int orientation);

// Returns a picture for display: three channels as RGB, else the first as gray; bytes [h, w, 3].
Bytes rgb(const Image& image);

}  // namespace recon_ad
