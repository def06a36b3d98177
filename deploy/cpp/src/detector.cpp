#include "detector.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <set>
#include <sstream>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "error.h"
#include "ops.h"
#include "resize.h"
#include "tiles.h"

namespace recon_ad {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "recon_ad_";
// The tail gets maps padded to multiples of this, as in Python, so that it sums in the same order.
constexpr int kMapMultiple = 64;

constexpr char kProbability[] = "defect_probability";
// Encoded types of nodes that may run for ever (field 4 of a NodeProto). No export has any.
constexpr const char* kEndless[] = {"\x22\x04Loop", "\x22\x04Scan"};

struct Opened {
  Facts facts;
  std::set<std::string> outputs;
  bool any_batch;  // whether its first input takes any number of tiles
  ov::InferRequest request;
};

Facts facts_of(const ov::Model& model) {
  Facts facts;
  const ov::AnyMap& all = model.get_rt_info();
  const auto kept = all.find("framework");
  if (kept == all.end() || !kept->second.is<ov::AnyMap>()) return facts;
  const std::string prefix = kPrefix;
  for (const auto& [name, value] : kept->second.as<ov::AnyMap>()) {
    if (name.compare(0, prefix.size(), prefix) == 0) {
      facts[name.substr(prefix.size())] = value.as<std::string>();
    }
  }
  return facts;
}

// Hides messages that OpenVINO's readers print about a damaged file, besides the exception.
class Silence {
 public:
  Silence() : kept_(::dup(STDERR_FILENO)) {
    std::fflush(stderr);
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (kept_ >= 0 && nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
    if (nowhere >= 0) ::close(nowhere);
  }
  ~Silence() {
    std::fflush(stderr);
    if (kept_ < 0) return;
    ::dup2(kept_, STDERR_FILENO);
    ::close(kept_);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int kept_;
};

void check_ends(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream read;
  read << file.rdbuf();
  const std::string content = read.str();
  for (const char* node : kEndless) {
    if (content.find(node) == std::string::npos) continue;
    throw UserError(path.string() + " holds a loop, and no export of a detector does: copy it, or "
                    "export it, anew.");
  }
}

Opened opened(ov::Core& core, const fs::path& path) {
  check_ends(path);
  const Silence silence;
  try {
    const auto model = core.read_model(path.string());
    // In float32: the default is bfloat16 where the processor has it.
    const auto precision = ov::hint::inference_precision(ov::element::f32);
    auto compiled = core.compile_model(model, "CPU", precision);
    std::set<std::string> outputs;
    for (const auto& output : compiled.outputs()) {
      outputs.insert(output.get_names().begin(), output.get_names().end());
    }
    const ov::PartialShape shape = compiled.inputs().at(0).get_partial_shape();
    const bool fixed = shape.rank().is_static() && shape.size() > 0 && shape[0].is_static();
    return {facts_of(*model), outputs, !fixed, compiled.create_infer_request()};
  } catch (const std::exception& error) {
    throw UserError(path.string() + " is not a model that OpenVINO can open (" +
                    shortened(error.what()) + "): copy it, or export it, anew.");
  }
}

void check_outputs(const Opened& model, const std::vector<std::string>& wanted,
                   const fs::path& path) {
  for (const std::string& name : wanted) {
    if (model.outputs.count(name) > 0) continue;
    throw UserError(path.string() + " has no output " + name + ": export the detector anew.");
  }
}

// Calls a function that fails if the model cannot be run; `name` is the model's.
template <class Work>
void attempt(const std::string& name, Work work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw UserError(name + ": the model does not run (" + shortened(error.what()) +
                    "): export the detector anew.");
  }
}

// Returns NumPy's name of the type, which Python's messages have.
std::string described(const ov::element::Type& type, const ov::Shape& shape) {
  std::string text = type.to_string();
  if (type == ov::element::f32) text = "float32";
  if (type == ov::element::boolean) text = "bool";
  text += " [";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

// Returns an output of floats or truth values (`wanted`); a stranger's model may return anything.
ov::Tensor output(ov::InferRequest& request, const char* name, const ov::element::Type& wanted,
                  const ov::Shape& shape, const std::string& model) {
  const ov::Tensor found = request.get_tensor(name);
  const ov::element::Type type = found.get_element_type();
  const bool fits = type == wanted || (wanted == ov::element::boolean && type == ov::element::u8);
  if (fits && found.get_shape() == shape) return found;
  throw UserError(model + ": its " + name + " is " + described(type, found.get_shape()) +
                  " and not " + described(wanted, shape) + ": export the detector anew.");
}

ov::element::Type element(Type type) {
  switch (type) {
    case Type::uint8: return ov::element::u8;
    case Type::uint16: return ov::element::u16;
    default: return ov::element::f32;
  }
}

// Returns a batch of that many tiles, not yet filled.
ov::Tensor batch_of(const Plan& plan, std::size_t n) {
  const auto h = std::size_t(plan.tile.height);
  const auto w = std::size_t(plan.tile.width);
  const auto c = std::size_t(plan.channels);
  return {element(plan.type), plan.channels_first ? ov::Shape{n, c, h, w} : ov::Shape{n, h, w, c}};
}

ov::Tensor scalar(double value) {
  ov::Tensor tensor(ov::element::f32, ov::Shape{});
  *tensor.data<float>() = float(value);
  return tensor;
}

int up_to_multiple(int n) { return (n + kMapMultiple - 1) / kMapMultiple * kMapMultiple; }

// Returns the top left part of that size.
template <class T>
Plane<T> cropped(const T* values, int stride, Size size) {
  Plane<T> made(size);
  for (int y = 0; y < size.height; ++y) {
    std::copy_n(values + std::size_t(y) * std::size_t(stride), size.width, made.row(y));
  }
  return made;
}

}  // namespace

Detector::Detector(const fs::path& model, const std::string& category) : name_(model.string()) {
  fs::path tail = model;
  tail.replace_extension(".tail.onnx");
  for (const fs::path& file : {model, tail}) {
    std::error_code ignored;
    if (!fs::is_regular_file(file, ignored)) {
      throw UserError(file.string() + " not found: check the path, and copy all files of the export.");
    }
  }
  ov::Core core;
  const Opened first = opened(core, model);
  const Opened second = opened(core, tail);
  plan_ = plan_of(first.facts, false, model.string());
  if (plan_of(second.facts, true, tail.string()).pair != plan_.pair) {
    throw UserError(model.string() + " and its .tail.onnx are of two exports: copy both files of "
                    "one export.");
  }
  choose_category(plan_, category);
  check_outputs(first, {"residual_map"}, model);
  check_outputs(second, {"score", "label", "mask"}, tail);
  core_ = first.request;
  tail_ = second.request;
  classifies_ = second.outputs.count(kProbability) > 0;
  any_batch_ = first.any_batch;
  attempt(name_, [&] {
    core_.set_tensor("images", batch_of(plan_, any_batch_ ? 1 : std::size_t(plan_.batch_size)));
    tail_.set_tensor("image_threshold", scalar(plan_.image_threshold));
    tail_.set_tensor("pixel_threshold", scalar(plan_.pixel_threshold));
  });
  // Set after the model has accepted tiles of that size.
  weights_ = tile_weights(plan_.tile, plan_.hann);
}

Prediction Detector::predict(const Image& image, const std::optional<Mask>& roi) {
  return decide(residual_map(image), roi);
}

Map Detector::residual_map(const Image& image) {
  if (image.channels != plan_.channels) {
    throw UserError("the image has " + std::to_string(image.channels) +
                    " channels, but this detector takes " + std::to_string(plan_.channels) + ".");
  }
  const Size inner = plan_.resize ? resized_size(image.size, *plan_.resize) : image.size;
  Map residual = inner == image.size ? stitched(image) : stitched(resized(image, inner));
  // Remove mirrored pixels, if any; then resize back to the image's own size.
  if (residual.size != inner) residual = cropped(residual.row(0), residual.size.width, inner);
  if (inner != image.size) residual = resized(residual, image.size);
  attenuate_border(residual, plan_.border, plan_.border_weight);
  return residual;
}

Map Detector::stitched(const Image& image) {
  const std::optional<Image> padded = padded_to_tile(image, plan_.tile);
  const Image& source = padded ? *padded : image;
  if (plan_.type != Type::float32 && std::size_t(plan_.type) != source.values.index()) {
    Image wanted;
    if (plan_.type == Type::uint16) wanted.values = Words();
    throw UserError("the image is of type " + type_name(source) + ", but this model takes " +
                    type_name(wanted) + ": export it with --dtype float32, which takes any.");
  }
  const auto corners = tile_corners(source.size, plan_.tile, plan_.stride);
  Stitch stitch(source.size, weights_);
  const auto limit = std::size_t(plan_.batch_size);
  ov::Tensor batch;  // kept for the next batch, since fresh memory costs page faults
  for (std::size_t first = 0; first < corners.size(); first += limit) {
    const std::size_t count = std::min(limit, corners.size() - first);
    const std::size_t size = any_batch_ ? count : limit;  // the rest is not used
    if (!batch || batch.get_shape()[0] != size) batch = batch_of(plan_, size);
    auto* tiles = static_cast<std::uint8_t*>(batch.data());
    const std::size_t bytes = batch.get_byte_size() / size;
    for (std::size_t i = 0; i < count; ++i) {
      cut(source, corners[first + i], plan_, tiles + i * bytes);
    }
    std::memset(tiles + count * bytes, 0, (size - count) * bytes);
    attempt(name_, [&] {
      core_.set_tensor("images", batch);
      core_.infer();
    });
    const ov::Shape shape{size, std::size_t(plan_.tile.height), std::size_t(plan_.tile.width)};
    const ov::Tensor residual = output(core_, "residual_map", ov::element::f32, shape, name_);
    const float* maps = residual.data<const float>();
    for (std::size_t i = 0; i < count; ++i) {
      stitch.add(maps + i * plan_.tile.pixels(), corners[first + i]);
    }
  }
  return stitch.take();
}

Prediction Detector::decide(const Map& residual, const std::optional<Mask>& roi) {
  const Size size = residual.size;
  const Size padded{up_to_multiple(size.height), up_to_multiple(size.width)};
  const ov::Shape shape{std::size_t(padded.height), std::size_t(padded.width)};
  ov::Tensor map(ov::element::f32, shape);
  ov::Tensor valid(ov::element::boolean, shape);
  std::memset(map.data(), 0, map.get_byte_size());
  std::memset(valid.data(), 0, valid.get_byte_size());
  for (int y = 0; y < size.height; ++y) {
    const std::size_t row = std::size_t(y) * std::size_t(padded.width);
    std::copy_n(residual.row(y), size.width, map.data<float>() + row);
    auto* counts = static_cast<std::uint8_t*>(valid.data()) + row;
    if (roi) {
      std::copy_n(roi->row(y), size.width, counts);
    } else {
      std::fill_n(counts, size.width, std::uint8_t{1});
    }
  }
  attempt(name_, [&] {
    tail_.set_tensor("residual_map", map);
    tail_.set_tensor("valid", valid);
    tail_.infer();
  });
  const auto f32 = ov::element::f32;
  const auto truth = ov::element::boolean;
  const ov::Tensor score = output(tail_, "score", f32, {}, name_);
  const ov::Tensor label = output(tail_, "label", truth, {}, name_);
  const ov::Tensor mask = output(tail_, "mask", truth, shape, name_);
  std::optional<float> probability;
  if (classifies_) {
    probability = *output(tail_, kProbability, f32, {}, name_).data<const float>();
  }
  Mask marked = cropped(static_cast<const std::uint8_t*>(mask.data()), padded.width, size);
  for (std::uint8_t& value : marked.values) value = value != 0;
  return {*score.data<const float>(), *static_cast<const std::uint8_t*>(label.data()) != 0,
          clean_mask(std::move(marked), plan_.opening, plan_.min_area), probability};
}

}  // namespace recon_ad
