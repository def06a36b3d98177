#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace recon_ad {

// A user's mistake or a broken file. The text is one sentence: what is wrong, where, what to do.
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Returns a library's message in one line, cut at 200 bytes.
inline std::string shortened(const char* text) {
  constexpr std::size_t kLongest = 200;
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + word;
  return line.substr(0, kLongest);
}

}  // namespace recon_ad
