// What was decided of each image, as CSV and as lines of JSON, as Python writes them.
#pragma once

#include <optional>
#include <string>

namespace recon_ad {

struct Judgement {
  double score;
  double threshold;
  bool anomalous;
  int regions;
  std::optional<double> defect_probability;  // none without a classifier
  std::optional<double> normalised_score;    // none where no median is known
};

struct Row {
  std::string path;
  std::optional<Judgement> judgement;  // none where there is an error
  std::string error;
};

// The shortest decimals that give the number again, as Python prints them.
std::string shortest(double number);

// Each ends its line.
std::string csv_header();
std::string csv_row(const Row& row);
std::string json_row(const Row& row);

}  // namespace recon_ad
