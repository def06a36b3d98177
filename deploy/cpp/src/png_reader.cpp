#include "png_io.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>

#include <png.h>

#include "error.h"
#include "exif.h"
#include "image_io.h"

namespace recon_ad {
namespace {

// libpng's errors jump back, as exceptions must not pass through C.
struct Reader {
  const Bytes& file;
  std::size_t at = 0;
  png_structp png = nullptr;
  png_infop info = nullptr;
  png_infop end = nullptr;  // chunks behind the pixels
  char reason[128] = "";

  explicit Reader(const Bytes& file_) : file(file_) {
    const auto fail = [](png_structp p, png_const_charp text) {
      auto* self = static_cast<Reader*>(png_get_error_ptr(p));
      std::snprintf(self->reason, sizeof self->reason, "%s", text);
      png_longjmp(p, 1);
    };
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, fail,
                                 [](png_structp, png_const_charp) {});
    if (png) info = png_create_info_struct(png);
    if (info) end = png_create_info_struct(png);
    if (!end) {
      png_destroy_read_struct(&png, &info, &end);
      throw std::bad_alloc();
    }
  }
  ~Reader() { png_destroy_read_struct(&png, &info, &end); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  bool palette() const { return png_get_color_type(png, info) == PNG_COLOR_TYPE_PALETTE; }
  bool deep() const { return png_get_bit_depth(png, info) == 16; }
  bool colour() const { return png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR; }
  bool alpha() const { return png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA; }
};

void give(png_structp png, png_bytep to, std::size_t n) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (n > reader->file.size() - reader->at) png_error(png, "image file is truncated");
  std::memcpy(to, reader->file.data() + reader->at, n);
  reader->at += n;
}

// The next functions have no objects whose destructor a jump would skip. On failure they return
// false and set `reason`.
bool read_header(Reader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_set_read_fn(reader.png, &reader, give);
  png_set_user_limits(reader.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // pixels are limited instead
  // Colour profiles, texts and other chunks are ignored, but must not be damaged.
  png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  static const png_byte kKept[] = "acTL\0fcTL\0eXIf";
  png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_ALWAYS, kKept, 3);
  png_set_crc_action(reader.png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_read_info(reader.png, reader.info);
  return true;
}

// Deflate shrinks to a 1032nd at best. A header that promises more than the file can hold is
// rejected: a few bytes would take gigabytes.
bool is_too_short(const Reader& reader, Size size) {
  constexpr std::size_t kMostOfOneByte = 1040;
  const std::size_t row = 1 + png_get_rowbytes(reader.png, reader.info);
  return std::size_t(size.height) * row > kMostOfOneByte * reader.file.size();
}

// Requests whole bytes or words in the machine's order, and the indices of a palette.
bool set_transforms(Reader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  if (!reader.deep() && !reader.palette()) png_set_expand_gray_1_2_4_to_8(reader.png);
  // The transparent colour of gray or RGB becomes an alpha.
  if (!reader.palette()) png_set_tRNS_to_alpha(reader.png);
  png_set_packing(reader.png);
  const std::uint16_t one = 1;
  std::uint8_t lowest = 0;
  std::memcpy(&lowest, &one, 1);
  if (lowest == 1) png_set_swap(reader.png);
  png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  return true;
}

bool read_pixels(Reader& reader, png_bytepp rows, bool to_end) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_read_image(reader.png, rows);
  if (to_end) png_read_end(reader.png, reader.end);
  return true;
}

// Colour types. The checks that follow are those of recon_ad/data/png.py.
constexpr int kGray = 0, kRgb = 2, kPalette = 3, kGrayAlpha = 4, kRgbAlpha = 6;
constexpr int kMaxDeepSide = 1000000;  // px of 16 bits in several channels

// Returns what is wrong with a chunk tRNS, "" if nothing is.
std::string wrong_transparency(const png_byte* content, std::size_t length, int depth, int kind,
                               std::size_t entries, bool twice) {
  if (twice) return "it occurs twice";
  if (kind == kGrayAlpha || kind == kRgbAlpha) return "the image has an alpha channel";
  if (kind == kPalette) {
    if (entries == 0) return "it precedes the palette";
    if (length > 0 && length <= entries) return "";
    return std::to_string(length) + " alphas for " + std::to_string(entries) + " colours";
  }
  if (kind != kGray && kind != kRgb) return "";  // not a PNG, as libpng will report
  const std::size_t size = kind == kGray ? 2 : 6;
  if (length != size) {
    return std::to_string(length) + " bytes and not " + std::to_string(size);
  }
  for (std::size_t i = 0; i < size; i += 2) {
    if (png_get_uint_16(content + i) >> std::min(depth, 16)) {
      return "a value of more than " + std::to_string(depth) + " bits";
    }
  }
  return "";
}

// Throws UserError for a PNG whose transparency (chunk tRNS) contradicts the rest of it: libpng
// drops such a chunk, and Pillow repairs some. Chunks behind the pixels do not count.
void check_transparency(const Bytes& file, const std::string& name) {
  constexpr std::size_t kHead = 8, kChecksum = 4;  // bytes
  int depth = 0, kind = -1;
  std::size_t entries = 0;
  bool seen = false;
  for (std::size_t at = kHead; at + kHead <= file.size();) {
    const std::size_t length = png_get_uint_32(&file[at]);
    const std::string chunk(file.begin() + std::ptrdiff_t(at) + 4,
                            file.begin() + std::ptrdiff_t(at + kHead));
    at += kHead;
    if (chunk == "IDAT" || length > file.size() - at) return;
    const png_byte* content = file.data() + at;
    std::string wrong;
    if (chunk == "IHDR" && length > 9) {
      depth = content[8];
      kind = content[9];
    } else if (chunk == "PLTE" && (kind == kRgb || kind == kPalette)) {
      if (seen) wrong = "it precedes the palette";
      entries = std::min(length / 3, std::size_t(1) << (kind == kRgb ? 8 : std::min(depth, 8)));
    } else if (chunk == "tRNS") {
      wrong = wrong_transparency(content, length, depth, kind, entries, seen);
      seen = true;
    }
    if (!wrong.empty()) {
      throw UserError(name + ": cannot be decoded (chunk tRNS, its transparency: " + wrong +
                      "): save the image anew");
    }
    at += length + kChecksum;
  }
}

// Facts in chunks other than pixels.
struct Told {
  std::uint32_t frames = 0;  // frames of an animation
  bool first_is_frame = false;
  int orientation = 0;
};

Told told(const Reader& reader, png_infop where, const std::string& name) {
  Told found;
  png_unknown_chunkp chunks = nullptr;
  const int count = png_get_unknown_chunks(reader.png, where, &chunks);
  for (int i = 0; i < count; ++i) {
    const png_unknown_chunk& chunk = chunks[i];
    const std::string kind(reinterpret_cast<const char*>(chunk.name));
    if (kind == "fcTL") found.first_is_frame = true;
    if (kind == "acTL" && chunk.size >= 8) found.frames = png_get_uint_32(chunk.data);
    if (kind == "eXIf") {
      try {
        found.orientation = exif_orientation(Bytes(chunk.data, chunk.data + chunk.size));
      } catch (const UserError& error) {
        throw broken(name, error.what());
      }
    }
  }
  return found;
}

// Returns the palette's colours over black, or gray if all colours that occur are gray. Throws UserError
// for indices beyond the palette.
Image coloured(const Reader& reader, const Bytes& indices, Size size, const std::string& name) {
  constexpr std::size_t kEntries = 256;
  png_colorp palette = nullptr;
  int entries = 0;
  png_get_PLTE(reader.png, reader.info, &palette, &entries);
  const int most = indices.empty() ? 0 : *std::max_element(indices.begin(), indices.end());
  if (most >= entries) {
    throw UserError(name + ": cannot be decoded (its palette has " + std::to_string(entries) +
                    " colours, and a pixel has number " + std::to_string(most) +
                    "): save the image anew");
  }
  png_bytep alpha = nullptr;
  int alphas = 0;
  png_color_16p unused = nullptr;
  png_get_tRNS(reader.png, reader.info, &alpha, &alphas, &unused);
  Image table{{1, int(kEntries)}, 4, Bytes(4 * kEntries)};
  auto& entry = std::get<Bytes>(table.values);
  for (int i = 0; i < entries; ++i) {
    const png_color& colour = palette[i];
    const Bytes rgba = {colour.red, colour.green, colour.blue,
                        alpha && i < alphas ? alpha[i] : std::uint8_t{255}};
    std::copy(rgba.begin(), rgba.end(), entry.begin() + 4 * i);
  }
  const Bytes colours = std::get<Bytes>(over_black(table).values);
  const bool gray = std::all_of(indices.begin(), indices.end(), [&](std::uint8_t i) {
    return colours[3 * i] == colours[3 * i + 1] && colours[3 * i] == colours[3 * i + 2];
  });
  const int channels = gray ? 1 : 3;
  Bytes pixels(indices.size() * std::size_t(channels));
  for (std::size_t i = 0; i < indices.size(); ++i) {
    std::copy_n(&colours[3 * indices[i]], channels, &pixels[i * std::size_t(channels)]);
  }
  return Image{size, channels, std::move(pixels)};
}

template <class T>
std::vector<png_bytep> rows_of(std::vector<T>& pixels, int height) {
  std::vector<png_bytep> rows(static_cast<std::size_t>(height));
  for (std::size_t y = 0; y < rows.size(); ++y) {
    rows[y] = reinterpret_cast<png_bytep>(&pixels[y * (pixels.size() / rows.size())]);
  }
  return rows;
}

}  // namespace

