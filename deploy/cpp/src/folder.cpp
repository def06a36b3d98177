#include "folder.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iostream>

#include "error.h"
#include "files.h"

namespace recon_ad {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 7> kSuffixes = {".bmp", ".jpeg", ".jpg", ".npy",
                                                  ".png", ".tif",  ".tiff"};

// Returns the length of the well-formed UTF-8 character at a place, 0 if there is none.
std::size_t character(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t n = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4) return 0;
  // Overlong forms, surrogates and code points beyond U+10FFFF are malformed.
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < n; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return n;
}

fs::path joined(const fs::path& folder, const fs::path& name) {
  return folder == "." ? name : folder / name;
}

Paths visible(const fs::path& folder) {
  std::error_code error;
  std::vector<std::pair<std::u32string, fs::path>> found;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name[0] != '.') found.emplace_back(decoded_name(name), joined(folder, name));
  }
  if (error.value() == EACCES || error.value() == EPERM) {
    throw UserError(folder.string() + ": may not be read: give a folder that you may read");
  }
  if (error) throw system_error(folder, error.value());
  std::sort(found.begin(), found.end());
  Paths paths;
  for (auto& [key, path] : found) paths.push_back(std::move(path));
  return paths;
}

fs::path real(const fs::path& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  fs::path found = fs::weakly_canonical(absolute, error);
  if (error) throw system_error(path, error.value());
  return found;
}

void add_below(const fs::path& folder, Paths& above, Paths& found) {
  Paths subfolders;
  for (fs::path& path : visible(folder)) {
    Paths& into = !has_image_suffix(path) && is_folder(path) ? subfolders : found;
    into.push_back(std::move(path));
  }
  for (const fs::path& path : subfolders) {
    const fs::path here = real(path);
    if (std::find(above.begin(), above.end(), here) != above.end()) {
      throw UserError(path.string() + ": is a link to a folder that holds it: remove the link");
    }
    above.push_back(here);
    add_below(path, above, found);
    above.pop_back();
  }
}

bool is_within(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

}  // namespace

std::u32string decoded_name(const std::string& name) {
  std::u32string decoded;
  for (std::size_t at = 0; at < name.size();) {
    const std::size_t n = character(name, at);
    const auto first = static_cast<unsigned char>(name[at]);
    char32_t code = n == 0 ? 0xDC00U + first : n == 1 ? first : first & (0x7FU >> n);
    for (std::size_t i = 1; i < n; ++i) {
      code = code << 6 | (static_cast<unsigned char>(name[at + i]) & 0x3FU);
    }
    decoded.push_back(code);
    at += std::max<std::size_t>(n, 1);
  }
  return decoded;
}

fs::path tidy(const fs::path& path) {
  fs::path made;
  for (const fs::path& part : path) {
    if (!part.empty() && part != ".") made /= part;
  }
  return made.empty() ? fs::path(".") : made;
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  const fs::file_status state = fs::status(path, error);
  if (state.type() == fs::file_type::none && error.value() != ELOOP) {
    throw system_error(path, error.value());
  }
  return fs::is_directory(state);
}

bool has_image_suffix(const fs::path& path) {
  std::string suffix = path.extension().string();
  for (char& c : suffix) {
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  }
  return std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
}

Paths images_in(const fs::path& folder) {
  Paths paths = visible(folder);
  paths.erase(std::remove_if(paths.begin(), paths.end(),
                             [](const fs::path& path) { return !has_image_suffix(path); }),
              paths.end());
  return paths;
}

Paths files_below(const fs::path& folder) {
  Paths above = {real(folder)};
  Paths found;
  add_below(folder, above, found);
  return found;
}

Paths inputs(const fs::path& given, const fs::path& output) {
  if (!is_folder(given)) return {given};
  Paths apart = {real(output)};
  if (is_folder(joined(given, "test"))) apart.push_back(real(joined(given, "ground_truth")));
  Paths images;
  std::size_t others = 0;
  for (const fs::path& file : files_below(given)) {
    const fs::path folder = real(file.has_parent_path() ? file.parent_path() : fs::path("."));
    const auto holds = [&](const fs::path& other) { return is_within(folder, other); };
    if (std::any_of(apart.begin(), apart.end(), holds)) continue;
    if (has_image_suffix(file)) {
      images.push_back(file);
    } else {
      ++others;
    }
  }
  if (images.empty()) {
    std::string suffixes;
    for (const std::string suffix : kSuffixes) suffixes += (suffixes.empty() ? "" : ", ") + suffix;
    throw UserError(given.string() + " holds no images (" + suffixes + ").");
  }
  if (others > 0) {
    std::cout << others << " other files in " << given.string() << " left out for their suffix\n";
  }
  return images;
}

std::string stem_below(const fs::path& file, const fs::path& folder) {
  fs::path stem = folder == "." ? file : file.lexically_relative(folder);
  if (has_image_suffix(stem)) stem.replace_extension();
  return stem.generic_string();
}

}  // namespace recon_ad
