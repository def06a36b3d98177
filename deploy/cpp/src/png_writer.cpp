#include <csetjmp>
#include <new>
#include <stdexcept>
#include <vector>

#include <png.h>

#include "png_io.h"

namespace recon_ad {
namespace {

// libpng's errors jump back, as exceptions must not pass through C.
struct Writer {
  png_structp png = nullptr;
  png_infop info = nullptr;
  Bytes file;

  Writer() {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr,
                                  [](png_structp p, png_const_charp) { png_longjmp(p, 1); },
                                  [](png_structp, png_const_charp) {});
    if (png) info = png_create_info_struct(png);
    if (!info) {
      png_destroy_write_struct(&png, &info);
      throw std::bad_alloc();
    }
  }
  ~Writer() { png_destroy_write_struct(&png, &info); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
};

void take(png_structp png, png_bytep from, std::size_t n) {
  auto* writer = static_cast<Writer*>(png_get_io_ptr(png));
  bool full = false;
  try {
    writer->file.insert(writer->file.end(), from, from + n);
  } catch (const std::bad_alloc&) {
    full = true;  // the jump has to wait until the exception is handled
  }
  if (full) png_error(png, "out of memory");
}

// No object here has a destructor that a jump would skip. Returns false if memory runs out.
bool write(Writer& writer, Size size, png_bytepp rows) {
  if (setjmp(png_jmpbuf(writer.png))) return false;
  png_set_write_fn(writer.png, &writer, take, nullptr);
  png_set_user_limits(writer.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_set_IHDR(writer.png, writer.info, png_uint_32(size.width), png_uint_32(size.height), 8,
               PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(writer.png, writer.info);
  png_write_image(writer.png, rows);
  png_write_end(writer.png, nullptr);
  return true;
}

}  // namespace

Bytes encode_png(const Bytes& rgb, Size size) {
  std::vector<png_bytep> rows(static_cast<std::size_t>(size.height));
  for (std::size_t y = 0; y < rows.size(); ++y) {
    rows[y] = const_cast<png_bytep>(&rgb[y * std::size_t(size.width) * 3]);  // is only read
  }
  Writer writer;
  if (!write(writer, size, rows.data())) throw std::bad_alloc();
  return std::move(writer.file);
}

}  // namespace recon_ad
