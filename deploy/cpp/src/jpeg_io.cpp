#include "jpeg_io.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>  // before jpeglib.h, which needs it
#include <cstring>

#include <jpeglib.h>

#include "error.h"
#include "exif.h"
#include "image_io.h"
#include "jpeg_parts.h"

namespace recon_ad {
namespace {

constexpr int kApp1 = JPEG_APP0 + 1;
constexpr int kRgb = 3;

// A decompressor whose errors jump back, as exceptions must not pass through C.
struct Codec {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  std::jmp_buf jump;
  char reason[JMSG_LENGTH_MAX] = "";

  Codec() {
    info.err = jpeg_std_error(&errors);
    info.client_data = this;
    errors.error_exit = [](j_common_ptr codec) {
      auto* self = static_cast<Codec*>(codec->client_data);
      codec->err->format_message(codec, self->reason);
      std::longjmp(self->jump, 1);
    };
    errors.emit_message = [](j_common_ptr, int) {};  // the feeder notices data that end early
    jpeg_create_decompress(&info);
  }
  ~Codec() { jpeg_destroy_decompress(&info); }
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;
};

// This has no objects whose destructor a jump would skip. On failure it returns false and sets `reason`.
bool read_header(Codec& codec, const Bytes& file) {
  if (setjmp(codec.jump)) return false;
  jpeg_mem_src(&codec.info, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_save_markers(&codec.info, kApp1, 0xFFFF);
  jpeg_read_header(&codec.info, TRUE);
  return true;
}

// Feeds the decoder with the data behind the header, as recon_ad/data/jpeg.py does. Data end at a
// marker, where libjpeg goes on with zeros and only warns. The decoder gets other data instead of the
// marker, so that it waits for more if the data have ended too early.
class Feeder {
 public:
  Feeder(Codec& codec, const Bytes& file, std::uint8_t* pixels)
      : info_(codec.info), file_(file), pixels_(pixels),
        at_(std::size_t(info_.src->next_input_byte - file.data())) {
    info_.src->fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };
    info_.src->skip_input_data = [](j_decompress_ptr info, long count) {
      jpeg_source_mgr& source = *info->src;
      const std::size_t n = std::min(std::size_t(std::max(count, 0L)), source.bytes_in_buffer);
      source.next_input_byte += n;
      source.bytes_in_buffer -= n;
    };
    info_.src->bytes_in_buffer = 0;
  }

  // Gives the file's data up to a place, then others.
  void give(std::size_t place, const Bytes& others) {
    if (done_) return;
    buffer_.erase(buffer_.begin(), buffer_.end() - std::ptrdiff_t(info_.src->bytes_in_buffer));
    buffer_.insert(buffer_.end(), file_.begin() + std::ptrdiff_t(at_),
                   file_.begin() + std::ptrdiff_t(std::max(at_, place)));
    buffer_.insert(buffer_.end(), others.begin(), others.end());
    at_ = std::max(at_, place);
    info_.src->next_input_byte = buffer_.data();
    info_.src->bytes_in_buffer = buffer_.size();
    if (!started_) started_ = jpeg_start_decompress(&info_);
    if (!started_) return;
    const std::size_t stride = std::size_t(info_.output_width) * std::size_t(info_.output_components);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = pixels_ + info_.output_scanline * stride;
      if (jpeg_read_scanlines(&info_, &row, 1) == 0) return;
    }
    done_ = true;
  }

  bool waits() const { return !done_ && info_.src->bytes_in_buffer > 0; }
  bool done() const { return done_; }
  std::size_t size() const { return file_.size(); }

 private:
  jpeg_decompress_struct& info_;
  const Bytes& file_;
  std::uint8_t* pixels_;
  std::size_t at_;
  Bytes buffer_;
  bool started_ = false, done_ = false;
};

// Returns false if data are missing or, with a reason, if they cannot be decoded. There are no objects
// here whose destructor a jump would skip.
bool read_pixels(Codec& codec, Feeder& feeder, const JpegParts& parts, const Bytes& probe,
                 const Bytes& nothing) {
  if (setjmp(codec.jump)) return false;
  jpeg_decompress_struct& info = codec.info;
  info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  for (const JpegEnd& end : parts.ends) {
    feeder.give(end.place, end.ahead);
    // It waits for a marker, or is within a unit that it has read all of.
    if (!feeder.waits()) feeder.give(end.place, probe);
    if (feeder.waits()) return false;
  }
  if (parts.scans > 1) feeder.give(feeder.size(), nothing);
  return feeder.done();
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

// Throws UserError if the pixels cannot be read, or if data are missing.
void read_whole(Codec& codec, std::uint8_t* pixels, const Bytes& file, const std::string& name) {
  JpegParts parts;
  try {
    parts = jpeg_parts(file);
  } catch (const UserError& error) {
    throw broken(name, error.what());
  }
  const Bytes probe = {0};  // passed over before a marker, and too few bits for a unit
  Feeder feeder(codec, file, pixels);
  if (read_pixels(codec, feeder, parts, probe, {})) return;
  throw broken(name, codec.reason[0] ? codec.reason : "image file is truncated");
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
  if (info.arith_code) {
    throw UserError(name + ": is a JPEG of arithmetic coding, whose end may be missing without being "
                    "noticed: save it anew with Huffman codes");
  }
  const int turn = orientation(codec, name);  // reading the pixels frees the segments
  Bytes pixels(size.pixels() * std::size_t(channels));
  read_whole(codec, pixels.data(), file, name);
  return turned(Image{size, channels, std::move(pixels)}, turn);
}

}  // namespace recon_ad
