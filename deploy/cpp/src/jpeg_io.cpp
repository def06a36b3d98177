#include "jpeg_io.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>  // before jpeglib.h, which needs it
#include <cstring>
#include <iterator>

#include <jpeglib.h>

#include <jerror.h>

#include "error.h"
#include "exif.h"
#include "image_io.h"

namespace recon_ad {
namespace {

constexpr int kApp1 = JPEG_APP0 + 1;
constexpr int kRgb = 3;
constexpr std::size_t kMaxScans = 100;  // of a progressive file; encoders write ten

// A decompressor whose errors jump back, as exceptions must not pass through C.
struct Codec {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  std::jmp_buf jump;
  bool truncated = false;
  char reason[JMSG_LENGTH_MAX] = "";

  Codec() {
    info.err = jpeg_std_error(&errors);
    info.client_data = this;
    errors.error_exit = [](j_common_ptr codec) {
      auto* self = static_cast<Codec*>(codec->client_data);
      codec->err->format_message(codec, self->reason);
      std::longjmp(self->jump, 1);
    };
    // Only a truncated file is an error: its missing part would be gray.
    errors.emit_message = [](j_common_ptr codec, int level) {
      if (level < 0 && codec->err->msg_code == JWRN_JPEG_EOF) {
        static_cast<Codec*>(codec->client_data)->truncated = true;
      }
    };
    jpeg_create_decompress(&info);
  }
  ~Codec() { jpeg_destroy_decompress(&info); }
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;
};

// The next two functions have no objects whose destructor a jump would skip. On failure they return
// false and set `reason`.
bool read_header(Codec& codec, const Bytes& file) {
  if (setjmp(codec.jump)) return false;
  jpeg_mem_src(&codec.info, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_save_markers(&codec.info, kApp1, 0xFFFF);
  jpeg_read_header(&codec.info, TRUE);
  return true;
}

bool read_pixels(Codec& codec, std::uint8_t* pixels) {
  if (setjmp(codec.jump)) return false;
  jpeg_decompress_struct& info = codec.info;
  info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  const std::size_t stride = std::size_t(info.output_width) * std::size_t(info.output_components);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels + info.output_scanline * stride;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

// Joins the contents of the APP1 segments that begin with the word.
Bytes segments(const Codec& codec, const char* word, std::size_t length) {
  Bytes found;
  for (auto* marker = codec.info.marker_list; marker; marker = marker->next) {
    const bool fits = marker->marker == kApp1 && marker->data_length >= length;
    if (!fits || std::memcmp(marker->data, word, length) != 0) continue;
    found.insert(found.end(), marker->data + length, marker->data + marker->data_length);
  }
  return found;
}

int orientation(const Codec& codec, const std::string& name) {
  constexpr char kExif[] = "Exif\0";  // and the zero that ends it
  constexpr char kXmp[] = "http://ns.adobe.com/xap/1.0/";
  int told = 0;
  try {
    told = exif_orientation(segments(codec, kExif, sizeof kExif));
  } catch (const UserError& error) {
    // Pillow reads the resolution there if the file's own header has none, and then ignores errors.
    const bool resolved = codec.info.saw_JFIF_marker &&
                          (codec.info.density_unit == 1 || codec.info.density_unit == 2);
    if (resolved) throw broken(name, error.what());
    return 0;
  }
  return told != 0 ? told : xmp_orientation(segments(codec, kXmp, sizeof kXmp));
}

// A block of 8 × 8 pixels takes at least a bit, except in arithmetic coding. A header that promises
// more than the file can hold is rejected: a few bytes would take gigabytes.
bool is_too_short(const Codec& codec, const Bytes& file, Size size) {
  constexpr std::size_t kMostOfOneByte = 8 * DCTSIZE2;
  return !codec.info.arith_code && size.pixels() > kMostOfOneByte * file.size();
}

// Counts the scans: the byte after FF is 0 within one.
std::size_t scans(const Bytes& file) {
  constexpr std::uint8_t kMark[] = {0xFF, 0xDA};
  std::size_t count = 0;
  auto at = file.begin();
  while ((at = std::search(at, file.end(), std::begin(kMark), std::end(kMark))) != file.end()) {
    at += 2;
    ++count;
  }
  return count;
}

}  // namespace

Image decode_jpeg(const Bytes& file, const std::string& name) {
  Codec codec;
  if (!read_header(codec, file)) throw broken(name, codec.reason);
  const jpeg_decompress_struct& info = codec.info;
  const int channels = info.num_components;
  if (channels == 4) {
    throw UserError(name + ": is a CMYK image (JPEG): save it as gray or RGB of 8 bits");
  }
  if (channels != 1 && channels != kRgb) {
    throw broken(name, "cannot handle " + std::to_string(channels) + "-layer images");
  }
  const Size size{int(info.image_height), int(info.image_width)};
  check_pixels(size, name);
  if (is_too_short(codec, file, size)) throw broken(name, "image file is truncated");
  const std::size_t many = info.progressive_mode ? scans(file) : 0;
  if (many > kMaxScans) {
    throw UserError(name + ": is a JPEG of " + std::to_string(many) + " scans, more than the " +
                    std::to_string(kMaxScans) +
                    " that are decoded: each takes as long as a whole image; save it anew");
  }
  const int turn = orientation(codec, name);  // reading the pixels frees the segments
  Bytes pixels(size.pixels() * std::size_t(channels));
  if (!read_pixels(codec, pixels.data())) throw broken(name, codec.reason);
  if (codec.truncated) throw broken(name, "image file is truncated");
  return turned(Image{size, channels, std::move(pixels)}, turn);
}

}  // namespace recon_ad