Png decode_png(const Bytes& file, const std::string& name) {
  check_transparency(file, name);
  Reader reader(file);
  if (!read_header(reader)) throw broken(name, reader.reason);
  const Size size{int(png_get_image_height(reader.png, reader.info)),
                  int(png_get_image_width(reader.png, reader.info))};
  check_pixels(size, name);
  // As in Python, colour of 16 bits is read to the end of the file, and never turned.
  const bool deep_colour = reader.deep() && (reader.colour() || reader.alpha());
  if (deep_colour && std::max(size.height, size.width) > kMaxDeepSide) {
    throw UserError(name + ": has " + std::to_string(size.width) + " × " +
                    std::to_string(size.height) +
                    " pixels of 16 bits in several channels, which are decoded up to " +
                    std::to_string(kMaxDeepSide) + " px a side: cut it into smaller files");
  }
  const Told before = told(reader, reader.info, name);
  const std::uint32_t pages = before.frames + (before.frames && !before.first_is_frame ? 1 : 0);
  if (pages > 1) {
    throw UserError(name + ": holds " + std::to_string(pages) +
                    " pages (an animated PNG): save each page as a separate file");
  }
  if (is_too_short(reader, size)) throw broken(name, "image file is truncated");
  if (!set_transforms(reader)) throw broken(name, reader.reason);

  Image image{size, png_get_channels(reader.png, reader.info), {}};
  const std::size_t values = size.pixels() * std::size_t(image.channels);
  if (reader.deep()) {
    image.values = Words(values);
  } else {
    image.values = Bytes(values);
  }
  auto rows = std::visit([&](auto& v) { return rows_of(v, size.height); }, image.values);
  if (!read_pixels(reader, rows.data(), deep_colour)) throw broken(name, reader.reason);
  if (deep_colour) {
    if (std::max(before.orientation, told(reader, reader.end, name).orientation) > 1) {
      throw UserError(name +
                      ": is turned by its EXIF orientation, which is not supported for colour of "
                      "16 bits: save it upright");
    }
    if (image.channels % 2 == 0) image = over_black(image);
    return {std::move(image), false};
  }
  if (reader.palette()) {
    image = coloured(reader, std::get<Bytes>(image.values), size, name);
  } else if (reader.alpha()) {
    image = over_black(image);
  }
  return {turned(std::move(image), before.orientation), reader.palette()};
}

}  // namespace recon_ad
