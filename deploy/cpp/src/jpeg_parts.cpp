#include "jpeg_parts.h"

#include <algorithm>
#include <array>
#include <map>

#include "error.h"
#include "image.h"

namespace recon_ad {
namespace {

constexpr int kSof0 = 0xC0, kSof1 = 0xC1, kProgressive = 0xC2, kDht = 0xC4, kJpg = 0xC8, kDac = 0xCC,
              kLastSof = 0xCF, kRst0 = 0xD0, kRst7 = 0xD7, kSoi = 0xD8, kEoi = 0xD9, kSos = 0xDA,
              kDri = 0xDD, kTem = 0x01, kFill = 0xFF;
constexpr std::size_t kCoefficients = 64, kRestarts = 8;
constexpr std::size_t kMaxScans = 100;  // each takes as long as a whole image; encoders write ten
constexpr std::size_t kMaxScanned = 10 * kMaxPixels;  // of all scans, a few seconds

[[noreturn]] void cut() { throw UserError("image file is truncated"); }

[[noreturn]] void damaged() { throw UserError("its header is damaged"); }

bool is_restart(int code) { return kRst0 <= code && code <= kRst7; }

std::size_t divided(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

struct Component {
  std::size_t x, y;                         // sampling factors
  std::array<int, kCoefficients> open = {}; // lowest bit that no scan has closed
};

// The Huffman code of zeros alone: its length, and the symbol that it stands for.
struct Code {
  std::size_t length;
  int symbol;
};

class Reader {
 public:
  explicit Reader(const Bytes& file) : file_(file) {}

  JpegParts read() {
    for (int code = next(); code != kEoi; code = next()) {
      if (code == kTem || code == kSoi || is_restart(code)) continue;
      read_segment();
      if (kSof0 <= code && code <= kLastSof && code != kDht && code != kJpg && code != kDac) {
        read_frame(code);
      } else if (code == kDri && body_.size() == 2) {
        interval_ = std::size_t(body_[0] << 8 | body_[1]);
      } else if (code == kDht) {
        read_tables();
      } else if (code == kSos && !components_.empty()) {
        read_scan();
      }
    }
    for (const auto& [id, component] : components_) {
      const auto& open = component.open;
      if (std::any_of(open.begin(), open.end(), [](int bit) { return bit != 0; })) cut();
    }
    return std::move(parts_);
  }

 private:
  // Goes behind the next marker and returns its code.
  int next() {
    for (; at_ + 1 < file_.size(); ++at_) {
      const int code = file_[at_ + 1];
      if (file_[at_] != kFill || code == 0 || code == kFill) continue;
      at_ += 2;
      return code;
    }
    cut();
  }

  void read_segment() {
    const std::size_t length = at_ + 1 < file_.size() ? file_[at_] << 8 | file_[at_ + 1] : 0;
    const std::size_t stop = std::min(at_ + length, file_.size());
    const std::size_t start = std::min(at_ + 2, stop);
    body_.assign(file_.begin() + std::ptrdiff_t(start), file_.begin() + std::ptrdiff_t(stop));
    at_ += length;
  }

  void read_frame(int code) {
    const std::size_t count = body_.size() < 6 ? 0 : body_[5];
    if (body_.size() < 6 + 3 * count || body_.size() < 6) damaged();
    progressive_ = code == kProgressive;
    side_ = code == kSof0 || code == kSof1 || progressive_ ? 8 : 1;
    height_ = std::size_t(body_[1] << 8 | body_[2]);
    width_ = std::size_t(body_[3] << 8 | body_[4]);
    components_.clear();
    for (std::size_t i = 6; i < 6 + 3 * count; i += 3) {
      if (body_[i + 1] == 0) damaged();
      Component found{std::max<std::size_t>(1, body_[i + 1] >> 4),
                      std::max<std::size_t>(1, body_[i + 1] & 15)};
      found.open.fill(1);
      components_[body_[i]] = found;
    }
  }

  // Keeps the codes of zeros in the tables for AC coefficients.
  void read_tables() {
    constexpr std::size_t kLengths = 16;
    for (std::size_t at = 0; at + kLengths + 1 < body_.size();) {
      const int kind = body_[at];
      std::size_t length = 0, sum = 0;
      for (std::size_t i = 1; i <= kLengths; ++i) {
        if (length == 0 && body_[at + i] > 0) length = i;
        sum += body_[at + i];
      }
      if (kind >> 4) codes_[kind & 15] = Code{length, body_[at + kLengths + 1]};
      at += kLengths + 1 + sum;
    }
  }

  void read_scan() {
    if (body_.empty()) damaged();
    const std::size_t pixels = std::max<std::size_t>(1, width_ * height_);
    const std::size_t most = std::min(kMaxScans, kMaxScanned / pixels);
    if (++parts_.scans > most) {
      throw UserError("it has more than " + std::to_string(most) + " scans");
    }
    const std::size_t count = body_[0];
    std::vector<Component*> scanned;
    for (std::size_t i = 1; i < std::min(1 + 2 * count, body_.size()); i += 2) {
      const auto found = components_.find(body_[i]);
      if (found != components_.end()) scanned.push_back(&found->second);
    }
    const Bytes spectrum(body_.begin() + std::ptrdiff_t(std::min(1 + 2 * count, body_.size())),
                         body_.end());
    close(scanned, spectrum);
    const std::size_t units = scanned.empty() ? 0 : units_of(scanned);
    const std::size_t restarts = interval_ && units ? divided(units, interval_) - 1 : 0;
    const Bytes ahead = ahead_of(count, spectrum);
    for (std::size_t found = 0;; ++found) {
      const int code = next();
      std::size_t place = at_ - 2;
      while (file_[place - 1] == kFill) --place;  // filling
      // A scan of more intervals than the image has ends with those of the image.
      if (found <= restarts) parts_.ends.push_back({place, ahead});
      if (!is_restart(code)) {
        if (found < restarts) cut();
        at_ -= 2;
        return;
      }
      if (found < restarts && code != kRst0 + int(found % kRestarts)) cut();
    }
  }

  // Notes which bits of the coefficients a scan leaves open.
  void close(const std::vector<Component*>& scanned, const Bytes& spectrum) const {
    std::size_t first = 0, last = kCoefficients - 1;
    int low = 0;
    if (progressive_ && spectrum.size() > 2) {
      first = spectrum[0];
      last = std::min<std::size_t>(spectrum[1], last);
      low = spectrum[2] & 15;
    }
    for (Component* component : scanned) {
      for (std::size_t k = first; k <= last; ++k) component->open[k] = low;
    }
  }

  std::size_t units_of(const std::vector<Component*>& scanned) const {
    std::size_t most_x = 1, most_y = 1;
    for (const auto& [id, component] : components_) {
      most_x = std::max(most_x, component.x);
      most_y = std::max(most_y, component.y);
    }
    const bool alone = scanned.size() == 1;
    return divided(width_ * (alone ? scanned[0]->x : 1), side_ * most_x) *
           divided(height_ * (alone ? scanned[0]->y : 1), side_ * most_y);
  }

  // Returns the data for behind a scan: many bits, and no end, for a block that is cut. A code of ones
  // alone does not exist, which takes 17 bits and ends a block. Zeros are the most frequent symbol; if
  // that ends a block, no two zeros must follow each other.
  Bytes ahead_of(std::size_t count, const Bytes& spectrum) const {
    constexpr std::size_t kAhead = 7;  // bytes that a decoder may read ahead
    constexpr std::uint8_t kTurns = 0x55;
    Bytes ones(2 * kAhead, 0);  // a zero behind each byte of ones says that it is no marker
    for (std::size_t i = 0; i < kAhead; ++i) ones[2 * i] = kFill;
    const int table = body_.size() > 2 * count ? body_[2 * count] & 15 : 0;  // of the last component
    const auto code = codes_.find(table);
    const bool is_dc = progressive_ && !spectrum.empty() && spectrum[0] == 0;
    if (code == codes_.end() || is_dc) return ones;
    if (code->second.symbol & 15) return Bytes(kAhead, 0);  // a coefficient that is not 0
    return code->second.length > 1 ? Bytes(kAhead, kTurns) : ones;
  }

  const Bytes& file_;
  std::size_t at_ = 2, interval_ = 0, height_ = 0, width_ = 0, side_ = 8;
  bool progressive_ = false;
  Bytes body_;
  std::map<int, Component> components_;
  std::map<int, Code> codes_;
  JpegParts parts_;
};

}  // namespace

JpegParts jpeg_parts(const Bytes& file) { return Reader(file).read(); }

}  // namespace recon_ad
