#include "image_io.h"

#include <algorithm>

#include "files.h"
#include "jpeg_io.h"
#include "png_io.h"

namespace recon_ad {
namespace {

namespace fs = std::filesystem;

enum class Kind { png, palette, jpeg };

struct Decoded {
  Image image;
  Kind kind;
};

bool begins(const Bytes& file, const std::string& word) {
  return file.size() >= word.size() && std::equal(word.begin(), word.end(), file.begin(),
                                                  [](char a, std::uint8_t b) {
                                                    return std::uint8_t(a) == b;
                                                  });
}

// Names the kinds of files that Python reads and this program does not.
std::string other_kind(const Bytes& file) {
  if (begins(file, "BM")) return "a BMP file";
  if (begins(file, "\x93NUMPY")) return "a .npy file";
  for (const std::string order : {"II", "MM"}) {
    if (!begins(file, order) || file.size() < 4) continue;
    const int version = std::max(file[2], file[3]);  // Pillow accepts it in either order
    if (std::min(file[2], file[3]) == 0 && (version == 42 || version == 43)) return "a TIFF file";
  }
  return "";
}

Decoded decoded(const fs::path& path) {
  const std::string name = path.string();
  const Bytes file = read_image_file(path);
  if (file.empty()) {
    throw UserError(name +
                    ": is an empty file (0 bytes): replace it by a PNG or JPEG file, or remove it");
  }
  if (begins(file, "\x89PNG\r\n\x1a\n")) {
    Png png = decode_png(file, name);
    return {std::move(png.image), png.palette ? Kind::palette : Kind::png};
  }
  if (begins(file, "\xff\xd8\xff")) return {decode_jpeg(file, name), Kind::jpeg};
  const std::string kind = other_kind(file);
  if (!kind.empty()) {
    throw UserError(name + ": is " + kind +
                    ", which this program does not read: save it as PNG, or judge it with python "
                    "-m recon_ad.predict");
  }
  throw UserError(name +
                  ": is not an image that can be decoded: replace it by a PNG or JPEG file, or "
                  "remove it");
}

}  // namespace

UserError broken(const std::string& name, const std::string& reason) {
  return UserError(name + ": cannot be decoded (" + reason +
                   "): the file is broken or truncated, replace or remove it");
}

void check_pixels(Size size, const std::string& name) {
  if (size.pixels() <= kMaxPixels) return;
  throw UserError(name + ": has " + std::to_string(size.width) + " × " +
                  std::to_string(size.height) + " pixels, more than the " +
                  std::to_string(kMaxPixels) + " that are decoded: cut it into smaller files");
}

Image decode_image(const fs::path& path, int channels, const std::optional<InputRange>& range) {
  const std::string name = path.string();
  return scaled(with_channels(decoded(path).image, channels, name), range, name);
}

Mask decode_mask(const fs::path& path) {
  const Decoded file = decoded(path);
  Mask mask(file.image.size);
  std::visit(
      [&](const auto& values) {
        using T = typename std::decay_t<decltype(values)>::value_type;
        const auto n = std::ptrdiff_t(file.image.channels);
        std::vector<T> levels(mask.values.size());
        for (std::size_t i = 0; i < levels.size(); ++i) {
          const auto first = values.begin() + std::ptrdiff_t(i) * n;
          levels[i] = *std::max_element(first, first + n);
        }
        const double top = *std::max_element(levels.begin(), levels.end());
        // Small values are labels; JPEG leaves some gray levels of noise, also in an empty mask.
        double above = top / 2;
        if (file.kind == Kind::palette || top < 32) above = 0;
        if (file.kind == Kind::jpeg) above = 127;
        for (std::size_t i = 0; i < levels.size(); ++i) mask.values[i] = levels[i] > above;
      },
      file.image.values);
  return mask;
}

}  // namespace recon_ad
