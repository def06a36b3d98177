// The table of decisions, as CSV and as lines of JSON, in Python's format.
#pragma once

#include <optional>
#include <string>

namespace recon_ad {

struct Judgement {
  double score;
  double threshold;
  bool anomalous;
  int regions;
  std::optional<double> defect_probability;  // empty without a classifier
  std::optional<double> normalised_score;    // empty if no median is known
};

struct Row {
  std::string path;
  std::optional<Judgement> judgement;  // empty if there is an error
  std::string error;
};

// Returns the shortest decimals that represent the number, in Python's format.
std::string shortest(double number);

// Each of these ends with a line break.
std::string csv_header();
std::string csv_row(const Row& row);
std::string json_row(const Row& row);

}  // namespace recon_ad
