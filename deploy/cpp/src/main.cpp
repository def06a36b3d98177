// Judges images by an exported model: a file or a folder in, a table and overlays out.
//
// It mirrors `python -m recon_ad.predict --onnx`: the same files, the same decisions, the same exit
// statuses (0; 2 for errors that the user can fix, with one sentence; 3 if some image is not judged).

#include <cmath>
#include <exception>
#include <filesystem>
#include <iostream>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "caption.h"
#include "detector.h"
#include "error.h"
#include "files.h"
#include "folder.h"
#include "image_io.h"
#include "ops.h"
#include "png_io.h"
#include "regions.h"
#include "table.h"

namespace recon_ad {
namespace {

namespace fs = std::filesystem;

constexpr int kWrong = 2;
constexpr int kBroken = 3;
constexpr std::size_t kTold = 5;  // images that were not judged whose reasons are printed

constexpr char kUsage[] =
    "recon_ad_inspect --model M.onnx --input FILE-or-FOLDER --output O [--roi PATH]\n"
    "                 [--category NAME]\n"
    "\n"
    "  --model   the exported model, with M.tail.onnx beside it\n"
    "  --input   an image, or a folder of images: PNG and JPEG\n"
    "  --output  folder for predictions.csv, predictions.jsonl and overlays/\n"
    "  --roi     region of interest: an image, or a folder laid out as the input; else roi/ or\n"
    "            roi.png in the input's folder, if there is one\n"
    "  --category  the category of the images, for a model of several\n"
    "\n"
    "Exit status: 0; 2 if something has to be fixed first; 3 if some image was not judged.\n";

struct Arguments {
  fs::path model, input, output;
  std::string category;
  std::optional<fs::path> roi;
};

// Parses --name value or --name=value. Throws UserError.
Arguments parsed(const std::vector<std::string>& words) {
  std::map<std::string, std::string> given;
  for (const std::string name : {"model", "input", "output", "roi", "category"}) given[name] = "";
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t equals = words[i].find('=');
    const std::string flag = words[i].substr(0, equals);
    const auto found = flag.compare(0, 2, "--") == 0 ? given.find(flag.substr(2)) : given.end();
    if (found == given.end()) {
      throw UserError("'" + words[i] + "' is not a flag of this program; see --help.");
    }
    if (equals == std::string::npos && i + 1 == words.size()) {
      throw UserError(flag + " is given without a value: write " + flag + " VALUE.");
    }
    found->second = equals == std::string::npos ? words[++i] : words[i].substr(equals + 1);
  }
  for (const std::string name : {"model", "input", "output"}) {
    if (given[name].empty()) throw UserError("--" + name + " is missing; see --help.");
  }
  Arguments arguments{tidy(given["model"]), tidy(given["input"]), tidy(given["output"]),
                      given["category"], {}};
  if (!given["roi"].empty()) arguments.roi = tidy(given["roi"]);
  return arguments;
}

// Returns one row and writes its overlay.
Row judge(Detector& detector, const std::string& name, const fs::path& file, const Regions& regions,
          const fs::path& output) {
  Row row{name, {}, ""};
  const Plan& plan = detector.plan();
  Bytes overlay;
  try {
    const Image image = decode_image(file, plan.channels, plan.input_range);
    const std::optional<fs::path> region = regions.of(file);
    std::optional<Mask> roi;
    if (region) roi = load_region(*region, file, image.size);
    const Prediction prediction = detector.predict(image, roi);
    if (!std::isfinite(prediction.score)) {
      return {name, {}, "the score is " + shortest(prediction.score) +
                        ": the detector or the image is damaged."};
    }
    // An image that is accepted has no marks.
    const Mask marks = prediction.label ? prediction.mask : Mask(image.size);
    row.judgement = Judgement{prediction.score, plan.image_threshold, prediction.label,
                              count_regions(marks), prediction.defect_probability,
                              normalised(plan, prediction.score)};
    Picture drawn{image.size, rgb(image)};
    outline(drawn.values, marks);
    drawn = with_caption(drawn, verdict(*row.judgement), prediction.label);
    overlay = encode_png(drawn.values, drawn.size);
  } catch (const UserError& error) {
    return {name, {}, error.what()};
  } catch (const std::bad_alloc&) {
    return {name, {}, file.string() + ": not enough memory: cut it into smaller files"};
  } catch (const std::exception& error) {  // one image must not stop the others
    return {name, {}, file.string() + ": could not be judged (" + shortened(error.what()) +
                      "): replace or remove it"};
  }
  write_whole(output / "overlays" / (name + ".png"), overlay.data(), overlay.size());
  return row;
}

// Prints the number of images by outcome, and why the first ones were not judged; returns how many
// those are.
std::size_t told(const std::vector<Row>& rows, const fs::path& output) {
  std::vector<const Row*> broken;
  std::size_t anomalous = 0;
  for (const Row& row : rows) {
    if (!row.judgement) broken.push_back(&row);
    anomalous += row.judgement && row.judgement->anomalous ? 1 : 0;
  }
  std::cout << rows.size() << " images: " << anomalous << " anomalous, " << broken.size()
            << " not judged; see " << output.string() << "\n";
  for (std::size_t i = 0; i < broken.size() && i < kTold; ++i) {
    // An error about a file begins with its path.
    const bool named = broken[i]->error.find(broken[i]->path) != std::string::npos;
    std::cout << "  " << (named ? "" : broken[i]->path + ": ") << broken[i]->error << "\n";
  }
  if (broken.size() > kTold) {
    std::cout << "  and " << broken.size() - kTold << " more broken: see "
              << (output / "predictions.csv").string() << "\n";
  }
  return broken.size();
}

int run(const Arguments& arguments) {
  Detector detector(arguments.model, arguments.category);
  std::error_code ignored;
  if (fs::symlink_status(arguments.input, ignored).type() == fs::file_type::not_found) {
    throw UserError("there is no file or folder " + arguments.input.string() + ".");
  }
  const fs::path parent = arguments.input.has_parent_path() ? arguments.input.parent_path() : ".";
  const fs::path root = is_folder(arguments.input) ? arguments.input : parent;
  const Regions regions(root, arguments.roi);
  Paths images;
  std::size_t without = 0;
  for (const fs::path& file : inputs(arguments.input, arguments.output)) {
    if (regions.is_region(file)) continue;
    images.push_back(file);
    without += regions.of(file) ? 0 : 1;
  }
  if (arguments.roi && without == images.size()) {
    throw UserError(arguments.roi->string() +
                    " has a region of interest for none of the images: lay it out as " +
                    arguments.input.string() + " is, or give one image for all.");
  }
  if (regions && without > 0) {
    std::cout << without << " of " << images.size()
              << " images without a region of interest: all pixels count\n";
  }
  if (!regions && detector.plan().of_regions) {
    std::cout << "the thresholds are of regions of interest, and none is given: see --roi\n";
  }

  GrowingFile table(arguments.output / "predictions.csv", csv_header());
  GrowingFile lines(arguments.output / "predictions.jsonl", "");
  std::vector<Row> rows;
  for (const fs::path& file : images) {
    const std::string name = (root == "." ? file : file.lexically_relative(root)).generic_string();
    rows.push_back(judge(detector, name, file, regions, arguments.output));
    table.add(csv_row(rows.back()));
    lines.add(json_row(rows.back()));
  }
  return told(rows, arguments.output) > 0 ? kBroken : 0;
}

int guarded(const std::vector<std::string>& words) {
  if (!words.empty() && (words[0] == "--help" || words[0] == "-h")) {
    std::cout << kUsage;
    return 0;
  }
  try {
    return run(parsed(words));
  } catch (const UserError& error) {
    std::cerr << "error: " << error.what() << "\n";
  } catch (const std::bad_alloc&) {
    std::cerr << "error: not enough memory: close other programs.\n";
  } catch (const std::exception& error) {
    std::cerr << "error: the model could not be computed (" << shortened(error.what())
              << "): export the detector anew.\n";
  }
  return kWrong;
}

}  // namespace
}  // namespace recon_ad

int main(int count, char** words) {
  try {
    return recon_ad::guarded({words + 1, words + count});
  } catch (...) {
    return 2;
  }
}
