// What was decided of each image, as CSV and as lines of JSON, as Python writes them.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace recon_ad {

struct Judgement {
  double score;
  double threshold;
  bool anomalous;
  int regions;
  std::optional<double> defect_probability;  // none without a classifier
};

struct Row {
  std::string path;
  std::optional<Judgement> judgement;  // none where there is an error
  std::string error;
};

// The shortest decimals that give the number again, as Python prints them.
std::string shortest(double number);

std::string csv(const std::vector<Row>& rows);
std::string json_lines(const std::vector<Row>& rows);

}  // namespace recon_ad
