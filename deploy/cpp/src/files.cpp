#include "files.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace recon_ad {
namespace {

namespace fs = std::filesystem;

std::string reason(int number) { return std::generic_category().message(number); }

UserError unreadable(const std::string& name, int number) {
  return UserError(name + ": cannot be read (" + reason(number) +
                   "): give a file that you may read");
}

struct Handle {
  int number;

  explicit Handle(int n) : number(n) {}
  ~Handle() {
    if (number >= 0) ::close(number);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

// Deletes an unfinished file.
struct Scratch {
  std::string name;
  bool kept = false;

  explicit Scratch(std::string n) : name(std::move(n)) {}
  ~Scratch() {
    if (!kept) ::unlink(name.c_str());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

void write_all(int number, const void* content, std::size_t size, const fs::path& path) {
  const auto* from = static_cast<const char*>(content);
  while (size > 0) {
    const ssize_t n = ::write(number, from, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error(path, errno);
    from += n;
    size -= std::size_t(n);
  }
}

// Files in /proc count as regular for the system, but reading one of them may wait for ever.
void check_regular(const struct stat& found, const std::string& name) {
  struct stat proc;
  const bool in_proc = ::stat("/proc/self", &proc) == 0 && proc.st_dev == found.st_dev;
  if (!S_ISREG(found.st_mode) || in_proc) {
    throw UserError(name + ": is not a regular file: give an image file");
  }
}

mode_t permissions() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

UserError system_error(const fs::path& path, int number) {
  if (number == ENOSPC || number == EDQUOT) {
    return UserError(path.string() +
                     ": the disk is full: make room and give the same command again.");
  }
  return UserError(path.string() + ": " + reason(number) + "; check the path.");
}

Bytes read_image_file(const fs::path& path) {
  const std::string name = path.string();
  struct stat state;
  if (::stat(name.c_str(), &state) != 0) {
    const int number = errno;
    std::error_code ignored;
    if (number == ENOENT && fs::is_symlink(path, ignored)) {
      throw UserError(name + ": is a link to " + fs::read_symlink(path, ignored).string() +
                      ", which does not exist: mend or remove it");
    }
    if (number == ENOENT) throw UserError(name + ": file not found: check the path");
    throw unreadable(name, number);
  }
  if (S_ISDIR(state.st_mode)) {
    throw UserError(name + ": is a folder with the name of an image: rename it");
  }
  check_regular(state, name);  // opening a pipe would wait for a writer
  const Handle file(::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.number < 0) throw unreadable(name, errno);
  if (::fstat(file.number, &state) != 0) throw unreadable(name, errno);
  check_regular(state, name);  // another file may have taken its place
  Bytes content(std::size_t(state.st_size));
  std::size_t have = 0;
  while (have < content.size()) {
    const ssize_t n = ::read(file.number, content.data() + have, content.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw unreadable(name, errno);
    if (n == 0) break;
    have += std::size_t(n);
  }
  content.resize(have);
  return content;
}

void write_whole(const fs::path& path, const void* content, std::size_t size) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw system_error(folder, error.value());
  const std::string pattern = (folder / ("." + path.filename().string() + ".XXXXXX")).string();
  std::vector<char> name(pattern.begin(), pattern.end());
  name.push_back('\0');
  const Handle file(::mkstemp(name.data()));
  if (file.number < 0) throw system_error(path, errno);
  Scratch scratch(name.data());
  write_all(file.number, content, size, path);
  // mkstemp makes files that only their owner may read.
  if (::fsync(file.number) != 0 || ::fchmod(file.number, permissions()) != 0 ||
      ::rename(scratch.name.c_str(), path.c_str()) != 0) {
    throw system_error(path, errno);
  }
  scratch.kept = true;
}

GrowingFile::GrowingFile(fs::path path, const std::string& first) : path_(std::move(path)) {
  write_whole(path_, first.data(), first.size());
  number_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (number_ < 0) throw system_error(path_, errno);
}

GrowingFile::~GrowingFile() { ::close(number_); }

void GrowingFile::add(const std::string& text) {
  write_all(number_, text.data(), text.size(), path_);
}

}  // namespace recon_ad
