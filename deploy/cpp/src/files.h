// Files in and out: read whole, written whole or not at all.
#pragma once

#include <filesystem>
#include <string>

#include "error.h"
#include "image.h"

namespace recon_ad {

// The bytes of a regular file. Throws UserError, in the words of recon_ad/data/decode.py.
Bytes read_image_file(const std::filesystem::path& path);

// Writes beside the target, then renames: a reader sees the old file or the new one. Makes the
// folder. Throws UserError where that is not possible.
void write_whole(const std::filesystem::path& path, const void* content, std::size_t size);

// A file that begins anew and grows: what was added stays, however the program ends. Throws
// UserError.
class GrowingFile {
 public:
  GrowingFile(std::filesystem::path path, const std::string& first);
  ~GrowingFile();
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;

  void add(const std::string& text);

 private:
  std::filesystem::path path_;
  int number_;
};

// What the operating system said of a path that is not an image.
UserError system_error(const std::filesystem::path& path, int number);

}  // namespace recon_ad
