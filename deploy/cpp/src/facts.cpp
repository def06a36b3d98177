#include "facts.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <tuple>
#include <vector>

#include "error.h"
#include "folder.h"

namespace recon_ad {
namespace {

constexpr char kFormat[] = "2";
constexpr char kUnknown[] = "none";

// An error in one fact; `plan_of` adds its meaning for the file.
class Misfit : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Rule {
  const char* name;
  std::size_t count;  // number of values
  bool whole;
  double low;
  double high;
};

// The bounds of recon_ad/detector/bounds.py: a stranger may have written the file.
constexpr double kMaxSide = 1 << 16;
constexpr double kLargest = 1e38;  // within float32
constexpr Rule kRules[] = {
    {"batch_size", 1, true, 1, 1 << 16},
    {"channels", 1, true, 1, 64},
    {"tile", 2, true, 1, kMaxSide},
    {"stride", 2, true, 1, kMaxSide},
    {"resize", 2, true, 0, kMaxSide},
    {"border", 1, true, 0, kMaxSide},
    {"border_weight", 1, false, 0, 1e6},
    {"opening", 1, true, 0, kMaxSide},
    {"min_area", 1, true, 0, kMaxSide * kMaxSide},
    {"input_range", 2, false, -kLargest, kLargest},
    {"image_threshold", 1, false, -kLargest, kLargest},
    {"pixel_threshold", 1, false, -kLargest, kLargest},
};

// Quotes a name as Python's urllib.parse.quote does.
std::string url_quoted(const std::string& name) {
  std::string text;
  for (const unsigned char c : name) {
    const bool plain = std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-' || c == '~';
    constexpr char kDigits[] = "0123456789ABCDEF";
    if (plain && c < 128) {
      text += char(c);
    } else {
      text += {'%', kDigits[c / 16], kDigits[c % 16]};
    }
  }
  return text;
}

// Returns the quoted name, "" if the text is empty or is not quoted as in a URL.
std::string url_unquoted(const std::string& text) {
  std::string name;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      name += text[i];
      continue;
    }
    int byte = 0;
    const char* const end = text.data() + std::min(i + 3, text.size());
    const auto [next, error] = std::from_chars(text.data() + i + 1, end, byte, 16);
    if (error != std::errc() || next != text.data() + i + 3 || byte < 0) return "";
    name += char(byte);
    i += 2;
  }
  for (const char32_t c : decoded_name(name)) {
    if (c >= 0xDC80 && c <= 0xDCFF) return "";  // a byte that is not UTF-8
  }
  return url_quoted(name) == text ? name : "";
}

// Reads one decimal number, which has to be the whole text. NaN and infinity are out of bounds.
std::optional<double> decimal(const std::string& text, double low, double high) {
  constexpr double kLeast = 1e-300;  // below which libraries disagree whether a number is 0
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || next != end || !(value >= low && value <= high)) return std::nullopt;
  const std::size_t mantissa = std::min(text.find_first_of("eE"), text.size());
  const bool nought = text.find_first_of("123456789") >= mantissa;
  if (!nought && value > -kLeast && value < kLeast) return std::nullopt;
  return value;
}

// Splits a text: the parts are one more than its separators.
std::vector<std::string> parts(const std::string& text, char separator) {
  std::vector<std::string> found(1);
  for (const char c : text) {
    if (c == separator) {
      found.emplace_back();
    } else {
      found.back() += c;
    }
  }
  return found;
}

class Book {
 public:
  explicit Book(const Facts& facts) : facts_(facts) {}

  const std::string& word(const std::string& name) const {
    const auto found = facts_.find(name);
    if (found == facts_.end()) throw Misfit(name + " is missing");
    return found->second;
  }

