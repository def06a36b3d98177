#include "caption.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "ops.h"

namespace recon_ad {
namespace {

constexpr int kHeight = 11, kWidth = 6;  // size of a letter before it is enlarged
constexpr int kMargin = 3;               // around the words, before enlarging
constexpr std::uint8_t kPaper[] = {20, 24, 48};
constexpr std::uint8_t kInk[] = {255, 255, 255};

using Letter = std::array<std::uint8_t, kHeight>;

// The used letters of Pillow's built-in bitmap font, in rows whose leftmost pixel is the highest bit.
const std::map<char, Letter> kLetters = {
    {'+', {0x00, 0x00, 0x00, 0x08, 0x08, 0x3E, 0x08, 0x08, 0x00, 0x00, 0x00}},
    {',', {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x08, 0x10}},
    {'-', {0x00, 0x00, 0x00, 0x00, 0x00, 0x3E, 0x00, 0x00, 0x00, 0x00, 0x00}},
    {'.', {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x18, 0x00, 0x00}},
    {'0', {0x00, 0x00, 0x1C, 0x36, 0x36, 0x36, 0x36, 0x36, 0x1C, 0x00, 0x00}},
    {'1', {0x00, 0x00, 0x0C, 0x3C, 0x0C, 0x0C, 0x0C, 0x0C, 0x3F, 0x00, 0x00}},
    {'2', {0x00, 0x00, 0x1C, 0x36, 0x06, 0x0C, 0x18, 0x36, 0x3E, 0x00, 0x00}},
    {'3', {0x00, 0x00, 0x1C, 0x36, 0x06, 0x1C, 0x06, 0x36, 0x1C, 0x00, 0x00}},
    {'4', {0x00, 0x00, 0x06, 0x0E, 0x16, 0x36, 0x3F, 0x06, 0x06, 0x00, 0x00}},
    {'5', {0x00, 0x00, 0x3E, 0x30, 0x3C, 0x36, 0x06, 0x26, 0x3C, 0x00, 0x00}},
    {'6', {0x00, 0x00, 0x1C, 0x36, 0x30, 0x3C, 0x36, 0x36, 0x1C, 0x00, 0x00}},
    {'7', {0x00, 0x00, 0x3E, 0x36, 0x06, 0x0C, 0x0C, 0x18, 0x18, 0x00, 0x00}},
    {'8', {0x00, 0x00, 0x1C, 0x36, 0x36, 0x1C, 0x36, 0x36, 0x1C, 0x00, 0x00}},
    {'9', {0x00, 0x00, 0x1C, 0x36, 0x36, 0x1E, 0x06, 0x36, 0x1C, 0x00, 0x00}},
    {'a', {0x00, 0x00, 0x00, 0x00, 0x1C, 0x36, 0x1E, 0x36, 0x3F, 0x00, 0x00}},
    {'b', {0x00, 0x00, 0x30, 0x30, 0x3C, 0x36, 0x36, 0x36, 0x3C, 0x00, 0x00}},
    {'c', {0x00, 0x00, 0x00, 0x00, 0x1C, 0x36, 0x30, 0x36, 0x1C, 0x00, 0x00}},
    {'d', {0x00, 0x00, 0x0E, 0x06, 0x1E, 0x36, 0x36, 0x36, 0x1F, 0x00, 0x00}},
    {'e', {0x00, 0x00, 0x00, 0x00, 0x1C, 0x36, 0x3E, 0x30, 0x1E, 0x00, 0x00}},
    {'f', {0x00, 0x00, 0x0E, 0x18, 0x3E, 0x18, 0x18, 0x18, 0x3E, 0x00, 0x00}},
    {'g', {0x00, 0x00, 0x00, 0x00, 0x1B, 0x36, 0x36, 0x36, 0x1E, 0x06, 0x3C}},
    {'h', {0x00, 0x00, 0x30, 0x30, 0x3C, 0x36, 0x36, 0x36, 0x36, 0x00, 0x00}},
    {'i', {0x00, 0x00, 0x0C, 0x00, 0x3C, 0x0C, 0x0C, 0x0C, 0x3F, 0x00, 0x00}},
    {'j', {0x00, 0x00, 0x0C, 0x00, 0x3C, 0x0C, 0x0C, 0x0C, 0x0C, 0x0C, 0x38}},
    {'l', {0x00, 0x00, 0x3C, 0x0C, 0x0C, 0x0C, 0x0C, 0x0C, 0x3F, 0x00, 0x00}},
    {'m', {0x00, 0x00, 0x00, 0x00, 0x3C, 0x3E, 0x2A, 0x2A, 0x2A, 0x00, 0x00}},
    {'n', {0x00, 0x00, 0x00, 0x00, 0x2C, 0x36, 0x36, 0x36, 0x36, 0x00, 0x00}},
    {'o', {0x00, 0x00, 0x00, 0x00, 0x1C, 0x36, 0x36, 0x36, 0x1C, 0x00, 0x00}},
    {'p', {0x00, 0x00, 0x00, 0x00, 0x3C, 0x36, 0x36, 0x36, 0x3C, 0x30, 0x38}},
    {'r', {0x00, 0x00, 0x00, 0x00, 0x37, 0x1D, 0x18, 0x18, 0x3C, 0x00, 0x00}},
    {'s', {0x00, 0x00, 0x00, 0x00, 0x1E, 0x38, 0x1E, 0x07, 0x3E, 0x00, 0x00}},
    {'t', {0x00, 0x00, 0x18, 0x18, 0x3E, 0x18, 0x18, 0x1B, 0x0E, 0x00, 0x00}},
    {'u', {0x00, 0x00, 0x00, 0x00, 0x36, 0x36, 0x36, 0x36, 0x1F, 0x00, 0x00}},
    {'y', {0x00, 0x00, 0x00, 0x00, 0x37, 0x36, 0x36, 0x14, 0x1C, 0x18, 0x30}},
};

std::string printed(const char* format, int digits, double number) {
  char text[352];  // the largest number has 309 digits before its point
  std::snprintf(text, sizeof text, format, digits, number);
  return text;
}

// Writes a number with at least that many significant digits, thousands separated.
std::string significant(double number, int digits) {
  if (!std::isfinite(number)) return "not a number";
  const double rounded = std::fabs(std::strtod(printed("%.*g", digits, number).c_str(), nullptr));
  if (rounded >= 1e9) return printed("%.*e", digits - 1, number);
  if (rounded < 1000) {
    std::string text = printed("%#.*g", digits, number);
    if (text.back() == '.') text.pop_back();
    return text;
  }
  const int whole = int(printed("%.*f", 0, rounded).size());
  std::string text = printed("%.*f", std::max(0, digits - whole), number);
  const std::size_t first = text[0] == '-' ? 1 : 0;
  const std::size_t point = std::min(text.find('.'), text.size());
  for (std::size_t at = point; at > first + 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

// Breaks the words into lines of that many letters; a longer word has a line for itself.
std::vector<std::string> lines_of(const std::vector<std::string>& words, int columns) {
  std::vector<std::string> lines;
  for (const std::string& word : words) {
    if (!lines.empty() && int(lines.back().size() + 2 + word.size()) <= columns) {
      lines.back() += "  " + word;
    } else {
      lines.push_back(word);
    }
  }
  return lines;
}

// Returns the number of digits, three or more, that distinguish two unequal numbers.
int digits_apart(double one, double other) {
  int digits = 3;
  // 17 digits distinguish any two 64-bit floats.
  while (digits < 17 && one != other && std::isfinite(other) &&
         significant(one, digits) == significant(other, digits)) {
    ++digits;
  }
  return digits;
}

}  // namespace

std::vector<std::string> verdict(const Judgement& judgement) {
  const double score = judgement.score, threshold = judgement.threshold;
  const int digits = digits_apart(score, threshold);
  std::vector<std::string> words = {judgement.anomalous ? "reject" : "good",
                                    "score " + significant(score, digits),
                                    "threshold " + significant(threshold, digits)};
  if (const auto& normalised = judgement.normalised_score) {
    // Distinguished from 0.5, the threshold on this scale.
    words.push_back("normalised score " + significant(*normalised, digits_apart(*normalised, 0.5)));
  }
  if (judgement.defect_probability) {
    words.push_back("defect probability " + significant(*judgement.defect_probability, 3));
  }
  return words;
}

Picture with_caption(const Picture& picture, const std::vector<std::string>& words, bool rejected) {
  const auto [height, width] = picture.size;
  // Letters grow with the picture, as its lines do. Half a pixel is rounded to even.
  const int scale = std::max(1, int(std::nearbyint(std::max(height, width) / 400.0)));
  const auto lines = lines_of(words, (width - 2 * kMargin * scale) / (kWidth * scale));
  std::size_t longest = 0;
  for (const std::string& line : lines) longest = std::max(longest, line.size());
  const int strip = (int(lines.size()) * kHeight + 2 * kMargin) * scale;
  const int wide = std::max(width, (int(longest) * kWidth + 2 * kMargin) * scale);

  Picture made{{strip + height, wide}, {}};
  made.values.resize(3 * made.size.pixels());
  for (std::size_t i = 0; i < made.values.size(); ++i) made.values[i] = kPaper[i % 3];
  const auto at = [&](int y, int x) {
    return &made.values[3 * (std::size_t(y) * std::size_t(wide) + std::size_t(x))];
  };
  const std::uint8_t* colour = rejected ? kLine : kInk;
  for (int y = 0; y < int(lines.size()) * kHeight * scale; ++y) {
    const std::string& line = lines[std::size_t(y / (kHeight * scale))];
    const auto row = std::size_t(y / scale % kHeight);
    for (int place = 0; place < int(line.size()); ++place) {
      const auto letter = kLetters.find(line[std::size_t(place)]);
      if (letter == kLetters.end()) continue;  // a space
      for (int column = 0; column < kWidth; ++column) {
        if (!(letter->second[row] >> (kWidth - 1 - column) & 1)) continue;
        const int x = (kMargin + place * kWidth + column) * scale;
        for (int i = 0; i < scale; ++i) std::copy_n(colour, 3, at(kMargin * scale + y, x + i));
      }
    }
  }
  for (int y = 0; y < height; ++y) {
    const std::size_t from = 3 * std::size_t(y) * std::size_t(width);
    std::copy_n(&picture.values[from], 3 * width, at(strip + y, 0));
  }
  return made;
}

}  // namespace recon_ad
