#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace recon_ad {
namespace {

enum class Rule { any, all };  // for the pixels under a shape; pixels beyond the border are unmarked

bool holds(Rule rule, std::int64_t marked, std::int64_t shape) {
  return rule == Rule::any ? marked > 0 : marked == shape;
}

// Marks pixels for which the rule holds in a disk around them. In each row the disk is a span, whose
// marked pixels are counted by a difference of sums.
Mask under_disk(const Mask& mask, int radius, Rule rule) {
  const auto [h, w] = mask.size;
  std::vector<int> half(2 * std::size_t(radius) + 1);
  std::int64_t pixels = 0;
  for (int dy = -radius; dy <= radius; ++dy) {
    const std::int64_t room = std::int64_t(radius) * radius - std::int64_t(dy) * dy;
    std::int64_t dx = 0;
    while ((dx + 1) * (dx + 1) <= room) ++dx;
    half[std::size_t(dy + radius)] = int(dx);
    pixels += 2 * dx + 1;
  }
  Plane<std::int32_t> sums({h, w + 1});
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) sums.row(y)[x + 1] = sums.row(y)[x] + mask.row(y)[x];
  }
  Mask made(mask.size);
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) {
      std::int64_t marked = 0;
      for (int dy = -std::min(radius, y); dy <= std::min(radius, h - 1 - y); ++dy) {
        const int span = half[std::size_t(dy + radius)];
        const std::int32_t* sum = sums.row(y + dy);
        marked += sum[std::min(w, x + span + 1)] - sum[std::max(0, x - span)];
      }
      made.row(y)[x] = holds(rule, marked, pixels);
    }
  }
  return made;
}

// Marks pixels for which the rule holds in a square around them: rows, then columns, by running counts.
Mask under_square(const Mask& mask, int radius, Rule rule) {
  const auto [h, w] = mask.size;
  const int side = 2 * radius + 1;
  Mask rows(mask.size);
  for (int y = 0; y < h; ++y) {
    const std::uint8_t* from = mask.row(y);
    int marked = 0;
    for (int x = -radius; x < w; ++x) {
      if (x + radius < w) marked += from[x + radius];
      if (x - radius > 0) marked -= from[x - radius - 1];
      if (x >= 0) rows.row(y)[x] = holds(rule, marked, side);
    }
  }
  Mask made(mask.size);
  std::vector<int> marked(std::size_t(w), 0);
  for (int y = -radius; y < h; ++y) {
    for (int x = 0; x < w; ++x) {
      int& count = marked[std::size_t(x)];
      if (y + radius < h) count += rows.row(y + radius)[x];
      if (y - radius > 0) count -= rows.row(y - radius - 1)[x];
      if (y >= 0) made.row(y)[x] = holds(rule, count, side);
    }
  }
  return made;
}

// Repeats the mask's border pixels: a defect at the border continues beyond it, else opening would
// round off its corners.
Mask with_frame(const Mask& mask, int width) {
  const auto [h, w] = mask.size;
  Mask made({h + 2 * width, w + 2 * width});
  for (int y = 0; y < made.size.height; ++y) {
    const std::uint8_t* from = mask.row(std::clamp(y - width, 0, h - 1));
    for (int x = 0; x < made.size.width; ++x) {
      made.row(y)[x] = from[std::clamp(x - width, 0, w - 1)];
    }
  }
  return made;
}

Mask without_frame(const Mask& mask, int width, Size size) {
  Mask made(size);
  for (int y = 0; y < size.height; ++y) {
    std::copy_n(mask.row(y + width) + width, size.width, made.row(y));
  }
  return made;
}

struct Labels {
  Plane<std::int32_t> of;         // 0 where nothing is marked
  std::vector<std::size_t> area;  // area of each label
};

// Labels 8-connected regions, by flooding each from its first pixel.
Labels labelled(const Mask& mask) {
  const auto [h, w] = mask.size;
  Labels labels{Plane<std::int32_t>(mask.size), {0}};
  std::vector<std::pair<int, int>> open;
  for (int row = 0; row < h; ++row) {
    for (int column = 0; column < w; ++column) {
      if (!mask.row(row)[column] || labels.of.row(row)[column]) continue;
      const auto label = std::int32_t(labels.area.size());
      labels.area.push_back(0);
      labels.of.row(row)[column] = label;
      open.emplace_back(row, column);
      while (!open.empty()) {
        const auto [y, x] = open.back();
        open.pop_back();
        ++labels.area.back();
        for (int v = std::max(0, y - 1); v <= std::min(h - 1, y + 1); ++v) {
          for (int u = std::max(0, x - 1); u <= std::min(w - 1, x + 1); ++u) {
            if (!mask.row(v)[u] || labels.of.row(v)[u]) continue;
            labels.of.row(v)[u] = label;
            open.emplace_back(v, u);
          }
        }
      }
    }
  }
  return labels;
}

bool any(const Mask& mask) {
  return std::find(mask.values.begin(), mask.values.end(), 1) != mask.values.end();
}

}  // namespace

Mask clean_mask(Mask mask, int opening, std::int64_t min_area) {
  if (opening > 0 && any(mask)) {
    const Mask eroded = under_disk(with_frame(mask, opening), opening, Rule::all);
    mask = without_frame(under_disk(eroded, opening, Rule::any), opening, mask.size);
  }
  if (min_area <= 1 || !any(mask)) return mask;
  const Labels labels = labelled(mask);
  for (std::size_t i = 0; i < mask.values.size(); ++i) {
    const auto label = std::size_t(labels.of.values[i]);
    mask.values[i] = label != 0 && labels.area[label] >= std::size_t(min_area);
  }
  return mask;
}

int count_regions(const Mask& mask) { return int(labelled(mask).area.size()) - 1; }

void outline(Bytes& rgb, const Mask& mask) {
  // The line looks equally wide in pictures of any size. Half a pixel is rounded to even.
  const double share = std::max(mask.size.height, mask.size.width) / 200.0;
  const int width = std::max(1, int(std::nearbyint(share)));
  const int half = (width + 1) / 2;
  const Mask outer = under_square(mask, half, Rule::any);
  const Mask inner = under_square(mask, half, Rule::all);
  for (std::size_t i = 0; i < mask.values.size(); ++i) {
    if (outer.values[i] && !inner.values[i]) std::copy_n(kLine, 3, &rgb[3 * i]);
  }
}

}  // namespace recon_ad