  // Returns the index of a fact among the allowed words.
  std::size_t choice(const std::string& name, const std::vector<std::string>& words) const {
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (word(name) == words[i]) return i;
    }
    throw misfit(name);
  }

  // Returns numbers that fit `kRules`. Whole numbers have ASCII digits only.
  std::vector<double> numbers(const std::string& name) const {
    const Rule& rule = *std::find_if(std::begin(kRules), std::end(kRules),
                                     [&](const Rule& other) { return name == other.name; });
    std::vector<double> found;
    for (const std::string& part : parts(word(name), ',')) {
      const bool digits =
          std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
      const std::optional<double> value = decimal(part, rule.low, rule.high);
      if (!value || (rule.whole && (!digits || part.size() > 15))) throw misfit(name);
      found.push_back(*value);
    }
    if (found.size() != rule.count) throw misfit(name);
    return found;
  }

  // Reads name=image,pixel;… as recon_ad/detector/onnx_graphs.py writes it; earlier models have none.
  std::map<std::string, std::pair<double, double>> categories() const {
    std::map<std::string, std::pair<double, double>> found;
    for (const auto& [name, text] : by_category("categories")) {
      const std::size_t comma = text.find(',');
      if (comma == std::string::npos) throw misfit("categories");
      found[name] = {bounded("categories", text.substr(0, comma)),
                     bounded("categories", text.substr(comma + 1))};
    }
    return found;
  }

  // Reads the median as recon_ad/detector/normalised.py writes it; earlier models have none.
  std::optional<double> median_score() const {
    const auto fact = facts_.find("median_score");
    if (fact == facts_.end() || fact->second == kUnknown) return std::nullopt;
    return bounded("median_score", fact->second);
  }

  // Reads name=median;… likewise.
  std::map<std::string, double> category_medians() const {
    std::map<std::string, double> found;
    for (const auto& [name, text] : by_category("category_medians")) {
      found[name] = bounded("category_medians", text);
    }
    return found;
  }

  double number(const std::string& name) const { return numbers(name)[0]; }

  int whole(const std::string& name) const { return int(number(name)); }

  Size size(const std::string& name) const {
    const auto sides = numbers(name);
    return {int(sides[0]), int(sides[1])};
  }

  Misfit misfit(const std::string& name) const { return Misfit(name + " is " + word(name)); }

 private:
  // Returns each category and its text in name=…;…, of a fact that may be missing.
  std::vector<std::pair<std::string, std::string>> by_category(const std::string& name) const {
    std::vector<std::pair<std::string, std::string>> found;
    const auto fact = facts_.find(name);
    if (fact == facts_.end()) return found;
    if (fact->second.empty()) return found;
    for (const std::string& part : parts(fact->second, ';')) {
      const std::size_t equals = part.rfind('=');
      if (equals == std::string::npos) throw misfit(name);
      const std::string category = part.substr(0, equals);
      const bool twice = std::any_of(found.begin(), found.end(),
                                     [&](const auto& other) { return other.first == category; });
      if (url_unquoted(category).empty() || twice) throw misfit(name);
      found.emplace_back(category, part.substr(equals + 1));
    }
    return found;
  }

  // Reads a threshold or a median; `name` is the fact's.
  double bounded(const std::string& name, const std::string& text) const {
    const std::optional<double> value = decimal(text, -kLargest, kLargest);
    if (!value) throw misfit(name);
    return *value;
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
  plan.batch_size = book.whole("batch_size");
  plan.channels = book.whole("channels");
  plan.tile = book.size("tile");
  plan.stride = book.size("stride");
  if (plan.stride.height > plan.tile.height || plan.stride.width > plan.tile.width) {
    throw Misfit("stride is " + book.word("stride") + " for tiles of " + book.word("tile"));
  }
  plan.hann = book.choice("tile_weights", {"uniform", "hann"}) == 1;
  const Size resize = book.size("resize");
  if (resize.height == 0 && resize.width != 0) throw book.misfit("resize");
  if (resize != Size{0, 0}) plan.resize = resize;
  plan.border = book.whole("border");
  plan.border_weight = float(book.number("border_weight"));
  plan.opening = book.whole("opening");
  plan.min_area = std::int64_t(book.number("min_area"));
  const auto range = book.numbers("input_range");
  const bool given = range[0] != 0 || range[1] != 0;
  if (given && !(range[0] < range[1])) throw book.misfit("input_range");
  if (given) plan.input_range = InputRange(range[0], range[1]);
  plan.image_threshold = book.number("image_threshold");
  plan.pixel_threshold = book.number("pixel_threshold");
  plan.categories = book.categories();
  plan.median_score = book.median_score();
  plan.category_medians = book.category_medians();
  plan.of_regions = book.choice("regions_of_interest", {"False", "True"}) == 1;
  return plan;
}

}  // namespace

void choose_category(Plan& plan, const std::string& category) {
  if (category.empty()) return;
  const auto found = plan.categories.find(url_quoted(category));
  if (found == plan.categories.end()) {
    std::string known;
    for (const auto& [name, thresholds] : plan.categories) known += (known.empty() ? "" : ", ") + name;
    throw UserError("the detector has no thresholds for a category \"" + category + "\": " +
                    (known.empty() ? "it was calibrated on one alone." : "choose one of " + known + "."));
  }
  std::tie(plan.image_threshold, plan.pixel_threshold) = found->second;
  const auto median = plan.category_medians.find(url_quoted(category));
  plan.median_score.reset();
  if (median != plan.category_medians.end()) plan.median_score = median->second;
}

std::optional<double> normalised(const Plan& plan, double score) {
  if (!plan.median_score) return std::nullopt;
  // In float32, as graphs compare with them.
  const double low = float(*plan.median_score), high = float(plan.image_threshold);
  if (!(low < high)) return std::nullopt;
  return 0.5 * (score - low) / (high - low);
}

Plan plan_of(const Facts& facts, bool tail, const std::string& name) {
  const auto part = facts.find("part_sha256");
  if (part != facts.end() && !part->second.empty()) {
    throw UserError(name + ": its images are aligned to a part, or have a background, which this "
                           "program does not support: use python -m recon_ad.predict --onnx.");
  }
  try {
    return read(Book(facts), tail);
  } catch (const Misfit& misfit) {
    throw UserError(name + ": was not written by python -m recon_ad.export of this version as " +
                    (tail ? "the tail" : "the model") + " (" + shortened(misfit.what()) +
                    "): export the detector anew.");
  }
}

}  // namespace recon_ad
