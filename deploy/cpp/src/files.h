// Files: read whole, and written whole or not at all.
#pragma once

#include <filesystem>
#include <string>

#include "error.h"
#include "image.h"

namespace recon_ad {

// Returns the bytes of a regular file. Throws UserError with the messages of
// recon_ad/data/decode.py.
Bytes read_image_file(const std::filesystem::path& path);

// Writes beside the target, then renames: a reader sees the old file or the new one. Makes the
// folder. Throws UserError if that fails.
void write_whole(const std::filesystem::path& path, const void* content, std::size_t size);

// A new file that grows: added lines stay, however the program ends. Throws UserError.
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

// Returns an error of the operating system for a path that is not an image.
UserError system_error(const std::filesystem::path& path, int number);

}  // namespace recon_ad
