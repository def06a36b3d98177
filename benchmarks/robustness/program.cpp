// Decodes images and reads metadata with the code of deploy/cpp, for benchmarks/robustness/program.py.
// It reads one request per line from the standard input and writes one answer per line.
//
//   image PATH  -> accepted HEIGHT WIDTH CHANNELS TYPE CRC, or refused SENTENCE
//   mask PATH   -> accepted HEIGHT WIDTH 1 mask CRC, or refused SENTENCE
//   facts PATH  -> accepted, or refused SENTENCE; the file consists of lines NAME=VALUE
//
// The answer "torn" means that a sentence has several lines. Any other exception ends the program.
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <variant>

#include <zlib.h>

#include "facts.h"
#include "image_io.h"

namespace {

using recon_ad::Bytes;

template <class T>
std::string described(recon_ad::Size size, int channels, const std::string& type,
                      const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  std::ostringstream line;
  line << "accepted " << size.height << ' ' << size.width << ' ' << channels << ' ' << type << ' '
       << crc32_z(crc32_z(0, nullptr, 0), bytes, values.size() * sizeof(T));
  return line.str();
}

std::string image(const std::string& path) {
  const recon_ad::Image found = recon_ad::decode_image(path, 3, std::nullopt);
  return std::visit(
      [&](const auto& values) {
        return described(found.size, found.channels, recon_ad::type_name(found), values);
      },
      found.values);
}

std::string mask(const std::string& path) {
  const recon_ad::Mask found = recon_ad::decode_mask(path);
  return described(found.size, 1, "mask", found.values);
}

std::string facts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  recon_ad::Facts found;
  for (std::string line; std::getline(file, line);) {
    const std::size_t equals = line.find('=');
    if (equals != std::string::npos) found[line.substr(0, equals)] = line.substr(equals + 1);
  }
  recon_ad::plan_of(found, false, "model");
  return "accepted";
}

std::string answer(const std::string& what, const std::string& path) {
  try {
    return what == "image" ? image(path) : what == "mask" ? mask(path) : facts(path);
  } catch (const recon_ad::UserError& error) {
    const std::string sentence = error.what();
    return (sentence.find('\n') == std::string::npos ? "refused " + sentence : "torn");
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const std::size_t space = line.find(' ');
    std::cout << answer(line.substr(0, space), line.substr(space + 1)) << std::endl;
  }
}
