#include "exif.h"

#include <algorithm>
#include <string>

#include "error.h"

namespace recon_ad {
namespace {

constexpr unsigned kOrientation = 0x0112;
constexpr unsigned kShort = 3;  // the TIFF type that Pillow reads as a number
constexpr unsigned kLong = 4;

// Reads integers of either byte order behind `start`; nothing beyond the end.
class Reader {
 public:
  Reader(const Bytes& data, std::size_t start, bool little)
      : data_(data), start_(start), little_(little) {}

  bool has(std::size_t at, std::size_t n) const {
    const std::size_t size = data_.size() - start_;
    return at <= size && n <= size - at;
  }

  unsigned number(std::size_t at, std::size_t n) const {
    unsigned value = 0;
    for (std::size_t i = 0; i < n; ++i) {
      value = value << 8 | data_[start_ + at + (little_ ? n - 1 - i : i)];
    }
    return value;
  }

 private:
  const Bytes& data_;
  std::size_t start_;
  bool little_;
};

}  // namespace

int exif_orientation(const Bytes& exif) {
  // Some writers put JPEG's mark before the header in other files too, or write it twice. Pillow (13)
  // does not accept more of them either.
  const std::string mark("Exif\0\0", 6);
  const bool repeated =
      exif.size() >= mark.size() && std::equal(mark.begin(), mark.end(), exif.begin());
  const std::size_t start = repeated ? mark.size() : 0;
  if (exif.size() == start) return 0;
  const bool little = exif[start] == 'I';
  const Reader read(exif, start, little);
  const bool marked =
      read.has(0, 8) && exif[start] == exif[start + 1] && (little || exif[start] == 'M');
  // Pillow accepts the 42 in either order.
  const unsigned version = marked ? read.number(2, 2) : 0;
  if (version != 42 && version != 42 << 8) throw UserError("its EXIF header is not valid");
  const std::size_t directory = read.number(4, 4);
  if (!read.has(directory, 2)) return 0;
  int found = 0;
  const unsigned entries = read.number(directory, 2);
  for (unsigned i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * std::size_t(i);
    if (!read.has(entry, 12)) break;
    const unsigned type = read.number(entry + 2, 2);
    if (read.number(entry, 2) != kOrientation || read.number(entry + 4, 4) != 1) continue;
    if (type == kShort) found = int(read.number(entry + 8, 2));
    if (type == kLong) found = int(read.number(entry + 8, 4));
  }
  return found;
}

int xmp_orientation(const Bytes& xmp) {
  const std::string name = "tiff:Orientation";
  auto at = xmp.begin();
  while ((at = std::search(at, xmp.end(), name.begin(), name.end())) != xmp.end()) {
    at += std::ptrdiff_t(name.size());
    for (const std::string open : {"=\"", ">"}) {
      const auto n = std::ptrdiff_t(open.size());
      if (xmp.end() - at > n && std::equal(open.begin(), open.end(), at)) {
        const std::uint8_t digit = at[n];
        if (digit >= '0' && digit <= '9') return digit - '0';
      }
    }
  }
  return 0;
}

}  // namespace recon_ad
