#include "facts.h"

#include <cstdlib>
#include <sstream>
#include <vector>

#include "error.h"

namespace recon_ad {
namespace {

constexpr char kFormat[] = "2";

// What is wrong with one fact; what it means for the file is said further up.
class Misfit : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Book {
 public:
  explicit Book(const Facts& facts) : facts_(facts) {}

  const std::string& word(const std::string& name) const {
    const auto found = facts_.find(name);
    if (found == facts_.end()) throw Misfit("there is no " + name);
    return found->second;
  }

  // One of several words, as its place.
  std::size_t choice(const std::string& name, const std::vector<std::string>& words) const {
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (word(name) == words[i]) return i;
    }
    throw misfit(name);
  }

  double number(const std::string& name) const { return numbers(name, 1)[0]; }

  std::vector<double> numbers(const std::string& name, std::size_t count) const {
    std::vector<double> found;
    std::istringstream parts(word(name));
    for (std::string part; std::getline(parts, part, ',');) {
      char* end = nullptr;
      found.push_back(std::strtod(part.c_str(), &end));
      if (part.empty() || *end != '\0') throw misfit(name);
    }
    if (found.size() != count) throw misfit(name);
    return found;
  }

  int whole(const std::string& name, int least) const {
    return to_whole(number(name), name, least);
  }

  Size size(const std::string& name, int least) const {
    const auto sides = numbers(name, 2);
    return {to_whole(sides[0], name, least), to_whole(sides[1], name, least)};
  }

 private:
  Misfit misfit(const std::string& name) const { return Misfit(name + " is " + word(name)); }

  int to_whole(double number, const std::string& name, int least) const {
    constexpr double kMost = 1 << 30;
    if (!(number >= least && number <= kMost) || number != int(number)) throw misfit(name);
    return int(number);
  }

  const Facts& facts_;
};

Plan read(const Book& book, bool tail) {
  book.choice("format", {kFormat});
  const std::vector<std::string> kinds = {"core", "whole"};
  book.choice("kind", tail ? std::vector<std::string>{"tail"} : kinds);
  Plan plan;
  plan.pair = book.word("pair");
  plan.type = Type(book.choice("dtype", {"uint8", "uint16", "float32"}));
  plan.channels_first = book.choice("layout", {"NHWC", "NCHW"}) == 1;
  plan.batch_size = book.whole("batch_size", 1);
  plan.channels = book.whole("channels", 1);
  plan.tile = book.size("tile", 1);
  plan.stride = book.size("stride", 1);
  if (plan.stride.height > plan.tile.height || plan.stride.width > plan.tile.width) {
    throw Misfit("stride is " + book.word("stride") + " for tiles of " + book.word("tile"));
  }
  plan.hann = book.choice("tile_weights", {"uniform", "hann"}) == 1;
  const Size resize = book.size("resize", 0);
  if (resize != Size{0, 0}) plan.resize = resize;
  plan.border = book.whole("border", 0);
  plan.border_weight = float(book.number("border_weight"));
  plan.opening = book.whole("opening", 0);
  plan.min_area = book.whole("min_area", 0);
  const auto range = book.numbers("input_range", 2);
  if (range[0] != 0 || range[1] != 0) plan.input_range = InputRange(range[0], range[1]);
  plan.image_threshold = book.number("image_threshold");
  plan.pixel_threshold = book.number("pixel_threshold");
  plan.of_regions = book.choice("regions_of_interest", {"False", "True"}) == 1;
  return plan;
}

}  // namespace

Plan plan_of(const Facts& facts, bool tail, const std::string& name) {
  const auto part = facts.find("part_sha256");
  if (part != facts.end() && !part->second.empty()) {
    throw UserError(name + ": its images are aligned to a part, or have a ground, which this program "
                           "does not heed: use python -m recon_ad.predict --onnx.");
  }
  try {
    return read(Book(facts), tail);
  } catch (const Misfit& misfit) {
    throw UserError(name + ": was not written by python -m recon_ad.export of this version as " +
                    (tail ? "the tail" : "the model") + " (" + misfit.what() +
                    "): export the detector anew.");
  }
}

}  // namespace recon_ad
